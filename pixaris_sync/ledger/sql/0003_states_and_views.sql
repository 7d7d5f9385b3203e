-- Every state is told by its column; what is not finished has a view each.

-- It is the run's name: it begins with the time, so newest first is DESC.
ALTER TABLE files RENAME COLUMN rank TO run_name;
ALTER TABLE records RENAME COLUMN rank TO run_name;

-- As in records, 1: the bucket may hold it, look before sending it again. A file of which that is known and which
-- waits is in doubt.
ALTER TABLE files ADD COLUMN taken INTEGER NOT NULL DEFAULT 0;
UPDATE files SET taken = 1 WHERE NOT looked;
UPDATE files SET state = 'in_doubt' WHERE state = 'pending' AND NOT looked;
ALTER TABLE files DROP COLUMN looked;

-- 1: it is forgotten, unless the next inspection of its run finds it.
ALTER TABLE files ADD COLUMN forget_unless_found INTEGER NOT NULL DEFAULT 0;
UPDATE files SET forget_unless_found = 1 WHERE mtime_ns = -1;

-- Of content that stood inline in the record, and tells one version of it from another; NULL: a local file.
ALTER TABLE files ADD COLUMN content_crc32c INTEGER;
UPDATE files SET content_crc32c = inode, inode = 0 WHERE mtime_ns = 0;

-- 1: it was refused when it was taken in, and is judged anew when its line is read again.
ALTER TABLE records ADD COLUMN judge_anew INTEGER NOT NULL DEFAULT 0;
UPDATE records SET judge_anew = 1 WHERE reading = -1;

-- SQLite uses a partial index only where a query repeats its condition: these do.
CREATE VIEW open_files AS SELECT * FROM files WHERE state <> 'uploaded';
CREATE VIEW open_records AS SELECT * FROM records WHERE state <> 'synced';
CREATE VIEW open_runs AS SELECT * FROM runs WHERE state <> 'synced';
