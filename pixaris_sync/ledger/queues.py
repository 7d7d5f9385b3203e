"""Which files are next, as statements: in the order of an index, so that a question costs as its answer."""

from functools import cache
from typing import NamedTuple

from pixaris_sync.ledger.selection import Selection
from pixaris_sync.model import FileState

#: A queue is a dataset's files of one state: the index has each in the order in which it is sent.
QUEUES = (FileState.PENDING, FileState.IN_DOUBT)


class Statements(NamedTuple):
    """What is asked of the files of selected runs.

    Attributes:
        heads: of each dataset, or of one, the newest runs that have a file to send, by queue.
        next_of_queue: the next files of a queue.
        next_attempt: when the first of them may be tried.
    """

    heads: str
    next_of_queue: str
    next_attempt: str


@cache
def statements_of(selection: Selection) -> Statements:
    """What is asked of the files of these runs."""
    sendable = f"""
f.dataset_id = d.id AND {selection.of_runs("f.run_name")}
AND r.id = f.run_id AND r.folder_cause IS NULL AND NOT r.held AND f.attempts < :attempts_limit
"""
    # Datasets that were compared with the bucket, and may be synced.
    open_datasets = f"d.adopted_at IS NOT NULL AND d.cause IS NULL AND {selection.of_datasets}"
    heads = ", ".join(
        f"""
(SELECT f.run_name FROM open_files f CROSS JOIN runs r
WHERE f.state = '{state}' AND {sendable} AND f.next_attempt_at <= :now
ORDER BY f.run_name DESC LIMIT 1)
"""
        for state in QUEUES
    )
    return Statements(
        heads=f"""
SELECT d.id, {heads}
FROM datasets d WHERE {open_datasets} AND (:dataset_id IS NULL OR d.id = :dataset_id)
""",
        next_of_queue=f"""
SELECT f.id, f.run_id, d.project, d.dataset, r.name, f.path, f.size, f.mtime_ns, f.inode, f.content_crc32c,
    f.content, f.generation, f.crc32c, f.ours, f.taken, f.sent_crc32c, f.session_uri, f.attempts, f.cause,
    f.stood
FROM datasets d CROSS JOIN open_files f CROSS JOIN runs r
WHERE d.id = :dataset_id AND f.state = :state AND {sendable} AND f.next_attempt_at <= :now
    AND f.run_name > :above
ORDER BY f.run_name DESC, f.size LIMIT :count
""",
        next_attempt=f"""
SELECT min(f.next_attempt_at) FROM datasets d CROSS JOIN open_files f CROSS JOIN runs r
WHERE {open_datasets} AND f.state IN {tuple(map(str, QUEUES))} AND {sendable}
""",
    )
