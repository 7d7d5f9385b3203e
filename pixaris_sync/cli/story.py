"""``status RUN``: all that is known of single runs."""

import shutil
import sys
import textwrap
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Final

from msgspec import to_builtins

from pixaris_sync.cli import report
from pixaris_sync.cli.exits import Exit
from pixaris_sync.cli.inspect import runs_named
from pixaris_sync.cli.wiring import open_known_ledger, settings_for
from pixaris_sync.ledger.selection import Work
from pixaris_sync.ledger.story import RunStory, run_stories
from pixaris_sync.model import JsonValue
from pixaris_sync.process.ownership import read_owner
from pixaris_sync.process.wiring import found_ledger
from pixaris_sync.rules.contract import object_name, table_id
from pixaris_sync.settings.model import Settings
from pixaris_sync.text import bytes_text, counted, printable_line, seconds_text, without_run

#: How many files are named that are in the same state for the same cause.
FILES_SHOWN: Final = 10
#: A time as text is as long in all cases; what stands behind the name of a part begins here.
_INDENT: Final = " " * 10


def show_runs(names: Sequence[str], flags: Mapping[str, Any], config: Path | None, *, as_json: bool) -> Exit:
    """Print the stories of runs; of a name that several runs have, of each.

    Raises:
        ConfigurationError: there is no ledger yet.
        LedgerError: it cannot be read.
        SyncError: no run has one of the names.
    """
    settings = settings_for(flags, config)
    ledger = open_known_ledger(found_ledger(settings).path, read_only=True)
    owner = read_owner(ledger.path.with_suffix(".owner"))
    try:
        stories: list[RunStory] = ledger.read(
            partial(_stories, names=names, at_work=owner.work if owner else None)
        )
    finally:
        ledger.close()
    documents = [run_document(story, settings) for story in stories]
    if as_json:
        print(report.as_json({"runs": documents}))
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        print("\n\n".join(run_text(document, width) for document in documents))
    return Exit.OK


def _stories(db: Connection, *, names: Sequence[str], at_work: Work | None) -> list[RunStory]:
    return run_stories(db, runs_named("tell of run", db, names), at_work)


def run_document(story: RunStory, settings: Settings) -> dict[str, JsonValue]:
    """What ``status RUN --json`` prints of a run; times are ISO timestamps in UTC."""
    key, destination = story.run.dataset_key, settings.destination
    return {
        "run": str(story.run),
        "state": story.state,
        "since": report.when(story.since),
        "cause": story.cause,
        "hint": story.hint,
        "prefix": f"gs://{destination.bucket}/{object_name(story.run, '')}",
        "table": f"{destination.bq_project}.{destination.bq_dataset_id}.{table_id(key)}",
        "seconds": story.seconds,
        "pruned_at": report.when(story.pruned_at),
        "files": [
            {
                **to_builtins(file),
                "since": report.when(file.since),
                "next_attempt_at": report.when(file.next_attempt_at or None),
            }
            for file in story.files
        ],
        "rows": [
            {
                **to_builtins(row),
                "found_at": report.when(row.found_at),
                "since": report.when(row.since),
                "accepted_at": report.when(row.accepted_at),
                "next_attempt_at": report.when(row.next_attempt_at or None),
            }
            for row in story.rows
        ],
    }


def run_text(document: Mapping[str, Any], width: int | None) -> str:
    """What ``status RUN`` prints of a run, of `run_document`.

    Lines longer than `width` are broken between words; names, paths and addresses stay whole.
    """
    return "\n".join(
        line for indent, text in _lines(document) for line in _broken(indent, printable_line(text), width)
    )


def _broken(indent: str, text: str, width: int | None) -> list[str]:
    if width is None:
        return [f"{indent}{text}"]
    # What stands behind the name of a part goes on where it began.
    deeper = _INDENT if indent == "  " else f"{indent}  "
    wrapper = textwrap.TextWrapper(
        width=width,
        initial_indent=indent,
        subsequent_indent=deeper,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return wrapper.wrap(text)


def _lines(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Lines with what they are indented by."""
    yield "", f"{run['run']}: {run['state']} (since {run['since']})"
    yield from _why("  ", run, ())
    if run["seconds"] is not None:
        yield "  ", f"time    {seconds_text(run['seconds'])} from its line to its row"
    if run["pruned_at"]:
        yield "  ", f"pruned  {run['pruned_at']}: `pixaris-sync pull {run['run']}` brings its files back"
    yield "  ", f"bucket  {run['prefix']}"
    yield "  ", f"table   {run['table']}"
    told = (run["cause"], run["hint"])
    for row in run["rows"]:
        yield from _row_lines(row, told)
    yield from _file_lines(run["files"], told)


def _why(indent: str, of: Mapping[str, Any], told: Collection[str]) -> Iterator[tuple[str, str]]:
    """Cause and hint, without what was told already."""
    yield from ((indent, f"{part}: {of[part]}") for part in ("cause", "hint") if of[part] not in ("", *told))


def _tries(of: Mapping[str, Any]) -> str:
    """How often it failed, and when it is tried again."""
    if not of["attempts"]:
        return ""
    later = f", tried again at {of['next_attempt_at']}" if of["next_attempt_at"] else ""
    return f", failed {counted(of['attempts'], 'time')} in a row{later}"


def _row_lines(row: Mapping[str, Any], told: Collection[str]) -> Iterator[tuple[str, str]]:
    state = row["state"].replace("_", " ")
    yield "  ", f"row     line {row['line']}: {state} (since {row['since']}){_tries(row)}"
    yield _INDENT, f"line found {row['found_at']}"
    if row["sends"]:
        yield _INDENT, f"sent {counted(row['sends'], 'time')}"
    if row["accepted_at"]:
        yield _INDENT, f"accepted {row['accepted_at']}"
    if state == "synced":
        yield _INDENT, f"read back {row['since']}"
    yield from _why(_INDENT, row, told)


def _file_lines(files: Sequence[Mapping[str, Any]], told: Collection[str]) -> Iterator[tuple[str, str]]:
    """Files by state and cause: what is wrong first, as many lines for thousands as for a few."""
    groups: defaultdict[tuple[str, str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for file in files:
        cause, hint = (without_run(file[part], file["path"]) for part in ("cause", "hint"))
        groups[file["state"], cause, hint].append(file)
    begin, indent = "files   ", "  "
    for (state, cause, hint), group in sorted(groups.items(), key=lambda item: not item[0][1]):
        size = bytes_text(sum(file["size"] for file in group))
        yield indent, f"{begin}{len(group)} {state.replace('_', ' ')} ({size})"
        begin, indent = "", _INDENT
        yield from _why(_INDENT, {"cause": cause, "hint": hint} if group[1:] else group[0], told)
        for file in group[:FILES_SHOWN]:
            yield f"{_INDENT}  ", f"{bytes_text(file['size'])}  {file['path']}{_tries(file)}"
        if len(group) > FILES_SHOWN:
            yield f"{_INDENT}  ", f"and {len(group) - FILES_SHOWN} more: --json lists all"
    if not files:
        yield "  ", "files   none"
