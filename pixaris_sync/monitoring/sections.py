"""Parts of the page: what is wrong, what waits, how far each dataset is, which runs were synced last.

Each is None where there is nothing to show.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from msgspec import to_builtins

from pixaris_sync.ledger.progress import DatasetProgress, SyncedRun
from pixaris_sync.model import RunKey, RunState
from pixaris_sync.monitoring.grouping import Problem, grouped_problems, shared_text
from pixaris_sync.monitoring.markup import Content, Html, tag
from pixaris_sync.monitoring.view import View
from pixaris_sync.text import bytes_text, counted, seconds_text

#: Where pictures of runs are, each by its id.
THUMBNAILS: Final = "/thumbnails/"
#: How many kinds of problems are shown, and how many runs of each are named.
_GROUPS_SHOWN: Final = 20
_NAMES_SHOWN: Final = 20
#: How many datasets stand there at once, and how many more can be unfolded, of those in which something is to
#: be done and of the others.
_UNFOLDED: Final = 30
_FOLDED_MAX: Final = 300

#: How a kind of state looks: never by its colour alone.
SIGNS: Final = {"synced": "✓", "busy": "↑", "waiting": "…", "failing": "↻", "attention": "!", "paused": "Ⅱ"}
#: What a problem's state means for somebody: how it looks, and its word.
_PROBLEMS: Final = {
    RunState.QUARANTINED: ("attention", "needs attention"),
    RunState.INCOMPLETE: ("attention", "incomplete"),
    RunState.FAILING: ("failing", "failing"),
    "notice": ("waiting", "to know"),
}


def title(name: str, text: str) -> Html:
    """A heading that names its section."""
    return tag("h2", text, id=f"{name}-title")


def name(text: str) -> Html:
    """A name of somebody's: its direction ends where it ends."""
    return tag("bdi", text)


