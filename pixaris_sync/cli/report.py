"""Findings as text for people and as JSON for machines."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from msgspec import structs, to_builtins

from pixaris_sync.ledger.overview import Overview, WorkLeft
from pixaris_sync.model import JsonValue
from pixaris_sync.monitoring.grouping import grouped_problems, shared_text
from pixaris_sync.rules.shards import Shard
from pixaris_sync.text import bytes_text, counted, printable_line, span_text

if TYPE_CHECKING:
    from pixaris_sync.process.live_limits import InForce
    from pixaris_sync.process.ownership import Owner
    from pixaris_sync.process.repair import Repair

#: How many of the runs that a preview cannot carry, and how many kinds of problems, are printed for people.
PROBLEMS_SHOWN = 20
#: How many runs are named that have the same problem.
NAMES_SHOWN = 3
#: The word for a folder that has no owner.
NOBODY = "no process works on this folder"


def as_json(document: Mapping[str, JsonValue]) -> str:
    """One JSON document on one line."""
    return json.dumps(document, ensure_ascii=True, default=str)


def when(at: float | None) -> str | None:
    """Seconds since the epoch as an ISO timestamp in UTC; None stays None."""
    return None if at is None else datetime.fromtimestamp(at, tz=UTC).isoformat(timespec="seconds")


def status_document(overview: Overview, now: float) -> dict[str, JsonValue]:
    """What ``status --json`` prints, of an overview of the ledger.

    Ages are in seconds before `now`, times are ISO timestamps in UTC.
    """
    oldest, outside = overview.oldest_pending_at, overview.waiting_outside
    return {
        "runs": overview.runs,
        "files": overview.files,
        "rows": overview.rows,
        "pending_bytes": overview.pending_bytes,
        "oldest_pending_seconds": None if oldest is None else max(0.0, now - oldest),
        "last_synced_at": when(overview.last_synced_at),
        "torn_lines": overview.torn_lines,
        "torn_files": list(overview.torn_files),
        "repeated_lines": overview.repeated_lines,
        "pruned": overview.pruned,
        "waiting": [{**to_builtins(waiting), "since": when(waiting.since)} for waiting in overview.waiting],
        "problems": [{**to_builtins(problem), "since": when(problem.since)} for problem in overview.problems],
        **({} if outside is None else {"waiting_outside": outside}),
    }


def status_text(document: Mapping[str, Any]) -> str:
    """What ``status`` prints, of `status_document`: as many lines for an outage of many runs as for one.

    Beside it the document may hold `at_work_document`.
    """
    lines = [f"{name:<5} {_counts(document[name])}" for name in ("runs", "files", "rows")]
    if document["pruned"]:
        lines.append(f"disk  {counted(document['pruned'], 'synced run is', 'synced runs are')} pruned here")
    waiting = f"{bytes_text(document['pending_bytes'])} to upload"
    if document["oldest_pending_seconds"] is not None:
        waiting += f", oldest run waiting for {span_text(document['oldest_pending_seconds'])}"
    lines.append(f"wait  {waiting}")
    lines += [f"      {one['runs']} pending: {printable_line(one['cause'])}" for one in document["waiting"]]
    if outside := outside_text(document.get("waiting_outside")):
        lines.append(f"      {outside}")
    lines += _work_lines(document)
    lines.append(f"last  {document['last_synced_at'] or 'nothing synced yet'}")
    torn = document["torn_files"]
    lines += [f"torn  the last line of {printable_line(name)} is unfinished" for name in torn[:NAMES_SHOWN]]
    if len(torn) > NAMES_SHOWN:
        lines.append(f"      and {len(torn) - NAMES_SHOWN} more: --json lists all")
    return "\n".join([*lines, *_problem_lines(document["problems"])])


def _problem_lines(problems: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is said of problems, those of one cause together; begins with an empty line."""
    lines: list[str] = []
    groups = grouped_problems(problems)
    for group in groups[:PROBLEMS_SHOWN]:
        lines += ["", *map(printable_line, problem_lines(group))]
    if len(groups) > PROBLEMS_SHOWN:
        left = sum(map(len, groups[PROBLEMS_SHOWN:]))
        causes = counted(len(groups) - PROBLEMS_SHOWN, "other cause")
        lines += ["", f"and {left} more with {causes}: --json lists all"]
    return lines


def _work_lines(document: Mapping[str, Any]) -> list[str]:
    """Which process is at work, and what it holds to; or that none is, where something waits."""
    if document.get("owner"):
        lines = [f"work  {printable_line(document['owner'])}"]
        if document.get("pause"):
            lines.append(f"      paused {pause_line(document['pause'])}")
        if document.get("limits"):
            lines += [f"      {line}" for line in limit_lines(document["limits"])]
        return lines
    if document["waiting"] or document["oldest_pending_seconds"] is not None:
        return [f"work  {NOBODY}: `pixaris-sync sync` or `pixaris-sync watch` carries what waits"]
    return []


