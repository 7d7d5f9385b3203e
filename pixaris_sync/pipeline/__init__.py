"""The engine: scan, upload, deliver, read back; the same for ``watch``, ``sync`` and ``backfill``.

* `context` holds what the parts share: settings, ports, journal, gates.
* `discovery` takes what is on disk into the ledger.
* `uploads` carries one file; `deliveries` carries one table's rows, with what is plain about them in
  `outgoing_rows`.
* `engine` runs them: who may start what, and when the pass is over.
* `preview` says what a pass would do; `table_plans` is its part about tables.
"""
