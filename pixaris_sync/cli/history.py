"""``prune`` and ``pull``: files of old runs leave this disk, and come back."""

import re
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio

from pixaris_sync.cli import report
from pixaris_sync.cli.exits import CommandLineError, Exit
from pixaris_sync.cli.selecting import check_patterns
from pixaris_sync.cli.wiring import open_known_ledger, settings_for
from pixaris_sync.history.prune import Pruned, Pruner
from pixaris_sync.history.pull import Pulled, Puller
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.model import JsonValue, Problem
from pixaris_sync.process.wiring import found_ledger, ports
from pixaris_sync.settings.model import Settings
from pixaris_sync.text import bytes_text, counted, printable_line

_AGE: Final = re.compile(r"(\d{1,6})([hdw])", re.ASCII)
_SECONDS: Final = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
#: How many runs and files are named of what is the same for many.
_SHOWN: Final = 3


def age_seconds(text: str) -> float:
    """An age as flags tell it, in seconds.

    Raises:
        CommandLineError: it is none.
    """
    found = _AGE.fullmatch(text)
    if found is None:
        cause = f"{printable_line(text)!r} is no age"
        hint = "give a number and a unit: 12h (hours), 30d (days) or 2w (weeks)"
        raise CommandLineError("read", "--older-than", cause, hint=hint)
    return int(found[1]) * _SECONDS[found[2]]


def run_prune(
    older_than: str,
    selection: Selection,
    flags: Mapping[str, Any],
    config: Path | None,
    *,
    removes: bool,
    as_json: bool,
) -> Exit:
    """Remove the files of old runs that are proven in the cloud, or say which would be.

    Raises:
        CommandLineError: the age is none, or a pattern of the selection matches nothing.
        ConfigurationError: there is no ledger yet, or folder, destination or credentials are unusable.
        LedgerError: the ledger cannot be read or written.
        SyncError: the cloud could not be asked at all.
    """
    age = age_seconds(older_than)
    settings = settings_for(flags, config)
    check_patterns(settings, selection, found_ledger(settings).path)
    return anyio.run(partial(_prune, settings, selection, age, removes=removes, as_json=as_json))


async def _prune(
    settings: Settings, selection: Selection, age: float, *, removes: bool, as_json: bool
) -> Exit:
    ledger = open_known_ledger(found_ledger(settings).path)
    told = _Told(as_json=as_json)
    runs: list[Pruned] = []
    try:
        async with ports(settings) as (store, sink):
            async for one in Pruner(settings, ledger, store, sink, removes=removes).prune(selection, age):
                runs.append(one)
                _tell_pruned(told, one, "freed" if removes else "would free")
    finally:
        ledger.close()
    freed = [one for one in runs if one.files]
    left = [one for one in runs if one.problem and one.is_dated]
    undated = [str(one.run) for one in runs if not one.is_dated]
    ending = _ending([one.passes for one in left])
    files, size = sum(one.files for one in freed), sum(one.size for one in freed)
    if as_json:
        document = {
            "exit_code": int(ending),
            "removed": removes,
            "files": files,
            "bytes": size,
            "runs": [{**_amount(one), "kept": list(one.kept)} for one in freed],
            "left": [_left(one) for one in left],
            "undated": undated,
        }
        print(report.as_json(document))
        return ending
    if undated:
        names = ", ".join(undated[:_SHOWN]) + (", ..." if undated[_SHOWN:] else "")
        told.line(f"{counted(len(undated), 'run')} without a time in the name: never pruned ({names})")
    word = "freed" if removes else "would free"
    amount = f"{counted(len(freed), 'run')}: {counted(files, 'file')}, {bytes_text(size)}"
    told.line(f"{word} {amount}; {len(left)} left" if freed or left else "nothing to free")
    if not removes and freed:
        told.line("nothing was changed: --yes removes these files")
    told.hints()
    return ending