def outside_text(waiting: int | None) -> str:
    """How many runs wait that are not selected; empty where there are none."""
    return f"{counted(waiting, 'run waits', 'runs wait')} outside this selection" if waiting else ""


def problem_lines(group: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is said of problems of one cause: which runs, why, and what to do."""
    first, count = group[0], len(group)
    if count == 1:
        lines = [f"{first['state']}: {first['run']} (since {first['since']})"]
        parts = {part: first[part] for part in ("cause", "hint")}
    else:
        since = min(problem["since"] for problem in group)
        lines = [f"{first['state']}: {count} of the same cause (the first since {since})"]
        lines += [f"  {problem['run']}" for problem in group[:NAMES_SHOWN]]
        if count > NAMES_SHOWN:
            lines.append(f"  and {count - NAMES_SHOWN} more: --json lists all")
        parts = {part: shared_text(first, part) for part in ("cause", "hint")}
    return [*lines, *(f"  {part}: {text}" for part, text in parts.items() if text or part == "cause")]


def limits_document(in_force: "InForce") -> dict[str, JsonValue]:
    """What ``limit --json`` prints."""
    return {
        **structs.asdict(in_force.limits),
        "bandwidth_limit_now_bytes_per_second": in_force.rate,
        "bandwidth_limit_changes_at": when(in_force.rate_until),
    }


def limit_lines(document: Mapping[str, Any]) -> list[str]:
    """What ``status`` says of `limits_document`: nothing of what is not limited."""
    limit, rate = (
        document["bandwidth_limit_bytes_per_second"],
        document["bandwidth_limit_now_bytes_per_second"],
    )
    until, percent = document["bandwidth_limit_changes_at"], document["max_cpu_percent"]
    lines = []
    if limit is not None:
        now = "none now" if rate is None else f"{bytes_text(rate)}/s"
        lines.append(f"bandwidth limit: {now}" + (f", changes at {until}" if until else ""))
    if percent is not None:
        lines.append(f"processor limit: {percent:g} % of one core")
    return lines


def pause_document(in_force: "InForce") -> dict[str, JsonValue]:
    """What ``pause --json`` and ``resume --json`` print, beside the process."""
    return {
        "paused_since": when(in_force.paused_since),
        "paused_until": when(in_force.paused_until),
        "under_way": in_force.under_way,
    }


def pause_text(document: Mapping[str, Any]) -> str:
    """What ``pause`` prints, of `pause_document` and the `owner`."""
    left = document["under_way"]
    under_way = "nothing is under way"
    if left:
        under_way = f"{counted(left, 'transfer is', 'transfers are')} still under way, and will end soon"
    return table_text([("work", document["owner"]), ("pause", pause_line(document)), ("left", under_way)])


def pause_line(document: Mapping[str, Any]) -> str:
    """Since when there is a pause, and until when."""
    since, until = document["paused_since"], document["paused_until"]
    return f"since {since}, until {until or '`pixaris-sync resume`'}"


def at_work_document(owner: "Owner | None", in_force: "InForce | None") -> dict[str, JsonValue]:
    """What ``status --json`` says of the process at work."""
    return {
        "owner": None if owner is None else str(owner),
        "limits": None if in_force is None else limits_document(in_force),
        "pause": None if in_force is None or in_force.paused_since is None else pause_document(in_force),
    }


def repair_document(repair: "Repair") -> dict[str, JsonValue]:
    """What ``sync --repair --json`` says of what it restored, and of what it left as it is."""
    return {
        "objects": repair.objects,
        "rows": repair.rows,
        "left": [finding.document for finding in repair.left],
    }


def _repair_lines(document: Mapping[str, Any]) -> list[str]:
    objects, rows, left = document["objects"], document["rows"], document["left"]
    if not (objects or rows or left):
        return ["nothing to repair: no object and no row is missing or different"]
    lines = [
        f"taken up again: {counted(objects, 'object')} and {counted(rows, 'row')} that the cloud had lost"
    ]
    shown = (f"left  {one['sign']} {one['subject']}: {one['detail']}" for one in left[:PROBLEMS_SHOWN])
    lines += map(printable_line, shown)
    if len(left) > PROBLEMS_SHOWN:
        lines.append(f"left  and {len(left) - PROBLEMS_SHOWN} more: --json lists all")
    return lines


def pass_text(document: Mapping[str, Any]) -> str:
    """What ``sync`` and ``backfill`` print at their end, of what they did and `status_document`."""
    found = f" ({bytes_text(document['bytes_found'])})" if document["files_found"] else ""
    done = (
        f"{counted(document['files_uploaded'], 'file')} uploaded ({bytes_text(document['bytes'])}), "
        f"{document['files_found']} found there{found}, "
        f"{counted(document['rows_synced'], 'row')} synced in {document['seconds']:.1f} s"
    )
    if "shard" in document:
        return "\n".join([done, *_shard_lines(document)])
    repaired = _repair_lines(document["repair"]) if "repair" in document else []
    return "\n".join([done, *repaired, status_text(document)])


def shard_document(shard: Shard, left: WorkLeft | None) -> dict[str, JsonValue]:
    """What ``backfill --json`` adds as a shard; `left` None: nobody knows what is left."""
    return {
        "shard": str(shard),
        "runs_waiting": None if left is None else left.waiting,
        "runs_quarantined": None if left is None else left.quarantined,
    }


def _shard_lines(document: Mapping[str, Any]) -> list[str]:
    """How far a shard is: of its files alone."""
    shard, runs = document["shard"], sum(document["runs"].values())
    waiting, quarantined = shard["runs_waiting"], shard["runs_quarantined"]
    if waiting is None:
        return [f"shard {shard['shard']} was ended: the next one looks up what was in flight"]
    there = runs - waiting - quarantined
    lines = [f"shard {shard['shard']}: {there} of {counted(runs, 'run')} have all their files in the bucket"]
    if waiting:
        lines.append(f"      {counted(waiting, 'run waits', 'runs wait')}: begin the same shard once more")
    lines += _problem_lines(document["problems"])
    if not waiting:
        lines.append("next  once all shards are done, `pixaris-sync backfill` without a shard sends the rows")
    return lines


def preview_text(document: Mapping[str, Any]) -> str:
    """What ``backfill --dry-run`` prints, of the document that ``pipeline.preview`` makes."""
    carried, found = (_amounts(document, suffix) for suffix in ("", "_found"))
    left = document["not_carried"]
    lines = [
        ("would carry", f"{counted(document['runs'], 'run')}: {carried}"),
        ("there already", found),
        *(
            ("create table", f"{table['table']} with {counted(len(table['columns']), 'column')}")
            for table in document["tables_to_create"]
        ),
        *(
            ("add column", f"{column['table']}.{column['name']} {column['type']}")
            for column in document["columns_to_add"]
        ),
        *(
            ("widen column", f"{column['table']}.{column['name']} to {column['type']}")
            for column in document["columns_to_widen"]
        ),
        *(
            ("rename", f"{name['table']}: {json.dumps(name['key'])} to {name['column']}")
            for name in document["names_rewritten"]
        ),
        *(
            ("not carried", f"{problem['run']}: {problem['state']}: {problem['cause']}")
            for problem in left[:PROBLEMS_SHOWN]
        ),
    ]
    if len(left) > PROBLEMS_SHOWN:
        lines.append(("not carried", f"and {len(left) - PROBLEMS_SHOWN} more: --json lists all"))
    if "operations" in document:
        lines += _operation_lines(document["operations"], document["plan"])
    return f"{table_text(lines)}\nnothing was changed"


def _operation_lines(operations: Mapping[str, Any], plan: str) -> list[tuple[str, str]]:
    """What a plan asks of the cloud, what that costs, and how to go on."""
    queried = bytes_text(operations["query_bytes"])
    return [
        ("uploads", f"{counted(operations['class_a_uploads'], 'object')} (class A)"),
        ("listings", f"{counted(operations['class_a_listings'], 'page')} (class A)"),
        ("look-ups", f"{counted(operations['class_b'], 'object')} (class B)"),
        ("load jobs", f"{operations['load_jobs']} (they cost nothing)"),
        ("queries", f"{operations['queries']}, which bill {queried}"),
        ("price", f"${operations['dollars']:.4f}: {operations['basis']}"),
        ("written to", plan),
        ("next", f"`pixaris-sync backfill --apply {shlex.quote(plan)}` does exactly that"),
    ]


def differences_text(differences: Sequence[str], *, as_json: bool) -> str:
    """In what folder and cloud differ from a plan."""
    if as_json:
        return json.dumps({"differences": list(differences)}, ensure_ascii=True)
    lines = list(map(printable_line, differences[:PROBLEMS_SHOWN]))
    if len(differences) > PROBLEMS_SHOWN:
        lines.append(f"and {len(differences) - PROBLEMS_SHOWN} more: --json lists all")
    return "\n".join(lines)


def _amounts(document: Mapping[str, Any], suffix: str) -> str:
    files, size, rows = (document[f"{name}{suffix}"] for name in ("files", "bytes", "rows"))
    return f"{counted(files, 'file')} ({bytes_text(size)}), {counted(rows, 'row')}"


def _counts(counts: Mapping[str, int]) -> str:
    shown = [f"{count} {state.replace('_', ' ')}" for state, count in counts.items() if count]
    return ", ".join(shown) or "none"


def table_text(rows: Iterable[tuple[str, str]]) -> str:
    """Two columns, the first as wide as its longest entry."""
    pairs = [(printable_line(name), printable_line(text)) for name, text in rows]
    width = max((len(name) for name, _ in pairs), default=0)
    return "\n".join(f"{name:<{width}}  {text}" for name, text in pairs)
