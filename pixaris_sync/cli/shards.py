"""``status --shards``: how far the shards of a backfill are, by what they left in the state folder."""

import shlex
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from msgspec import Struct

from pixaris_sync.cli import report
from pixaris_sync.cli.exits import Exit
from pixaris_sync.cli.wiring import settings_for
from pixaris_sync.errors import ConfigurationError
from pixaris_sync.process.ownership import is_gone
from pixaris_sync.process.shard_report import SILENT_SECONDS, ShardReport, place_of, shard_reports
from pixaris_sync.text import bytes_text, counted, printable_line, span_text

#: Up to so many shards, each has a line; of more, only those that somebody may have to do something about.
_SHARDS_SHOWN: Final = 20
#: How many causes are shown, how many ranges of shards are named, and how many commands are spelt out.
_CAUSES_SHOWN: Final = 10
_RANGES_SHOWN: Final = 6
_COMMANDS_SHOWN: Final = 3
_COLUMNS: Final = 80
_HOST_COLUMNS_MIN: Final = 8


class ShardState(StrEnum):
    """How a shard is; those that need somebody most stand first."""

    #: Its process was one of this machine, and is gone without an end.
    KILLED = "killed"
    #: It ended with an error.
    FAILED = "failed"
    #: It has not ended, and has not written for `SILENT_SECONDS`.
    SILENT = "silent"
    #: It ended, or was told to, with work left that a later try may finish.
    WORK_LEFT = "work_left"
    #: It has done what it can, and some runs are quarantined: the pass that sends the rows tells of them.
    NEEDS_ATTENTION = "needs_attention"
    AT_WORK = "at_work"
    DONE = "done"
    #: It has left no report.
    NOT_BEGUN = "not_begun"


#: Of shards that ended; any other exit code is an error's.
_ENDED: Final[dict[int, ShardState]] = {
    Exit.OK: ShardState.DONE,
    Exit.WORK_LEFT: ShardState.WORK_LEFT,
    Exit.INTERRUPTED: ShardState.WORK_LEFT,
}
#: How a number of shards in a state is told.
_WORDS: Final = {
    ShardState.KILLED: "killed",
    ShardState.FAILED: "failed",
    ShardState.SILENT: "not heard of",
    ShardState.WORK_LEFT: "stopped with work left",
    ShardState.NEEDS_ATTENTION: "ended with runs to act on",
    ShardState.AT_WORK: "at work",
    ShardState.DONE: "done",
    ShardState.NOT_BEGUN: "not begun",
}
_TO_BEGIN: Final = (
    ShardState.KILLED,
    ShardState.FAILED,
    ShardState.SILENT,
    ShardState.WORK_LEFT,
    ShardState.NOT_BEGUN,
)
_ENOUGH: Final = (ShardState.DONE, ShardState.NEEDS_ATTENTION)
_SUMMED: Final = {
    "runs": ("found", "done", "waiting", "to_act_on"),
    "files": ("there", "waiting", "sent", "found"),
    "bytes": ("waiting", "sent"),
}


class Division(Struct, frozen=True):
    """Shards that divide the same runs in the same way.

    Attributes:
        count: into how many.
        selection: the flags that select these runs.
        reports: what each shard left, by its number; of two reports, the one of the process begun last.
    """

    count: int
    selection: str
    reports: Mapping[int, ShardReport]

    @property
    def begun_at(self) -> float:
        """When the last of its processes began."""
        return max(one.begun_at for one in self.reports.values())


def show_shards(flags: Mapping[str, Any], config: Path | None, *, as_json: bool) -> Exit:
    """Print how far the shards are that the state folder tells of.

    Raises:
        ConfigurationError: the state folder cannot be listed.
    """
    settings = settings_for(flags, config)
    folder = settings.state_folder
    try:
        found = shard_reports(folder)
    except OSError as error:
        raise ConfigurationError(
            "list shards in",
            str(folder),
            error.strerror or str(error),
            hint="choose another folder with --state-dir, or do it as the user that the shards run as",
        ) from None
    places: defaultdict[tuple[str, tuple[str, ...]], list[ShardReport]] = defaultdict(list)
    for one in found.reports.values():
        places[one.folder, one.destination].append(one)
    place = place_of(settings)
    here = places.pop(place, [])
    document = {
        "state_folder": str(folder),
        "folder": place[0],
        **shards_document(divisions(here), time.time(), where=_where(flags, config)),
        "elsewhere": [
            {"folder": path, "bucket": bucket, "dataset": f"{project}.{dataset}", "shards": len(told)}
            for (path, (bucket, project, dataset, *_)), told in sorted(places.items())
        ],
        "unreadable": [{"name": name, "cause": cause} for name, cause in found.unreadable.items()],
    }
    print(report.as_json(document) if as_json else shards_text(document))
    return Exit.OK


