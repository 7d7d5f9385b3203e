"""Plans of a backfill: written to a file, looked at by a person, and then done exactly, or refused.

* `plan` is what a plan holds, and how it differs from another one of the same selection.
* `estimate` counts what looking asks of the cloud, and foresees what the work will.
* `making` makes one from what `pipeline.preview` foresees. `file` writes it and reads it back,
  `applying` lets it be done, or refuses.
"""
