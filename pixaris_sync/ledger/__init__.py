"""The ledger: a SQLite database that remembers where every run, file and row stands.

It is a cache of the truth, which is the local folder and the cloud: a lost ledger costs listings and reads,
never a second row.

* `database` opens it, migrates it, and runs transactions; `rescue` sets a damaged one aside.
* `journal` lets many tasks write at once: what arrives together is committed together, and a caller goes on
  only when its change is durable. That is how an intent is on disk before it is tried.
* `intake`, `uploads` and `rows` are the transitions, each a plain function over an open transaction, named by
  the verb that changes the state. `selection` says which runs they are about.
* `runs` gives a run the state that its folder, files and records make.
* `lines` and `notices` keep what is no run: damaged lines, things that are left out, folders without a
  record.
* `overview` reads what ``status`` tells, `inventory` what ``verify`` and a preview ask for.
* `packs` packs the files of finished runs, so that the ledger stays small.

Invariants kept here: a run's state is always what its folder, files and records make it
(`runs.update_run_states` ends every transition); the position in a tracking file moves in the transaction
that keeps its records.
"""
