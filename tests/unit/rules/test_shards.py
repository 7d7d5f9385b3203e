"""Each run belongs to one shard, whatever other runs there are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixaris_sync.model import RunKey
from pixaris_sync.rules.shards import SHARDS_LIMIT, Shard

NAMES = st.text(min_size=1, max_size=12)
RUNS = st.lists(st.builds(RunKey, NAMES, NAMES, NAMES), unique=True, max_size=40)
COUNTS = st.integers(1, 50)


def shards(count: int) -> list[Shard]:
    return [Shard(number, count) for number in range(1, count + 1)]


@given(RUNS, COUNTS)
def test_the_union_of_shards_is_everything_and_their_intersections_are_empty(
    runs: list[RunKey], count: int
) -> None:
    """Goal: nothing is left out or done twice. Method: who takes each run, of all shards."""
    for run in runs:
        assert sum(shard.takes(run) for shard in shards(count)) == 1


@given(RUNS, RUNS, COUNTS)
def test_the_shard_of_a_run_never_changes_when_others_come_and_go(
    before: list[RunKey], after: list[RunKey], count: int
) -> None:
    """Goal: a task that is repeated later has the same runs. Method: two folders with runs in common."""
    for shard in shards(count):
        taken_before = {run for run in before if shard.takes(run)}
        taken_after = {run for run in after if shard.takes(run)}
        assert taken_before & set(after) == taken_after & set(before)


def test_the_shards_of_runs_are_those_of_every_version() -> None:
    """Goal: tasks of two versions of this package divide alike. Method: known runs."""
    runs = [RunKey("cats", "val", f"20260101-00000{at}_run") for at in range(8)]
    runs += [RunKey("a/b", "c", "d"), RunKey("a", "b/c", "d"), RunKey("über", "\udcff", "走")]
    found = [next(shard.number for shard in shards(7) if shard.takes(run)) for run in runs]
    assert found == [6, 4, 5, 2, 6, 6, 1, 2, 7, 6, 2]


def test_one_large_dataset_spreads_over_all_shards() -> None:
    """Goal: no task has most of the work. Method: 4,000 runs of one dataset, a quarter each and some more."""
    runs = [RunKey("p", "d", f"20260101-{at:06}_run") for at in range(4000)]
    for shard in shards(4):
        assert 900 < sum(shard.takes(run) for run in runs) < 1100


@pytest.mark.parametrize("shard", [Shard(1, 1), Shard(3, 4), Shard(SHARDS_LIMIT, SHARDS_LIMIT)])
def test_a_shard_is_read_as_it_is_told(shard: Shard) -> None:
    assert Shard.parse(f" {shard} ") == shard


@pytest.mark.parametrize(
    "text", ["", "4", "0/4", "5/4", "1/0", "1/100001", "-1/4", "1/4/2", "a/b", "1.0/4", "٣/4"]
)
def test_what_names_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be|there are none"):
        Shard.parse(text)
