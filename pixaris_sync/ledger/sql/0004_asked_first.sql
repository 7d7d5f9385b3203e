-- Whoever does not know whether the table holds a row asks first; what was copied in waits until it is still.

-- 1: its files wait until the table was asked for its rows; see runs.py.
ALTER TABLE runs ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
-- Copied in: its rows wait until its folder has been quiet up to then; NULL: there is nothing to wait for.
ALTER TABLE runs ADD COLUMN quiet_at REAL;
CREATE INDEX runs_arriving ON runs (dataset_id, quiet_at) WHERE quiet_at IS NOT NULL;

-- 1: its run's row stood in the table before this ledger had sent anything of it. Where its object is not in
-- the bucket, somebody removed it: it is not sent again. 'uploaded' with generation 0 is such a file.
ALTER TABLE files ADD COLUMN stood INTEGER NOT NULL DEFAULT 0;

-- In doubt: when the table was first asked for it and answered; NULL: not since it is in doubt.
ALTER TABLE records ADD COLUMN looked_at REAL;
-- When a delivery of it ended well: it is never sent again by itself; NULL: none did.
ALTER TABLE records ADD COLUMN accepted_at REAL;
UPDATE records SET accepted_at = since WHERE state = 'accepted';
-- When the table was made that it was last sent to, by the service's clock: one made anew cannot hold it.
ALTER TABLE records ADD COLUMN table_made_at REAL;

-- When it was made, by the service's clock: another time tells another table of the same name.
ALTER TABLE tables ADD COLUMN made_at REAL;

-- How many lines of the tracking file repeat a record that stands before them.
ALTER TABLE datasets ADD COLUMN repeated_lines INTEGER NOT NULL DEFAULT 0;
-- Equal lines of a run are one record: what was never sent of the others is forgotten.
DELETE FROM records WHERE ordinal > 0 AND run_id IS NOT NULL AND state = 'pending' AND sends = 0 AND NOT taken;

-- What the tables are to be asked for, in the order in which they are.
CREATE INDEX records_unasked ON records (dataset_id, run_name DESC) WHERE state = 'unasked';
