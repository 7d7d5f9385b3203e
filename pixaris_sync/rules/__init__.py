"""Decisions as functions of values: no disk, no network, no clock.

* `contract` is what Pixaris writes and reads: local names to cloud names, tracking records to cells.
* `names` says what file systems, GCS and BigQuery take as names.
* `addresses` says where content may go that an answer names an address for, and takes one to listen at apart.
* `schema` says which value goes into which column, and what a table must gain first.
* `planner` says what to do next with rows.
* `readback` says whether a row that was read back is the one that was meant.
* `permissions` says what the account must be allowed, where, and what for.
* `shards` says which task of several carries a run.
* `prices` says what operations cost.
"""
