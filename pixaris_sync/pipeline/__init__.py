"""The engine: scan, upload, deliver, read back; the same for ``watch``, ``sync`` and ``backfill``.

* `engine` runs the parts: who may start what, and when the pass is over. `snapshot` is what it sees of the
  ledger, and `upkeep` keeps that small.
* `context` holds what the parts share: settings, ports, journal, gates.
* `discovery` takes what is on disk into the ledger. `destination` asks once whether bucket and dataset are
  there, and `adoption` compares a new dataset with the bucket.
* `lane` reads files ahead, `uploads` carries one.
* `deliveries` carries one table's rows, with what is plain about them in `outgoing_rows`.
* `follower` keeps it awake while it follows, `rounds` finds what events have missed.
* `preview` says what a pass would do; `table_plans` is its part about tables.
"""
