"""The engine: scan, upload, deliver, read back; the same for ``watch``, ``sync`` and ``backfill``.

* `engine` runs the parts: who may start what, and when the pass is over; `snapshot` is what it decides by.
  `context` holds what the parts share, `unexpected` makes reports of what nobody thought of, `hold` is the
  pause that somebody asked for.
* `follower` keeps a following engine awake. `discovery` takes what is on disk into the ledger, by `intake`;
  `arrival` tells runs that were written here from those that are being copied in, `orphans` what becomes of
  run folders that no record names; `absence` lets work rest while a folder is away.
* `adoption` is the first contact: are bucket and dataset there, what is in the bucket already.
* `lane` carries files, `uploads` one of them.
* `deliveries` carries one table's rows; what is plain about them is in `outgoing_rows`. `table_changes` makes
  the table fit for them, `lookups` asks what it holds, before and after;
  `pruned` takes in what the bucket has of runs whose files are not here.
* `tidying` keeps the ledger small.
* `told` is what the log says of runs, however many there are; `outages` is what it says of what is away.
* `preview` says what a pass would do, and `forecast` is what it comes to.
"""
