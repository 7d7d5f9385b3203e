"""The last line of a tracking file, without its newline."""

import json
from pathlib import Path

import pytest

from pixaris_sync.local.results_folder import LocalResults
from pixaris_sync.model import DatasetKey, Tail, TailPosition

KEY = DatasetKey("shop", "shoes")
#: Every file has not changed for a while then.
LATER_NS = 2**62


def text(run: str) -> str:
    return json.dumps({"timestamp": run[:15], "experiment_run_name": run})


FIRST, SECOND = "20250131-120000_first", "20250131-120001_second"


class Folder:
    """A dataset whose tracking file is read on from where it stopped."""

    def __init__(self, root: Path) -> None:
        self.path = root / "shop" / "shoes" / "lines.jsonl"
        self.path.parent.mkdir(parents=True)
        self._results = LocalResults(root, "lines.jsonl")
        self._position: TailPosition | None = None

    def append(self, more: str) -> None:
        with self.path.open("a") as file:
            file.write(more)

    def read(self, *, settled: bool = True) -> Tail:
        limit = LATER_NS if settled else 0
        tail = self._results.tail(KEY, self._position, bytes_limit=1000, settled_before_ns=limit)
        assert tail is not None
        self._position = tail.position
        return tail

    def runs(self, *, settled: bool = True) -> list[tuple[int, str]]:
        return [(record.line, record.run.run) for record in self.read(settled=settled).records]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_whole_record_counts_once_it_is_not_written_any_more(folder: Folder) -> None:
    """Goal: a lost newline loses no run. Method: a young file, the same when it is old, again, anew."""
    folder.append(text(FIRST) + "\n" + text(SECOND))
    young = folder.read(settled=False)
    assert ([record.run.run for record in young.records], young.torn_bytes) == ([FIRST], len(text(SECOND)))

    old = folder.read()
    assert ([(record.line, record.run.run) for record in old.records], old.torn_bytes) == ([(2, SECOND)], 0)
    again = folder.read()
    assert (again.records, again.torn_bytes, again.position) == ((), 0, old.position)
    assert old.position.offset == len(text(FIRST)) + 1


@pytest.mark.parametrize("newline", ["\n", "\r\n", " \n"])
def test_a_newline_that_comes_later_is_nothing_new(folder: Folder, newline: str) -> None:
    """Goal: nothing is doubled. Method: the newline, then another line; the same record."""
    folder.append(text(FIRST))
    [before] = folder.read().records
    folder.append(newline)
    [after] = folder.read().records
    assert (after.digest, after.line) == (before.digest, before.line)
    folder.append(text(SECOND) + "\n")
    assert folder.runs() == [(2, SECOND)]


def test_a_record_right_behind_it_is_another_one(folder: Folder) -> None:
    """Goal: the next run's line may stand right behind it. Method: append it; both are records."""
    folder.append(text(FIRST))
    assert folder.runs() == [(1, FIRST)]
    folder.append(text(SECOND) + "\n")
    tail = folder.read()
    assert [record.run.run for record in tail.records] == [FIRST, SECOND]
    assert tail.damaged == ()


def test_a_line_that_goes_on_otherwise_is_damaged(folder: Folder) -> None:
    """Goal: it is told clearly. Method: append what makes no record; the record before it stays one."""
    folder.append(text(FIRST))
    assert folder.runs() == [(1, FIRST)]
    folder.append(', "more": 1}\n')
    tail = folder.read()
    [damaged] = tail.damaged
    assert damaged.line == 1


@pytest.mark.parametrize("torn", ['{"timestamp": "2025', "[1, 2]", '{"no": "name"}', "   "])
def test_what_is_no_whole_record_goes_on_waiting(folder: Folder, torn: str) -> None:
    """Goal: a torn line is completed or left. Method: beginnings and other JSON, looked at twice."""
    folder.append(text(FIRST) + "\n" + torn)
    for _ in range(2):
        tail = folder.read()
        assert tail.torn_bytes == len(torn)
        assert SECOND not in [record.run.run for record in tail.records]
    folder.append("\n" + text(SECOND) + "\n")
    assert folder.runs()[-1] == (3, SECOND)
