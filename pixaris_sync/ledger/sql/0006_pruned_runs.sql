-- Since when files of it that the bucket has are known to be gone from here, or are about to go; NULL: none is.
ALTER TABLE runs ADD COLUMN pruned_at REAL;
CREATE INDEX runs_pruned ON runs (dataset_id) WHERE pruned_at IS NOT NULL;

-- Runs whose folder lacks something: quarantined, or waiting until the table was asked for their rows.
CREATE INDEX runs_damaged ON runs (dataset_id) WHERE folder_cause IS NOT NULL;