def _tell_pruned(told: "_Told", one: Pruned, word: str) -> None:
    if one.files:
        told.line(f"{word} {one.run}: {counted(one.files, 'file')}, {bytes_text(one.size)}")
    if one.kept:
        names = ", ".join(one.kept[:_SHOWN]) + (", ..." if one.kept[_SHOWN:] else "")
        told.line(f"{counted(len(one.kept), 'file')} that no record names stay: {names}", indent="  ")
    if one.problem and one.is_dated:
        told.problem(str(one.run), one.problem)


def run_pull(names: Sequence[str], flags: Mapping[str, Any], config: Path | None, *, as_json: bool) -> Exit:
    """Bring runs back from the cloud.

    Raises:
        ConfigurationError: folder, destination or credentials are unusable.
        SyncError: the cloud knows nothing of a name, or could not be asked at all.
    """
    settings = settings_for(flags, config)
    return anyio.run(partial(_pull, settings, names, as_json=as_json))


async def _pull(settings: Settings, names: Sequence[str], *, as_json: bool) -> Exit:
    # Not another folder, one or two levels off.
    found_ledger(settings)
    told = _Told(as_json=as_json)
    runs: list[Pulled] = []
    async with ports(settings, frames=True) as (store, sink):
        async for one in Puller(settings, store, sink).pull(names):
            runs.append(one)
            if one.problem:
                told.problem(str(one.run), one.problem)
            elif one.files or one.lines:
                line = f", {counted(one.lines, 'line')} of the tracking file" if one.lines else ""
                told.line(f"pulled {one.run}: {counted(one.files, 'file')}, {bytes_text(one.size)}{line}")
    back = [one for one in runs if not one.problem and (one.files or one.lines)]
    left = [one for one in runs if one.problem]
    ending = _ending([one.passes for one in left])
    files, size = sum(one.files for one in back), sum(one.size for one in back)
    unchanged = len(runs) - len(back) - len(left)
    if as_json:
        document = {
            "exit_code": int(ending),
            "files": files,
            "bytes": size,
            "runs": [{**_amount(one), "lines": one.lines} for one in back],
            "left": [_left(one) for one in left],
            "unchanged": unchanged,
        }
        print(report.as_json(document))
        return ending
    amount = f"{counted(len(back), 'run')}: {counted(files, 'file')}, {bytes_text(size)}"
    told.line(f"pulled {amount}; {unchanged} here already, {len(left)} left")
    told.hints()
    return ending


def _amount(one: Pruned | Pulled) -> dict[str, JsonValue]:
    return {"run": str(one.run), "files": one.files, "bytes": one.size}


def _left(one: Pruned | Pulled) -> dict[str, JsonValue]:
    assert one.problem is not None  # noqa: S101 - for the type checker
    return {"run": str(one.run), "cause": one.problem.cause, "hint": one.problem.hint}


def _ending(passes: Sequence[bool]) -> Exit:
    """The exit code where runs were left whose problems pass by themselves, or do not."""
    if not passes:
        return Exit.OK
    return Exit.WORK_LEFT if all(passes) else Exit.PROBLEMS


class _Told:
    """What is printed for people while it happens, broken between words where a terminal shows it."""

    def __init__(self, *, as_json: bool) -> None:
        self._is_silent = as_json
        self._width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        self._hints: dict[str, None] = {}

    def line(self, text: str, *, indent: str = "") -> None:
        """Print a line."""
        if self._is_silent:
            return
        shown = f"{indent}{printable_line(text)}"
        if self._width is not None:
            shown = textwrap.fill(
                printable_line(text),
                self._width,
                initial_indent=indent,
                subsequent_indent=f"{indent}  ",
                break_long_words=False,
                break_on_hyphens=False,
            )
        print(shown)

    def problem(self, run: str, problem: Problem) -> None:
        """Say why a run was left; its hint comes at the end."""
        self.line(f"left {run}: {problem.cause}")
        if problem.hint:
            self._hints[problem.hint] = None

    def hints(self) -> None:
        """Print what can be done about all that was left."""
        for hint in self._hints:
            self.line(f"hint: {hint}")
