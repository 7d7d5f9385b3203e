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

-- What was done since the ledger was made, by all processes that worked with it.
CREATE TABLE totals (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;
INSERT INTO totals (name, value) VALUES ('files_sent', 0), ('bytes_sent', 0), ('files_found', 0), ('bytes_found', 0);