def _where(flags: Mapping[str, Any], config: Path | None) -> str:
    """The flags of this command that tell its settings, for the commands that are to come."""
    given = {"config": config, **flags}
    return "".join(
        f" --{name.replace('_', '-')} {shlex.quote(str(value))}"
        for name, value in given.items()
        if value is not None
    )


def divisions(reports: Iterable[ShardReport]) -> list[Division]:
    """The divisions that these reports are of, the one that was begun last first."""
    parts: defaultdict[tuple[int, str], dict[int, ShardReport]] = defaultdict(dict)
    for one in sorted(reports, key=lambda told: told.begun_at):
        parts[one.shard.count, one.selection][one.shard.number] = one
    found = [Division(count, selection, told) for (count, selection), told in parts.items()]
    return sorted(found, key=lambda division: division.begun_at, reverse=True)


def state_of(told: ShardReport, now: float) -> ShardState:
    """How a shard is at a moment, in seconds since the epoch."""
    if told.exit_code == Exit.OK and told.runs_to_act_on:
        return ShardState.NEEDS_ATTENTION
    if told.exit_code is not None:
        return _ENDED.get(told.exit_code, ShardState.FAILED)
    if is_gone(told.host, told.pid):
        return ShardState.KILLED
    return ShardState.SILENT if now - told.told_at > SILENT_SECONDS else ShardState.AT_WORK


def shards_document(found: Sequence[Division], now: float, *, where: str = "") -> dict[str, Any]:
    """What ``status --shards --json`` prints of divisions, the current one first.

    `where`: flags for the commands that it names.
    """
    current = found[0] if found else Division(0, "", {})
    shards = [
        _shard_document(f"{number}/{current.count}", current.reports.get(number), now)
        for number in range(1, current.count + 1)
    ]
    states = Counter(shard["state"] for shard in shards)
    return {
        "count": current.count,
        "selection": current.selection,
        "states": {state: states[state] for state in ShardState},
        **{
            what: {name: sum(shard[what][name] for shard in shards) for name in names}
            for what, names in _SUMMED.items()
        },
        "shards": shards,
        "causes": _causes(current),
        "causes_left": sum(told.causes_left for told in current.reports.values()),
        "next": _next(current, shards, where),
        "other_divisions": [
            {
                "count": one.count,
                "selection": one.selection,
                "shards": len(one.reports),
                "begun_at": report.when(one.begun_at),
            }
            for one in found[1:]
        ],
    }


def _shard_document(name: str, told: ShardReport | None, now: float) -> dict[str, Any]:
    return {
        "shard": name,
        "state": ShardState.NOT_BEGUN if told is None else state_of(told, now),
        "host": None if told is None else told.host,
        "pid": None if told is None else told.pid,
        "begun_at": report.when(told.begun_at) if told else None,
        "told_at": report.when(told.told_at) if told else None,
        "begun_seconds": max(0.0, now - told.begun_at) if told else None,
        "told_seconds": max(0.0, now - told.told_at) if told else None,
        "ended_at": report.when(told.ended_at) if told else None,
        "ended_seconds": max(0.0, now - told.ended_at) if told and told.ended_at is not None else None,
        "exit_code": told.exit_code if told else None,
        **{
            what: {name: getattr(told, f"{what}_{name}") if told else 0 for name in names}
            for what, names in _SUMMED.items()
        },
    }


