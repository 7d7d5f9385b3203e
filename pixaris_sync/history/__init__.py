"""Old runs between here and the cloud: files that are proven there leave this disk, and come back.

* `candidates` says which runs may be pruned: those that are old enough, and synced by the ledger and by the
  folder. `prune` proves each of them, and removes its files.
* `pull` brings runs back from the cloud, whole or not at all; `cloud` is what it reads there, and `lines`
  makes the record of a run that has no line here of its row.

Nothing here sends anything to the cloud, or takes a line out of a tracking file.
"""
