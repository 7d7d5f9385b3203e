-- The files of a finished run leave ``files`` and stand in one value; see packs.py.

CREATE TABLE packs (
    run_id INTEGER PRIMARY KEY REFERENCES runs (id),
    packed BLOB NOT NULL
) STRICT;
-- How many files of the run are in its pack; NULL: its files stand in ``files``.
ALTER TABLE runs ADD COLUMN packed_files INTEGER;
CREATE INDEX runs_to_pack ON runs (id) WHERE state = 'synced' AND packed_files IS NULL;
