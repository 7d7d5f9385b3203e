"""Which shard of a backfill a process is: by its flag, or by the scheduler that runs it."""

import os
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from pixaris_sync.cli.exits import CommandLineError
from pixaris_sync.errors import ConfigurationError
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.rules.shards import SHARDS_LIMIT, Shard
from pixaris_sync.text import printable_line

_NONE: Final = "none"
_HINT: Final = "give --shard I/N, or --shard none for everything"


class _Scheduler(NamedTuple):
    """Variables in which a scheduler tells which task of how many a process is.

    Attributes:
        task: the task's number.
        tasks: how many tasks there are.
        first, last: the least and the greatest number; empty: they begin at 0.
    """

    task: str
    tasks: str
    first: str = ""
    last: str = ""


#: Slurm's are told by sbatch(1), "Output environment variables". Of an indexed Job, Kubernetes tells the
#: index alone, and the Job's manifest the number. Cloud Run's are in its container runtime contract.
_SCHEDULERS: Final = (
    _Scheduler(
        "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX"
    ),
    _Scheduler("JOB_COMPLETION_INDEX", "JOB_COMPLETIONS"),
    _Scheduler("CLOUD_RUN_TASK_INDEX", "CLOUD_RUN_TASK_COUNT"),
)


def with_shard(selection: Selection, given: str | None, *, of_all: Sequence[str] = ()) -> Selection:
    """The selection of a backfill as the shard that it is, if it is one.

    Args:
        selection: by the other flags.
        given: the value of ``--shard``, if it was given.
        of_all: those flags that are about all files and rows.

    Raises:
        CommandLineError: it is no shard's name, or does not go with `of_all`.
        ConfigurationError: a scheduler's variables contradict each other.
    """
    if given is None:
        shard = shard_of_task(os.environ)
    elif given.strip().lower() == _NONE:
        shard = None
    else:
        try:
            shard = Shard.parse(given)
        except ValueError as error:
            subject = f"--shard {printable_line(given)}"
            raise CommandLineError("understand", subject, str(error), hint=_HINT) from None
    if shard is not None and of_all:
        cause = "a shard carries a part of the files and no rows, and that is about all of both"
        subject = f"{of_all[0]} in shard {shard}"
        raise CommandLineError("understand", subject, cause, hint="give --shard none with it")
    return replace(selection, shard=shard)


def shard_of_task(environment: Mapping[str, str]) -> Shard | None:
    """The shard that a scheduler's task is; None: no scheduler runs it, or it is the only task.

    Raises:
        ConfigurationError: the variables do not tell, or not all of the tasks are there.
    """
    for scheduler in _SCHEDULERS:
        if not environment.get(scheduler.task):
            continue
        return _shard_by(scheduler, environment)
    return None


def _shard_by(scheduler: _Scheduler, environment: Mapping[str, str]) -> Shard | None:
    index, count = _number(scheduler.task, environment), _number(scheduler.tasks, environment)
    first = _number(scheduler.first, environment) if environment.get(scheduler.first) else 0
    last = _number(scheduler.last, environment) if environment.get(scheduler.last) else first + count - 1
    told = ", ".join(
        f"{name}={environment[name]}" for name in scheduler if name and environment.get(name) is not None
    )
    if not first <= index < first + count or last != first + count - 1 or first > 1 or count > SHARDS_LIMIT:
        raise ConfigurationError(
            "find shard by",
            told,
            "these are not the tasks 0 to N-1, or 1 to N, of N: which runs are whose cannot be told",
            hint=f"submit all tasks together, numbered from 0; to repeat one alone, {_HINT}",
        )
    return Shard(index - first + 1, count) if count > 1 else None


def _number(name: str, environment: Mapping[str, str]) -> int:
    text = environment.get(name, "").strip()
    if text.isascii() and text.isdigit():
        return int(text)
    cause = f"it is {printable_line(text)}, and no number" if text else "it is not set"
    hint = f"set it to how many tasks there are, or {_HINT}"
    raise ConfigurationError("find shard by", name, cause, hint=hint)
