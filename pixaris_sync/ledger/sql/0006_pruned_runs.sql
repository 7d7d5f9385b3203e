-- Since when files of it that the bucket has are known to be gone from here, or are about to go; NULL: none is.
ALTER TABLE runs ADD COLUMN pruned_at REAL;
CREATE INDEX runs_pruned ON runs (dataset_id) WHERE pruned_at IS NOT NULL;
