"""The ledger: a SQLite database that remembers where every run, file and row stands.

It is a cache of the truth, which is the local folder and the cloud: a lost ledger costs listings and reads,
never a second row. In every function here `db` is an open transaction, `now` and every ``*_at`` are seconds
since the epoch.

* `finder` tells which one is that of a results folder and a destination, `listing` which ones there are.
* `database` opens it, migrates it (``sql/``), and runs transactions. `trouble` tells what is wrong where that
  fails. `rescue` opens it for work, and sets a damaged one aside.
* `journal` lets many tasks write at once: what arrives together is committed together, and a caller goes on
  only when its change is durable. That is how an intent is on disk before it is tried.
* `states` has the two tables of transitions, for files and for rows.
* `datasets` has the datasets, and how far their tracking files were read. `intake` takes in what a scan
  found, `known` tells a scan what was found before, `notices` holds what is to be said of what is no run.
* `queues` says which files are next. `uploads` and `rows` are the transitions of files and rows, each named
  by the verb that changes the state. `adoption` notes what the bucket holds already. `pending_rows` says
  which rows wait for what, `runs` draws from files and rows the state of their run. `retry` takes quarantined
  runs up again, `forgetting` leaves what was given up, and `pruned` knows the runs whose files are in the
  cloud alone.
* `selection` says which runs a pass is about. What ``status`` and the monitoring tell is read by `numbers`
  (how much is in which state), `waiting` (what runs wait for), `progress` (each dataset, and the last runs),
  `part` (the same numbers of a selection), `overview` (these, and what is wrong), `totals` (what was ever
  done) and `story` (one run).
  `inventory` reads what ``verify`` compares, `foreseen` is what a preview notes beside its copy. `endings`
  notes which runs are synced, and on which somebody must act, while it happens, for the log.
* `packs` packs the files of finished runs, so that the ledger stays small.

Invariants kept here: a run's state is always what its folder, files and records make it
(`runs.update_run_states` ends every transition); the position in a tracking file moves in the transaction
that keeps its records.
"""
