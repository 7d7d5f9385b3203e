"""What ``status --watch`` shows of a view: lines that fit a terminal of any width and height.

Numbers stand whole at every width: where columns lack room, the least important ones are left out, then names
are cut. Where lines lack room, what is synced is counted instead of listed.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from msgspec import to_builtins
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from pixaris_sync.cli import report
from pixaris_sync.ledger.progress import DatasetProgress, SyncedRun
from pixaris_sync.model import RunState
from pixaris_sync.monitoring.grouping import grouped_problems
from pixaris_sync.monitoring.view import View
from pixaris_sync.process.live_limits import InForce
from pixaris_sync.process.ownership import Owner
from pixaris_sync.settings.model import Settings
from pixaris_sync.text import bytes_text, counted, printable_line, seconds_text, span_text

#: Between two columns, and before what stands behind a word.
_GAP: Final = 2
_INDENT: Final = 8
#: No name is cut to less than this while a column that can be left out is there.
_NAME_MIN: Final = 20
#: How many reasons to wait are told.
_REASONS_SHOWN: Final = 3
_STYLES: Final = {"failing": "yellow", "to act on": "red"}
_PROBLEM_STYLES: Final = {"quarantined": "bold red", "incomplete": "bold red", "failing": "bold yellow"}


class Now(NamedTuple):
    """What is known beside a view.

    Attributes:
        owner: who works on the folder; None: nobody.
        bytes_per_second: how fast files are sent or found to be there.
        trouble: why the view is not the newest one; empty: it is.
        in_force: what the owner holds to; None: it does not tell.
    """

    owner: Owner | None
    bytes_per_second: float
    trouble: str = ""
    in_force: InForce | None = None


class _Amounts(NamedTuple):
    """Numbers of a dataset, or of all."""

    synced: int
    under_way: int
    waiting: int
    failing: int
    to_act_on: int
    bytes_left: int
    files_left: int
    rows_left: int

    @property
    def is_done(self) -> bool:
        return not any(self[1:])


#: Columns from the left: heading, text of the amounts, and how early it is left out, never for 0.
_COLUMNS: Final[tuple[tuple[str, Callable[[_Amounts], str], int], ...]] = (
    ("synced", lambda of: str(of.synced), 0),
    ("under way", lambda of: str(of.under_way), 3),
    ("waiting", lambda of: str(of.waiting), 0),
    ("failing", lambda of: str(of.failing), 4),
    ("to act on", lambda of: str(of.to_act_on), 5),
    ("files left", lambda of: str(of.files_left), 2),
    ("rows left", lambda of: str(of.rows_left), 1),
    ("left", lambda of: bytes_text(of.bytes_left), 6),
)


def head(settings: Settings, ledger: Path, console: Console, *, size: str = "") -> list[Text]:
    """What is carried where to, and where that is written down."""
    to, room = settings.destination, console.width - _INDENT
    return [
        *_named("from", _shortened(str(settings.local_results_folder), room), console),
        *_named("to", f"gs://{to.bucket} and {to.bq_project}.{to.bq_dataset_id}", console),
        *_named("ledger", size + _shortened(str(ledger), room - len(size)), console),
    ]


def panes(view: View, now: Now, settings: Settings, console: Console) -> list[Text]:
    """A view as lines that fit the console as it is now."""
    width, room = console.width, console.height - 1
    size = f"{bytes_text(view.ledger_bytes)}, "
    lines = head(settings, view.ledger, console, size=size)
    lines += _named("work", str(now.owner or report.NOBODY), console)
    if now.in_force is not None:
        if now.in_force.paused_since is not None:
            lines += _named("pause", report.pause_line(report.pause_document(now.in_force)), console)
        if limits := report.limit_lines(report.limits_document(now.in_force)):
            lines += _named("limits", "; ".join(limits), console)
    if now.trouble:
        lines += _named("trouble", now.trouble, console)
    lines += _pace(view, now, console)
    datasets = [(str(one.key), _amounts(one, now)) for one in view.datasets]
    last = _last_runs(view.last_runs, width)
    groups = _problems(view, console)
    left = room - len(lines)
    # Each part may have what the others do not need, and a share of its own in any case.
    for_groups = min(sum(map(len, groups)), left // 3)
    for_last = min(len(last), left // 4)
    table = _table(datasets, width, left - for_groups - for_last)
    left -= len(table)
    last = last[: max(for_last, left - sum(map(len, groups)))]
    lines += [*table, *last, *_fitting(groups, left - len(last), width)]
    return lines[: max(1, room)]


def _amounts(of: DatasetProgress, now: Now) -> _Amounts:
    runs, under_way = of.runs, of.under_way if now.owner else 0
    return _Amounts(
        runs[RunState.SYNCED],
        under_way,
        runs[RunState.PENDING] - under_way,
        runs[RunState.FAILING],
        runs[RunState.QUARANTINED] + runs[RunState.INCOMPLETE],
        of.bytes_left,
        of.files_left,
        of.rows_left,
    )


def _pace(view: View, now: Now, console: Console) -> list[Text]:
    """How far it is, how fast it goes, and what is waited for."""
    overview = view.overview
    left = sum(one.bytes_left for one in view.datasets)
    files, rows = (sum(getattr(one, name) for one in view.datasets) for name in ("files_left", "rows_left"))
    if not (files or rows or overview.waiting):
        last = report.when(overview.last_synced_at)
        text = "nothing waits" if overview.problems else "everything is synced"
        parts = [f"{text}, the last run at {last}" if last else "nothing is synced yet"]
    else:
        parts = [f"{counted(files, 'file')} ({bytes_text(left)}) and {counted(rows, 'row')} left"]
        if now.bytes_per_second:
            parts.append(f"{bytes_text(now.bytes_per_second)}/s")
            if left:
                parts.append(f"about {span_text(left / now.bytes_per_second)} to go")
    lines = _named("now", ", ".join(parts), console)
    reasons = [f"{one.runs} pending: {one.cause}" for one in overview.waiting[:_REASONS_SHOWN]]
    if len(overview.waiting) > _REASONS_SHOWN:
        runs = sum(one.runs for one in overview.waiting[_REASONS_SHOWN:])
        reasons.append(f"{runs} pending: for other reasons, as `pixaris-sync status` tells")
    if outside := report.outside_text(overview.waiting_outside):
        reasons.append(outside)
    if now.owner is None and (files or rows or overview.waiting):
        reasons.append("`pixaris-sync sync` or `pixaris-sync watch` carries what waits")
    return [*lines, *(line for reason in reasons for line in wrapped(reason, _INDENT, console))]


def _table(datasets: Sequence[tuple[str, _Amounts]], width: int, room: int) -> list[Text]:
    """All datasets, or those with work, in at most so many lines, and their sum."""
    total = _Amounts(*map(sum, zip(*(amounts for _, amounts in datasets), strict=True))) if datasets else None
    if total is None:
        return []
    room -= 3  # an empty line, the head and the sum
    shown, rest = list(datasets), list(datasets[:0])
    if len(shown) > room:
        shown.sort(key=lambda one: (one[1].is_done, not one[1].under_way, one[0]))
        at = max(0, room - 1)
        shown, rest = shown[:at], shown[at:]
    columns = _columns([*(amounts for _, amounts in shown), total], width)
    rows = [(name, [text(amounts) for _, text, _ in columns]) for name, amounts in shown]
    sums = [text(total) for _, text, _ in columns]
    titles = [title for title, _, _ in columns]
    cells = [titles, *(row for _, row in rows), sums]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    names = width - sum(widths) - _GAP * len(widths)

    def line(name: str, texts: Sequence[str], style: str = "") -> Text:
        made = Text(_fitted(name, names), style=style)
        for title, text, column_width in zip(titles, texts, widths, strict=True):
            marked = "" if text == "0" else _STYLES.get(title, "")
            made.append(f"{'':{_GAP}}{text:>{column_width}}", style=marked or None)
        return made

    lines = [Text(), line("dataset", titles, "dim"), *(line(*row) for row in rows)]
    if rest:
        done = all(amounts.is_done for _, amounts in rest)
        more = f"and {len(rest)} more{', all synced' if done else ''}"
        lines.append(_cut(Text(more, style="dim"), width))
    return [*lines, line("all", sums, "bold")]


def _columns(shown: Iterable[_Amounts], width: int) -> list[tuple[str, Callable[[_Amounts], str], int]]:
    """The columns for which there is room, with a name of some length before them."""
    amounts, columns = list(shown), list(_COLUMNS)

    def taken() -> int:
        widths = (max(len(title), *(len(text(one)) for one in amounts)) for title, text, _ in columns)
        return sum(one + _GAP for one in widths)

    while taken() + _NAME_MIN > width and any(rank for _, _, rank in columns):
        columns.remove(min((one for one in columns if one[2]), key=lambda one: one[2]))
    return columns


def _last_runs(runs: Sequence[SyncedRun], width: int) -> list[Text]:
    """The runs that were synced last, a line each, below a head."""
    if not runs:
        return []
    rows = [("last synced", "files", "size", "line to row")]
    rows += [(str(one.run), str(one.files), bytes_text(one.bytes), seconds_text(one.seconds)) for one in runs]
    widths = [max(map(len, column)) for column in zip(*(row[1:] for row in rows), strict=True)]
    names = max(0, width - sum(widths) - _GAP * len(widths))
    lines = [
        Text(
            _fitted(name, names)
            + "".join(f"{'':{_GAP}}{text:>{size}}" for text, size in zip(texts, widths, strict=True)),
            style="" if at else "dim",
        )
        for at, (name, *texts) in enumerate(rows)
    ]
    return [Text(), *(_cut(line, width) for line in lines)]


def _problems(view: View, console: Console) -> list[list[Text]]:
    """The worst first, a few lines for each cause; the first of each is empty."""
    documents = [{**to_builtins(one), "since": report.when(one.since)} for one in view.overview.problems]
    groups = []
    for group in grouped_problems(documents):
        first, *others = report.problem_lines(group)
        style = _PROBLEM_STYLES.get(group[0]["state"], "bold")
        lines = wrapped(first, 0, console, style)
        for line in others:
            text = line.lstrip()
            lines += wrapped(text, len(line) - len(text), console)
        groups.append([Text(), *lines])
    return groups


def _fitting(groups: Sequence[Sequence[Text]], room: int, width: int) -> list[Text]:
    """As many groups as there is room for, and how many there are besides."""
    lines: list[Text] = []
    for at, group in enumerate(groups):
        is_last = at == len(groups) - 1
        # Where there are more, two lines must be left to say so.
        if len(lines) + len(group) + 2 * (not is_last) > room:
            more = f"{counted(len(groups) - at, 'more cause')}: `pixaris-sync status` tells all"
            lines += [Text(), _cut(Text(more, style="dim"), width)]
            return lines[: max(0, room)]
        lines += group
    return lines


def wrapped(text: str, indent: int, console: Console, style: str = "") -> list[Text]:
    """A text on as many lines as it takes, broken between words where possible."""
    room = max(1, console.width - indent)
    lines = Text(printable_line(text), style=style).wrap(console, room)
    for line in lines:
        line.rstrip()
    return [Text.assemble(" " * indent, line) for line in lines]


def _named(word: str, text: str, console: Console) -> list[Text]:
    """A text behind a word, on as many lines as it takes."""
    first, *more = wrapped(text, _INDENT, console)
    return [Text.assemble((f"{word:<{_INDENT}}", "bold"), first[_INDENT:]), *more]


def _shortened(name: str, width: int) -> str:
    """A name in at most so many columns; of a long one the end, which tells more than the beginning."""
    name = printable_line(name)
    if cell_len(name) <= width:
        return name
    while name and cell_len(name) > width - 1:
        name = name[1:]
    return f"\N{HORIZONTAL ELLIPSIS}{name}" if width > 0 else ""


def _fitted(name: str, width: int) -> str:
    return set_cell_size(_shortened(name, width), width)


def _cut(line: Text, width: int) -> Text:
    line.truncate(width, overflow="ellipsis")
    return line
