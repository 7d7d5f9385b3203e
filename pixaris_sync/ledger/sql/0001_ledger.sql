-- The ledger: what is known of every dataset, run, file and tracking record, and where each stands.
-- Times are seconds since the epoch. States are the values of the enums in model.py.

CREATE TABLE datasets (
    id INTEGER PRIMARY KEY,
    project TEXT NOT NULL,
    dataset TEXT NOT NULL,
    table_id TEXT NOT NULL,
    tail TEXT,                             -- TailPosition as JSON; NULL: never read
    reading INTEGER NOT NULL DEFAULT 0,    -- how often the tracking file was read from its first byte
    read_whole INTEGER NOT NULL DEFAULT 0, -- 1: read to its end at least once
    torn_bytes INTEGER NOT NULL DEFAULT 0, -- length of an unfinished last line
    adopted_at REAL,                       -- the bucket was listed for it; NULL: send nothing yet
    cause TEXT,                            -- why nothing of it can be synced, if so
    hint TEXT,
    trouble TEXT,                          -- why it could not be compared with the bucket yet, if that failed
    trouble_hint TEXT,
    since REAL NOT NULL,
    UNIQUE (project, dataset)
) STRICT;
CREATE INDEX datasets_by_table ON datasets (table_id);

CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    dataset_id INTEGER NOT NULL REFERENCES datasets (id),
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    since REAL NOT NULL,
    cause TEXT,
    hint TEXT,
    signature TEXT,                        -- of its folder when last inspected; NULL: inspect it
    folder_cause TEXT,                     -- what is wrong with its folder, if anything
    folder_hint TEXT,
    committed INTEGER NOT NULL DEFAULT 0,  -- 1: a tracking record names it
    UNIQUE (dataset_id, name)
) STRICT;
CREATE INDEX runs_unsynced ON runs (state, since) WHERE state <> 'synced';

CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    dataset_id INTEGER NOT NULL REFERENCES datasets (id),
    run_id INTEGER REFERENCES runs (id),   -- NULL: a damaged line
    rank TEXT NOT NULL DEFAULT '',         -- its run's name: it begins with the time, so newest first is DESC
    digest TEXT NOT NULL,
    ordinal INTEGER NOT NULL,              -- among equal digests in one file
    line INTEGER NOT NULL,
    reading INTEGER NOT NULL,              -- the reading of the file that saw it last
    payload TEXT,                          -- the record as JSON; NULL once it is synced
    found_at REAL NOT NULL,                -- when it was taken in
    state TEXT NOT NULL,
    since REAL NOT NULL,
    cause TEXT,
    hint TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_at REAL NOT NULL DEFAULT 0,
    sends INTEGER NOT NULL DEFAULT 0,      -- deliveries begun so far; never reset: part of load job ids
    batch_limit INTEGER,                   -- halved while the bad row of a refused batch is looked for
    by_load INTEGER NOT NULL DEFAULT 0,    -- 1: streaming lost it or cannot take it
    taken INTEGER NOT NULL DEFAULT 0,      -- 1: the table may hold it; look before sending it again
    ready INTEGER NOT NULL DEFAULT 0,      -- 1: every file of its run is in the bucket
    delivery_id INTEGER REFERENCES deliveries (id),
    UNIQUE (dataset_id, digest, ordinal)
) STRICT;
-- SQLite uses a partial index only where a query repeats its condition, beside whatever else it asks for.
-- What every table has waiting, from the index alone.
CREATE INDEX records_unsynced ON records
    (dataset_id, ready, state, next_attempt_at, by_load, attempts, rank, delivery_id) WHERE state <> 'synced';
-- The next rows of a dataset, in the order in which they are sent.
CREATE INDEX records_in_order ON records
    (dataset_id, ready, state, coalesce(batch_limit, 1000000), rank DESC, line) WHERE state <> 'synced';
-- Without `IS NOT NULL` alone, forgetting a delivery would look through all records for the foreign key.
CREATE INDEX records_by_delivery ON records (delivery_id) WHERE delivery_id IS NOT NULL;
CREATE INDEX records_damaged ON records (dataset_id) WHERE run_id IS NULL;
CREATE INDEX records_by_run ON records (run_id);

CREATE TABLE files (
    id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL REFERENCES runs (id),
    dataset_id INTEGER NOT NULL REFERENCES datasets (id),
    path TEXT NOT NULL,                    -- relative to the run's folder, and to its prefix in the bucket
    rank TEXT NOT NULL,                    -- as in records
    content BLOB,                          -- a dict metric, which has no local file; NULL once it is uploaded
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    state TEXT NOT NULL,
    since REAL NOT NULL,
    crc32c INTEGER,                        -- of the object, once known
    generation INTEGER NOT NULL DEFAULT 0, -- of the object that this file replaces or became; 0: none
    ours INTEGER NOT NULL DEFAULT 0,       -- 1: that generation holds an earlier version of this file
    looked INTEGER NOT NULL DEFAULT 1,     -- 0: an upload may have happened, look before sending
    sent_crc32c INTEGER,                   -- of what such an upload held, where that is known
    session_uri TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_at REAL NOT NULL DEFAULT 0,
    cause TEXT,
    hint TEXT,
    UNIQUE (run_id, path)
) STRICT;
-- The next files of a dataset, in the order in which they are sent.
CREATE INDEX files_open ON files (state, dataset_id, rank DESC, size) WHERE state <> 'uploaded';
CREATE INDEX files_open_by_run ON files (run_id) WHERE state <> 'uploaded';

CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY,
    table_id TEXT NOT NULL,
    method TEXT NOT NULL,
    job_id TEXT,
    started_at REAL NOT NULL,
    ended_at REAL
) STRICT;
CREATE INDEX deliveries_by_table ON deliveries (table_id, method, started_at);
CREATE INDEX deliveries_ended ON deliveries (ended_at);

CREATE TABLE tables (
    table_id TEXT PRIMARY KEY,
    changed_at REAL NOT NULL               -- when we last created or altered it
) STRICT;

CREATE TABLE notices (
    scope TEXT NOT NULL,                   -- 'project/dataset', '' for the whole results folder, or 'everything'
    subject TEXT NOT NULL,
    state TEXT NOT NULL,                   -- 'quarantined': left out until somebody acts; 'notice': to know
    since REAL NOT NULL,
    cause TEXT NOT NULL,
    hint TEXT NOT NULL,
    PRIMARY KEY (scope, subject, cause)
) STRICT;

CREATE TABLE facts (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;
