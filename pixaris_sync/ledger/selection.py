"""Which runs a pass is about, and what a process that is at work does with them.

A pattern is SQLite's GLOB: ``*`` stands for any characters, slashes too, ``?`` for one, ``[a-c]`` for one of
them, ``[!a-c]`` for one other. What is equal to a name matches it as well, whatever characters it has. The
same condition selects in the ledger and, by `Selection.takes`, what is not in it yet.
"""

import re
import shlex
import sqlite3
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple, Self

from msgspec import Struct

from pixaris_sync.model import DatasetKey, RunKey, Tail
from pixaris_sync.rules.shards import Shard

_KEY: Final = "d.project || '/' || d.dataset"
#: More than any number of attempts that can be counted.
NO_LIMIT = 2**62
#: A class with its brackets, and whether it is one of others; what opens none stands for itself.
_CLASS: Final = re.compile(r"\[(!?)(\]?[^\]]*\])")
_LITERAL: Final = re.compile(r"[^*?\[]*")


class Selection(Struct, frozen=True):
    """Which runs a pass is about, and how often it tries.

    Attributes:
        projects, datasets: patterns of names: only what matches one of them; none: all.
        runs: the same of runs; a pattern with a slash is compared with ``project/dataset/run``, too.
        exclude: none of these: patterns of runs, and, where they have a slash, of ``project/dataset`` and of
            ``project/dataset/run``.
        since, until: run names begin with their time as ``YYYYmmdd-HHMMSS``: only names from `since` on and
            before `until`.
        attempts_limit: files and rows that have failed so often in a row are left for a later pass.
        planned: only runs that this connection was told by `plan_runs`.
        shard: only files of its runs, and no rows. Its ledger knows no others: no condition need speak of it.
    """

    projects: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    since: str = ""
    until: str | None = None
    attempts_limit: int = NO_LIMIT
    planned: bool = False
    shard: Shard | None = None

    @classmethod
    def of_document(cls, told: Mapping[str, Any]) -> Self:
        """The selection that a document was made of; what other versions tell in it is left out.

        Raises:
            TypeError: it is none.
        """
        known: dict[str, Any] = {name: told[name] for name in cls.__struct_fields__ if name in told}
        known |= {name: tuple(one) for name, one in known.items() if isinstance(one, list)}
        if known.get("shard"):
            known["shard"] = Shard(**known["shard"])
        return cls(**known)

    @property
    def of_datasets(self) -> str:
        """A condition over datasets d that holds for those of selected runs; see `parameters`."""
        parts = [
            _any(_matches(column, f"{name}{at}") for at in range(len(patterns)))
            for column, name, patterns in (
                ("d.project", "project", self.projects),
                ("d.dataset", "dataset", self.datasets),
            )
            if patterns
        ]
        parts += [
            f"NOT {_matches(_KEY, f'exclude{at}')}" for at, one in enumerate(self.exclude) if "/" in one
        ]
        return " AND ".join(parts) or "TRUE"

    @property
    def of_lines(self) -> str:
        """A condition over datasets d that holds for those of which lines without a run's name count."""
        return "FALSE" if self.runs else self.of_datasets

    def of_runs(self, name: str = "r.name") -> str:
        """A condition that holds for selected runs, over datasets d and a column with the run's name.

        A BLOB sorts after every TEXT: so an absent bound is a bound too, and an index over the name serves
        both.
        """
        parts = [self._of_names(name)]
        if self.planned:
            parts.append(f"EXISTS (SELECT 1 FROM temp.planned p WHERE p.run = {_KEY} || '/' || {name})")
        return " AND ".join(parts)

    def beside(self) -> tuple[str, dict[str, str | int | None]]:
        """`of_runs` with other names of its values, to stand beside another selection; and the values."""
        condition = re.sub(r":(\w)", r":seen_\1", self.of_runs())
        return condition, {f"seen_{name}": value for name, value in self.parameters.items()}

    def _of_names(self, name: str) -> str:
        dated = f"{name} >= :since AND {name} < coalesce(:until, x'')"
        return f"{self.of_datasets} AND {dated}{self._of_patterns(name)}"

    def of_runs_whenever(self) -> str:
        """`of_runs` without `since` and `until`, which go by the time in a run's name."""
        return f"{self.of_datasets}{self._of_patterns('r.name')}"

    def _of_patterns(self, name: str) -> str:
        parts = []
        if self.runs:
            parts.append(_any(_matches_run(name, f"run{at}", one) for at, one in enumerate(self.runs)))
        parts += [f"NOT {_matches_run(name, f'exclude{at}', one)}" for at, one in enumerate(self.exclude)]
        return "".join(f" AND {part}" for part in parts)

    @property
    def parameters(self) -> dict[str, str | int | None]:
        """Values for the conditions and for ``:attempts_limit``."""
        since, until = self._bounds()
        values: dict[str, str | int | None] = {
            "since": since,
            "until": until,
            "attempts_limit": self.attempts_limit,
        }
        for name, patterns in (
            ("project", self.projects),
            ("dataset", self.datasets),
            ("run", self.runs),
            ("exclude", self.exclude),
        ):
            for at, pattern in enumerate(patterns):
                values |= {f"{name}{at}": pattern, f"{name}{at}_glob": _glob(pattern)}
        return values

    def _bounds(self) -> tuple[str, str | None]:
        """`since` and `until`, or what the beginnings of the patterns of runs leave of what is between."""
        since, until = self.since, self.until
        if not self.runs or any("/" in one for one in self.runs):
            return since, until
        beginnings = [found[0] for one in self.runs if (found := _LITERAL.match(one))]
        ends = [_after(one) for one in beginnings]
        until = min((one for one in (until, _latest(ends)) if one is not None), default=None)
        return max(since, min(beginnings)), until

    def takes_dataset(self, key: DatasetKey) -> bool:
        """Whether runs of a dataset may be selected."""
        return not (self.projects or self.datasets or self.exclude) or self._holds(
            self.of_datasets, key.project, key.dataset, ""
        )

    def takes(self, run: RunKey) -> bool:
        """Whether a run is selected, planned or not."""
        return not self.is_limited or self._holds(self._of_names("r.name"), run.project, run.dataset, run.run)

    def part_of(self, tail: Tail) -> Tail:
        """Of what was read of a tracking file, what a shard takes in; all of it, if it is none."""
        return self.shard.part_of(tail) if self.shard else tail

    def taken(self, key: DatasetKey, names: Iterable[str]) -> list[str]:
        """Which of a dataset's runs of these names are selected."""
        return [name for name in names if self.takes(RunKey(key.project, key.dataset, name))]

    def _holds(self, condition: str, project: str, dataset: str, run: str) -> bool:
        values = {**self.parameters, "d": project, "e": dataset, "r": run}
        from_one = "(SELECT :d AS project, :e AS dataset) d, (SELECT :r AS name) r"
        try:
            return _is_so(f"{condition} FROM {from_one}", values)
        except UnicodeEncodeError:
            # Bytes of another encoding, which is refused as a name.
            return False

    @property
    def is_limited(self) -> bool:
        """Whether there may be runs that it does not select."""
        return any(
            (self.projects, self.datasets, self.runs, self.exclude, self.since, self.until, self.planned)
        )

    @property
    def flags(self) -> str:
        """The flags that select the same; empty: all."""
        given = (
            *(("--project", one) for one in self.projects),
            *(("--dataset", one) for one in self.datasets),
            *(("--run", one) for one in self.runs),
            *(("--exclude", one) for one in self.exclude),
            ("--since", _date(self.since)),
            ("--until", _date(self.until)),
            ("--shard", str(self.shard) if self.shard else None),
        )
        return " ".join(f"{flag} {shlex.quote(value)}" for flag, value in given if value is not None)


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Which of these names a pattern matches."""
    values = {"p0": pattern, "p0_glob": _glob(pattern)}
    condition = _matches(":name", "p0")
    return [name for name in names if _is_so(condition, {**values, "name": name})]


def plan_runs(db: sqlite3.Connection, runs: Iterable[RunKey]) -> None:
    """Let these be the only runs that a `Selection.planned` selects, while the connection is open."""
    db.execute("CREATE TEMP TABLE IF NOT EXISTS planned (run TEXT PRIMARY KEY) WITHOUT ROWID")
    db.execute("DELETE FROM temp.planned")
    db.executemany("INSERT OR IGNORE INTO temp.planned VALUES (?)", [(str(run),) for run in runs])


_asking = threading.Lock()


@cache
def _matcher() -> sqlite3.Connection:
    """A database that holds nothing and knows what matches; for all threads, one at a time."""
    return sqlite3.connect(":memory:", check_same_thread=False)


def _is_so(condition: str, values: Mapping[str, Any]) -> bool:
    with _asking:
        return bool(_matcher().execute(f"SELECT {condition}", values).fetchone()[0])


def _matches(subject: str, at: str) -> str:
    return f"({subject} = :{at} OR {subject} GLOB :{at}_glob)"


def _matches_run(name: str, at: str, pattern: str) -> str:
    by_name = _matches(name, at)
    whole = f"{_KEY} || '/' || {name}"
    return f"({by_name} OR {_matches(whole, at)})" if "/" in pattern else by_name


def _any(conditions: Iterable[str]) -> str:
    """Whether one of them holds, in halves: SQLite takes no deep expressions."""
    found: Sequence[str] = list(conditions)
    if len(found) == 1:
        return found[0]
    middle = len(found) // 2
    return f"({_any(found[:middle])} OR {_any(found[middle:])})"


def _glob(pattern: str) -> str:
    """A pattern as SQLite spells it."""
    return _CLASS.sub(lambda found: f"[{'^' if found[1] else ''}{found[2]}", pattern)


def _after(beginning: str) -> str | None:
    """What comes right after all texts that begin so; None: nothing does."""
    for at in range(len(beginning) - 1, -1, -1):
        code = ord(beginning[at])
        if code < sys.maxunicode:
            # There are no surrogates in names.
            following = 0xE000 if code == 0xD7FF else code + 1  # noqa: PLR2004
            return beginning[:at] + chr(following)
    return None


def _latest(bounds: Sequence[str | None]) -> str | None:
    """The last of these bounds; None, which is no bound, comes after all."""
    told = [one for one in bounds if one is not None]
    return max(told) if len(told) == len(bounds) else None


def _date(bound: str | None) -> str | None:
    """The day that a bound of run names begins, as flags name it."""
    return f"{bound[:4]}-{bound[4:6]}-{bound[6:8]}" if bound else None


#: All runs, as often as it takes.
EVERYTHING = Selection()


class Work(NamedTuple):
    """What a process that works with a ledger does: its command, and on which runs."""

    command: str = "watch"
    selection: Selection = EVERYTHING

    def __str__(self) -> str:
        """As on the command line."""
        return " ".join(filter(None, ("pixaris-sync", self.command, self.selection.flags)))


#: A process that carries everything.
ANYBODY = Work()
