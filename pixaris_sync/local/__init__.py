"""The results folder on this machine: listed, read on, watched; changed by two modules alone.

* `results_folder` is the whole of it as the engine sees it, `run_folder` one run in it. `placement` knows a
  folder that is one or two levels off.
* `safe_open` opens whatever is opened below it, and never leaves it.
* `tracking_file` reads a tracking file on from where it stopped; `tracking_lines` makes records of its bytes,
  and `damaged_lines` says what can be read of a damaged one.
* `presence` tells a folder that is away for a while, as a mount may be, from what was deleted.
* `run_names` tells which folder a record's run has.
* `contents` reads files of runs and leaves the `page_cache` to others, `images` tells whether an image is
  whole, and `thumbnails` makes small pictures of them.
* `watch` says "look again at this dataset"; `mounts` knows the folders whose changes by other machines no
  event tells of.
* `storing` stores runs whole or not at all, for the handlers and for ``pull``, by `placing`. `removal`
  removes files of runs, for ``prune``.
"""
