"""What surrounds the engine in a process: signals, systemd, ownership, limits that can be changed.

* `service` runs the engine until it is done, or until `signals` end it; `systemd` is told how it is.
* `repair` compares folder and cloud, and has taken up again what was removed from the cloud.
* `ownership` lets one process at a time work on a folder.
* `shard_report` is what a shard of a backfill leaves for whoever asks how far all of them are.
* `wiring` puts the real bucket, tables, folder and ledger together, and takes them apart again.
* `quiet` keeps the process out of the way of training: `live_limits` changes its limits while it works, and
  `priority` steps back for processor and disk. `open_files` keeps to how many files may be open.
"""
