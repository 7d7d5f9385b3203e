-- What is shown all the time is read at once, however much is known.

-- The rows that were synced last.
CREATE INDEX records_synced ON records (since) WHERE state = 'synced';

-- How many files of a dataset are in packs: the sum of its runs' packed_files.
ALTER TABLE datasets ADD COLUMN packed_files INTEGER NOT NULL DEFAULT 0;
UPDATE datasets SET packed_files =
    (SELECT coalesce(sum(r.packed_files), 0) FROM runs r WHERE r.dataset_id = datasets.id);
CREATE TRIGGER runs_pack AFTER UPDATE OF packed_files ON runs
WHEN new.packed_files IS NOT old.packed_files
BEGIN
    UPDATE datasets
    SET packed_files = packed_files + coalesce(new.packed_files, 0) - coalesce(old.packed_files, 0)
    WHERE id = new.dataset_id;
END;
CREATE TRIGGER runs_forget AFTER DELETE ON runs
WHEN old.packed_files IS NOT NULL
BEGIN
    UPDATE datasets SET packed_files = packed_files - old.packed_files WHERE id = old.dataset_id;
END;

-- How many files of a dataset stand in ``files``: those that are uploaded, and the others, with their size. Who
-- writes there counts, see datasets.py; only what is deleted is counted by itself.
ALTER TABLE datasets ADD COLUMN uploaded_files INTEGER NOT NULL DEFAULT 0;
ALTER TABLE datasets ADD COLUMN open_files INTEGER NOT NULL DEFAULT 0;
ALTER TABLE datasets ADD COLUMN open_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE datasets SET uploaded_files = f.uploaded_files, open_files = f.open_files, open_bytes = f.open_bytes
FROM (
    SELECT dataset_id, sum(state = 'uploaded') AS uploaded_files, sum(state <> 'uploaded') AS open_files,
        sum(iif(state <> 'uploaded', size, 0)) AS open_bytes
    FROM files GROUP BY dataset_id
) f WHERE f.dataset_id = datasets.id;
CREATE TRIGGER files_forget AFTER DELETE ON files
BEGIN
    UPDATE datasets SET uploaded_files = uploaded_files - (old.state = 'uploaded'),
        open_files = open_files - (old.state <> 'uploaded'),
        open_bytes = open_bytes - iif(old.state <> 'uploaded', old.size, 0)
    WHERE id = old.dataset_id;
END;

-- How many runs of each dataset are in each state, and what the files of a run wait for, from indexes alone.
DROP INDEX runs_unsynced;
CREATE INDEX runs_unsynced ON runs (state, dataset_id, since) WHERE state <> 'synced';
DROP INDEX files_open_by_run;
CREATE INDEX files_open_by_run ON files (run_id, state) WHERE state <> 'uploaded';
-- The run that waits longest: the walk ends with the first.
CREATE INDEX records_waiting ON records (found_at, run_id) WHERE state <> 'synced';

-- What was done since the ledger was made, by all processes that worked with it.
CREATE TABLE totals (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;
INSERT INTO totals (name, value) VALUES ('files_sent', 0), ('bytes_sent', 0), ('files_found', 0), ('bytes_found', 0);
