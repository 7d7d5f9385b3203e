"""Which runs a pass is about, and what a process that is at work does with them."""

import shlex
from dataclasses import dataclass

#: A condition over datasets d that holds for those of selected runs; see `Selection.parameters`.
SELECTED_DATASETS = """
(:project IS NULL OR d.project = :project) AND (:dataset IS NULL OR d.dataset = :dataset)
"""


def selected(name: str) -> str:
    """A condition that holds for selected runs, over datasets d and a column with the run's name.

    A BLOB sorts after every TEXT: so an absent bound is a bound too, and an index over the name serves both.
    """
    return f"{SELECTED_DATASETS} AND {name} >= :since AND {name} < coalesce(:until, x'')"


#: `selected` over runs r.
SELECTED = selected("r.name")
#: More than any number of attempts that can be counted.
NO_LIMIT = 2**62


@dataclass(frozen=True, slots=True)
class Selection:
    """Which runs a pass is about, and how often it tries.

    Attributes:
        project, dataset: only these; None: all.
        since, until: run names begin with their time as ``YYYYmmdd-HHMMSS``: only names from `since` on and
            before `until`.
        attempts_limit: files and rows that have failed so often in a row are left for a later pass.
    """

    project: str | None = None
    dataset: str | None = None
    since: str = ""
    until: str | None = None
    attempts_limit: int = NO_LIMIT

    @property
    def parameters(self) -> dict[str, str | int | None]:
        """Values for `SELECTED` and for ``:attempts_limit``."""
        return {
            "project": self.project,
            "dataset": self.dataset,
            "since": self.since,
            "until": self.until,
            "attempts_limit": self.attempts_limit,
        }

    @property
    def flags(self) -> str:
        """The flags that select the same; empty: all."""
        given = {
            "--project": self.project,
            "--dataset": self.dataset,
            "--since": _date(self.since),
            "--until": _date(self.until),
        }
        return " ".join(f"{flag} {shlex.quote(value)}" for flag, value in given.items() if value is not None)


def _date(bound: str | None) -> str | None:
    """The day that a bound of run names begins, as flags name it."""
    return f"{bound[:4]}-{bound[4:6]}-{bound[6:8]}" if bound else None


#: All runs, as often as it takes.
EVERYTHING = Selection()


@dataclass(frozen=True, slots=True)
class Work:
    """What a process that works with a ledger does: its command, and on which runs."""

    command: str = "watch"
    selection: Selection = EVERYTHING

    def __str__(self) -> str:
        """As on the command line."""
        return " ".join(filter(None, ("pixaris-sync", self.command, self.selection.flags)))


#: A process that carries everything.
ANYBODY = Work()
