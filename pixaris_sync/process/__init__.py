"""What surrounds the engine in a process: signals, systemd, ownership, limits that can be changed.

* `signals` ends the engine well, and tells systemd how it is.
* `ownership` lets one process at a time work on a folder.
* `quiet` keeps the process out of the way of training: `live_limits` changes its limits while it works,
  `priority` steps back for processor and disk, and `memory` keeps it small.
"""