def _causes(division: Division) -> list[dict[str, Any]]:
    """What went wrong, most often first."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for number, told in sorted(division.reports.items()):
        for one in told.causes:
            cause = found.setdefault(
                (one.state, one.cause, one.hint),
                {"state": one.state, "cause": one.cause, "hint": one.hint, "run": one.run, "count": 0},
            )
            cause["count"] += one.count
            cause.setdefault("shards", []).append(number)
    return sorted(found.values(), key=lambda cause: -cause["count"])


def _next(division: Division, shards: Sequence[Mapping[str, Any]], where: str) -> list[str]:
    """What there is to do, and the commands for it."""
    if not division.count:
        return [
            f"`pixaris-sync backfill --shard 1/4{where}` begins the first of four;",
            "where some have begun, name their state folder with --state-dir",
        ]
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for number, shard in enumerate(shards, start=1):
        numbers[shard["state"]].append(number)
    command = f"pixaris-sync backfill {division.selection}".rstrip() + where
    if all(shard["state"] in _ENOUGH for shard in shards):
        return [f"run `{command}`", "which sends the rows, and what the shards left"]
    missing = sorted(number for state in _TO_BEGIN for number in numbers[state])
    if not missing:
        return [f"wait for {named(numbers[ShardState.AT_WORK])}"]
    lines = [f"begin {named(missing)}: what is in the bucket is not sent again"]
    lines += [f"  `{command} --shard {number}/{division.count}`" for number in missing[:_COMMANDS_SHOWN]]
    if len(missing) > _COMMANDS_SHOWN:
        lines.append("  and the others likewise")
    if silent := numbers[ShardState.SILENT]:
        lines.append(f"but first see whether {named(silent)} still {_verb(silent, 'work')} elsewhere")
    return lines


def _verb(numbers: Sequence[int], verb: str) -> str:
    return f"{verb}s" if len(numbers) == 1 else verb


def named(numbers: Iterable[int]) -> str:
    """Shards by their numbers in order, neighbours together: ``shards 3 and 7 to 9``."""
    ranges: list[tuple[int, int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    parts: list[object] = []
    for first, last in ranges[:_RANGES_SHOWN]:
        # Two neighbours are no range yet.
        parts += [f"{first} to {last}"] if last - first > 1 else sorted({first, last})
    if left := sum(last - first + 1 for first, last in ranges[_RANGES_SHOWN:]):
        parts.append(f"{left} more")
    *before, last_part = map(str, parts)
    if not before:
        return f"shards {last_part}" if " " in last_part else f"shard {last_part}"
    return f"shards {', '.join(before)} and {last_part}"


def shards_text(document: Mapping[str, Any]) -> str:
    """What ``status --shards`` prints, of its document: a screen, however many shards there are."""
    lines = [*_head(document), *_table(document)]
    causes = document["causes"]
    for cause in causes[:_CAUSES_SHOWN]:
        told = {part: cause[part] for part in ("cause", "hint") if cause[part]}
        if cause["count"] == 1:
            lines += ["", f"{cause['state']}: {cause['run']}"]
        else:
            lines += ["", f"{cause['state']}: {cause['count']} of {named(cause['shards'])}"]
            told = {"such as": cause["run"], **told}
        lines += [f"  {part}: {words}" for part, words in told.items()]
    left = document["causes_left"] + sum(cause["count"] for cause in causes[_CAUSES_SHOWN:])
    if left:
        lines += ["", f"and {left} of other causes: `pixaris-sync status` tells of them after the last pass"]
    if rest := _not_counted(document):
        lines += ["", *rest[:_SHARDS_SHOWN]]
    if len(rest) > _SHARDS_SHOWN:
        lines.append(f"and {len(rest) - _SHARDS_SHOWN} more: --json lists all")
    lines += ["", *_beside("next", document["next"])]
    return "\n".join(map(printable_line, lines))


def _beside(name: str, texts: Iterable[str]) -> list[str]:
    """A name, and lines beside it and below; those that are too long are broken, but no command."""
    lines = [line for text in texts for line in ([text] if "`" in text else wrap(text, _COLUMNS - 6))]
    return [f"{'' if at else name:<6}{line}" for at, line in enumerate(lines)]


def _head(document: Mapping[str, Any]) -> list[str]:
    """All shards together."""
    if not document["count"]:
        return [f"no shard of {document['folder']} has left a report in {document['state_folder']}"]
    runs, files, size = (document[what] for what in _SUMMED)
    of = f"{counted(document['count'], 'shard')} of {document['folder']}"
    states = [f"{count} {_WORDS[ShardState(state)]}" for state, count in document["states"].items() if count]
    missing = [
        number
        for number, shard in enumerate(document["shards"], start=1)
        if shard["state"] == ShardState.NOT_BEGUN
    ]
    lacking = [f"{named(missing)} {'has' if len(missing) == 1 else 'have'} not begun"] if missing else []
    needy = f", {runs['to_act_on']} to act on" if runs["to_act_on"] else ""
    lines = [
        f"{of} {document['selection']}".rstrip(),
        *_beside("", [", ".join(states), *lacking]),
        f"runs  {runs['done']} of {runs['found']} done, {runs['waiting']} waiting{needy}",
        f"files {files['there']} in the bucket, {files['waiting']} waiting ({bytes_text(size['waiting'])})",
        f"sent  {counted(files['sent'], 'file')} ({bytes_text(size['sent'])})",
    ]
    ended = [shard["ended_seconds"] for shard in document["shards"] if shard["ended_seconds"] is not None]
    if ended:
        first, last = span_text(max(ended)), span_text(min(ended))
        lines.append(f"ended {last} ago" if first == last else f"ended {first} to {last} ago")
    return lines


def _table(document: Mapping[str, Any]) -> list[str]:
    """A line a shard; of many, only of those that have begun and are not done."""
    shown = document["shards"]
    if len(shown) > _SHARDS_SHOWN:
        order = {state: place for place, state in enumerate(ShardState)}
        rest = (ShardState.DONE, ShardState.NOT_BEGUN)
        shown = [shard for shard in shown if shard["state"] not in rest]
        shown = sorted(shown, key=lambda shard: order[ShardState(shard["state"])])
    if not shown:
        return []
    rows = [
        (
            shard["shard"],
            str(shard["files"]["there"]),
            str(shard["files"]["waiting"]),
            bytes_text(shard["bytes"]["waiting"]),
        )
        for shard in shown[:_SHARDS_SHOWN]
    ]
    rows.insert(0, ("shard", "in the bucket", "waiting", "to send"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    columns = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    room = _COLUMNS - len(columns[0]) - len("  ")
    texts = ["state", *(_state_text(shard, room) for shard in shown)]
    lines = ["", *(f"{before}  {text}" for before, text in zip(columns, texts, strict=False))]
    if len(shown) > _SHARDS_SHOWN:
        lines.append(f"and {len(shown) - _SHARDS_SHOWN} more that are not done: --json lists all")
    return lines


def _state_text(shard: Mapping[str, Any], room: int) -> str:
    """How a shard is, where and since when, in so many columns."""
    state = ShardState(shard["state"])
    words = _WORDS[state]
    if state is ShardState.NOT_BEGUN:
        return words
    if state is ShardState.FAILED:
        words = f"{words} with exit code {shard['exit_code']}"
    if shard["ended_seconds"] is not None:
        words = f"{words} {span_text(shard['ended_seconds'])} ago"
    elif state is ShardState.AT_WORK:
        words = f"{words} for {span_text(shard['begun_seconds'])}"
    elif state is ShardState.SILENT:
        words = f"{words} for {span_text(shard['told_seconds'])}"
    place = printable_line(shard["host"])
    for_place = room - len(words) - len(" on ")
    if for_place < _HOST_COLUMNS_MIN:
        return words
    if for_place < len(place):
        place = f"{place[: for_place - 3]}..."
    return f"{words} on {place}"


def _not_counted(document: Mapping[str, Any]) -> list[str]:
    """What else is in the state folder."""
    lines = [
        f"not counted: {counted(one['shards'], 'shard')} of {one['count']}"
        f"{' with ' + one['selection'] if one['selection'] else ''}, begun {one['begun_at']}"
        for one in document["other_divisions"]
    ]
    lines += [
        f"not counted: {counted(one['shards'], 'shard')} of {one['folder']},"
        f" to gs://{one['bucket']} and {one['dataset']}"
        for one in document["elsewhere"]
    ]
    return [*lines, *(f"not read: {one['name']}: {one['cause']}" for one in document["unreadable"])]
