"""Which shard a scheduler's task is."""

import pytest

from pixaris_sync.cli.exits import CommandLineError
from pixaris_sync.cli.sharding import shard_of_task, with_shard
from pixaris_sync.errors import ConfigurationError
from pixaris_sync.ledger.selection import EVERYTHING
from pixaris_sync.rules.shards import Shard


def slurm(task: int, first: int, last: int, tasks: int) -> dict[str, str]:
    numbers = {"ID": task, "MIN": first, "MAX": last, "COUNT": tasks, "STEP": 1}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in numbers.items()}


@pytest.mark.parametrize(
    ("environment", "shard"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "7"}, None),
        (slurm(0, 0, 3, 4), Shard(1, 4)),
        (slurm(3, 0, 3, 4), Shard(4, 4)),
        (slurm(1, 1, 4, 4), Shard(1, 4)),
        (slurm(4, 1, 4, 4), Shard(4, 4)),
        (slurm(0, 0, 0, 1), None),
        ({"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "4"}, Shard(2, 4)),
        ({"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "8"}, Shard(1, 8)),
        ({"JOB_COMPLETION_INDEX": "7", "JOB_COMPLETIONS": "8"}, Shard(8, 8)),
        ({"CLOUD_RUN_TASK_INDEX": "2", "CLOUD_RUN_TASK_COUNT": "3"}, Shard(3, 3)),
        ({"CLOUD_RUN_TASK_INDEX": "0", "CLOUD_RUN_TASK_COUNT": "1"}, None),
        ({"CLOUD_RUN_TASK_INDEX": "", "CLOUD_RUN_TASK_COUNT": "4"}, None),
    ],
)
def test_a_task_of_each_scheduler_is_its_shard(environment: dict[str, str], shard: Shard | None) -> None:
    """Goal: an array needs no flag, and a job of one task carries everything. Method: their variables."""
    assert shard_of_task(environment) == shard


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        (slurm(2, 2, 2, 1), "SLURM_ARRAY_TASK_ID=2"),
        (slurm(3, 1, 7, 4), "not the tasks 0 to N-1"),
        (slurm(1, 1, 5, 4), "not the tasks 0 to N-1"),
        (slurm(100, 100, 103, 4), "not the tasks 0 to N-1"),
        ({"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_COUNT": "4"}, "not the tasks 0 to N-1"),
        ({"JOB_COMPLETION_INDEX": "3"}, "JOB_COMPLETIONS: it is not set"),
        ({"JOB_COMPLETION_INDEX": "3", "JOB_COMPLETIONS": "3"}, "not the tasks 0 to N-1"),
        (
            {"JOB_COMPLETION_INDEX": "x", "JOB_COMPLETIONS": "3"},
            "JOB_COMPLETION_INDEX: it is x, and no number",
        ),
        ({"CLOUD_RUN_TASK_INDEX": "0", "CLOUD_RUN_TASK_COUNT": "0"}, "not the tasks 0 to N-1"),
        ({"CLOUD_RUN_TASK_INDEX": "0", "CLOUD_RUN_TASK_COUNT": "-2"}, "it is -2, and no number"),
    ],
)
def test_what_does_not_tell_is_refused(environment: dict[str, str], said: str) -> None:
    """Goal: no run is left out for an array that was submitted in part. Method: such variables."""
    with pytest.raises(ConfigurationError) as caught:
        shard_of_task(environment)
    assert said in str(caught.value)
    assert "--shard none" in caught.value.hint


def test_a_flag_goes_before_the_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a task can be repeated alone, and anything can run in an array. Method: both together."""
    for name, value in slurm(2, 2, 2, 1).items():
        monkeypatch.setenv(name, value)
    assert with_shard(EVERYTHING, "3/4").shard == Shard(3, 4)
    assert with_shard(EVERYTHING, "1/1").shard == Shard(1, 1)
    assert with_shard(EVERYTHING, "None", of_all=["--plan"]).shard is None


@pytest.mark.parametrize("flag", ["--dry-run", "--plan", "--apply"])
def test_what_is_about_all_runs_is_refused_in_a_shard(flag: str) -> None:
    with pytest.raises(CommandLineError, match=rf"{flag} in shard 1/2"):
        with_shard(EVERYTHING, "1/2", of_all=[flag])


def test_a_flag_that_names_no_shard_is_refused() -> None:
    with pytest.raises(CommandLineError, match=r"--shard 5/4: must be between 1/4 and 4/4"):
        with_shard(EVERYTHING, "5/4")