def count_text(count: int, noun: str, plural: str = "") -> str:
    """A number of things, with thousands apart: ``1,000 runs``."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def time_of(at: float, *, since: bool = False) -> Html:
    """A time, which the script tells as "3 minutes ago", or `since` a time, told as "for 3 minutes"."""
    moment = datetime.fromtimestamp(at, tz=UTC)
    return tag(
        "time",
        f"{'since ' if since else ''}{moment:%Y-%m-%d %H:%M} UTC",
        datetime=moment.isoformat(timespec="milliseconds"),
        data_since=since,
    )


def badge(kind: str, word: str) -> Html:
    """A word for a state, with its sign and its colour."""
    return tag(
        "span", tag("span", SIGNS[kind], class_="sign", aria_hidden="true"), word, class_=f"badge {kind}"
    )


def _prose(text: str) -> list[Content]:
    """A sentence in which commands stand between backticks."""
    return [tag("code", part) if at % 2 else part for at, part in enumerate(text.split("`"))]


def problems(view: View) -> Content:
    """Problems, those of one cause together."""
    if not view.overview.problems:
        return None
    groups = grouped_problems(map(to_builtins, view.overview.problems))
    left = sum(map(len, groups[_GROUPS_SHOWN:]))
    return [
        title("problems", "What is wrong, and what to do"),
        map(_problem, groups[:_GROUPS_SHOWN]),
        tag(
            "p",
            f"and {left:,} more; ",
            tag("code", "pixaris-sync status --json"),
            " lists all",
            class_="rest",
        )
        if left
        else None,
    ]


def _problem(group: Sequence[Problem]) -> Html:
    first, count = group[0], len(group)
    kind, word = _PROBLEMS.get(first["state"], _PROBLEMS["notice"])
    if count == 1:
        cause, hint = first["cause"], first["hint"]
        subject: Content = name(first["run"])
    else:
        cause, hint = shared_text(first, "cause"), shared_text(first, "hint")
        subject = f"{count:,} of the same cause"
    names = None
    if count > 1:
        listed = [tag("li", name(one["run"])) for one in group[:_NAMES_SHOWN]]
        if count > _NAMES_SHOWN:
            more = tag("code", "pixaris-sync status --json")
            listed.append(tag("li", f"and {count - _NAMES_SHOWN:,} more; ", more, " lists all"))
        names = tag("details", tag("summary", "Which ones"), tag("ul", listed), data_key=f"{word} {cause}")
    since = min(one["since"] for one in group)
    return tag(
        "article",
        tag("h3", badge(kind, word), " ", subject),
        tag("p", cause, class_="cause"),
        tag("p", tag("strong", "What to do: "), _prose(hint), class_="hint") if hint else None,
        names,
        tag("p", "" if count == 1 else "the first of them ", time_of(since, since=True), class_="since"),
        class_=f"card problem {kind}",
    )


def waiting(view: View) -> Content:
    """What pending runs wait for."""
    if not view.overview.waiting:
        return None
    return [
        title("waiting", "What waits, and for what"),
        tag(
            "ul",
            [
                tag(
                    "li",
                    tag("b", count_text(one.runs, "run")),
                    f": {one.cause} ",
                    tag("span", time_of(one.since, since=True), class_="since"),
                )
                for one in view.overview.waiting
            ],
            class_="card",
        ),
    ]


def _standing(one: DatasetProgress) -> tuple[str, str]:
    """How a dataset looks, and its word."""
    if one.cause or one.runs[RunState.QUARANTINED] or one.runs[RunState.INCOMPLETE]:
        return "attention", "cannot be synced" if one.cause else "needs attention"
    if one.runs[RunState.FAILING]:
        return "failing", "failing"
    if one.uploading:
        return "busy", f"uploading {counted(one.uploading, 'file')}"
    if one.runs[RunState.PENDING] or one.rows_left:
        return "waiting", "waiting"
    return "synced", "synced"


def datasets(progress: Sequence[DatasetProgress]) -> Content:
    """Each dataset, those first in which something is to be done."""
    if not progress:
        return None
    # Else they keep their order.
    standing = sorted(
        ((_standing(one), one) for one in progress), key=lambda pair: _URGENCY.index(pair[0][0])
    )
    done = next((at for at, pair in enumerate(standing) if pair[0][0] == "synced"), len(standing))
    shown = len(standing) if len(standing) <= _UNFOLDED else min(done, _UNFOLDED)
    return [
        title("datasets", "Datasets"),
        _table(standing[:shown], "Datasets and how far they are") if shown else None,
        _folded(standing[shown:done], "more dataset is not synced", "more datasets are not synced"),
        _folded(standing[max(shown, done) :], "dataset is synced", "datasets are synced"),
    ]


def _folded(
    standing: Sequence[tuple[tuple[str, str], DatasetProgress]], one: str, several: str
) -> Html | None:
    if not standing:
        return None
    beyond = len(standing) - _FOLDED_MAX
    return tag(
        "details",
        tag("summary", count_text(len(standing), one, several)),
        _table(standing[:_FOLDED_MAX], several),
        tag("p", f"and {beyond:,} more", class_="rest") if beyond > 0 else None,
        data_key=several,
    )


#: The kinds of states, those first that somebody must look at.
_URGENCY: Final = ("attention", "failing", "busy", "waiting", "synced")
_COLUMNS: Final = ("synced", "waiting", "failing", "need attention", "to upload")


def _table(standing: Iterable[tuple[tuple[str, str], DatasetProgress]], caption: str) -> Html:
    """A table; its roles are written out, because in a narrow window it is laid out as a list."""
    heads = [tag("th", text, scope="col", role="columnheader") for text in ("dataset", "state", *_COLUMNS)]
    rows = []
    for (kind, word), one in standing:
        runs = one.runs
        numbers = (
            runs[RunState.SYNCED],
            runs[RunState.PENDING],
            runs[RunState.FAILING],
            runs[RunState.QUARANTINED] + runs[RunState.INCOMPLETE],
        )
        texts = [f"{number:,}" for number in numbers]
        texts.append(bytes_text(one.bytes_left) if one.files_left else "0")
        place = tag("span", name(one.key.project), " / ", tag("b", name(one.key.dataset)))
        cause = tag("span", one.cause, class_="cause") if one.cause else None
        cells = [
            tag("td", text, role="cell", data_label=label, class_="none" if text == "0" else None)
            for text, label in zip(texts, _COLUMNS, strict=True)
        ]
        state = tag("td", badge(kind, word), role="cell")
        rows.append(
            tag("tr", tag("th", place, cause, scope="row", role="rowheader"), state, cells, role="row")
        )
    head = tag("thead", tag("tr", heads, role="row"), role="rowgroup")
    body = tag("tbody", rows, role="rowgroup")
    return tag("table", tag("caption", caption), head, body, class_="card", role="table")


def runs(synced: Sequence[SyncedRun], thumbnail: Callable[[RunKey, str], str]) -> Content:
    """The runs that were synced last."""
    if not synced:
        return None
    return [
        title("runs", "Synced last"),
        tag("ul", [_run(one, thumbnail) for one in synced], class_="runs"),
    ]


def _run(one: SyncedRun, thumbnail: Callable[[RunKey, str], str]) -> Html:
    pictures = [
        tag(
            "img",
            src=THUMBNAILS + thumbnail(one.run, path),
            alt=path.rpartition("/")[2],
            loading="lazy",
            decoding="async",
            width="160",
            height="160",
        )
        for path in one.first_images
    ]
    more = one.images - len(pictures)
    files = f"{count_text(one.files, 'file')}, {bytes_text(one.bytes)}"
    return tag(
        "li",
        tag(
            "div",
            pictures or tag("span", "no images", class_="none"),
            tag("span", f"+{more:,}", class_="others", title=f"{more:,} more") if more > 0 else None,
            class_=f"pictures of-{min(4, len(pictures))}",
        ),
        tag("h3", name(one.run.run)),
        tag("p", name(one.run.project), " / ", name(one.run.dataset)),
        tag(
            "p",
            files,
            tag("span", f"{seconds_text(one.seconds)} from line to row"),
            time_of(one.synced_at),
            class_="facts",
        ),
        class_="card run",
    )
