"""The page: one view of everything as HTML, which says the same without scripts, colours and pictures.

It is made of parts with an id and ``data-part``: the script takes those that have changed out of a new page.
Equal views make equal pages, so that whoever asks again need not be sent the same: what depends on the time
of day alone, such as "3 minutes ago", is added by the script.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from msgspec import Struct

from pixaris_sync.model import RunKey, RunState
from pixaris_sync.monitoring.markup import Content, Html, html, tag
from pixaris_sync.monitoring.sections import (
    SIGNS,
    count_text,
    datasets,
    name,
    problems,
    runs,
    time_of,
    waiting,
)
from pixaris_sync.monitoring.view import View
from pixaris_sync.text import bytes_text, span_text

#: Paths of what belongs to the page.
STYLE, SCRIPT, ICON = "/page.css", "/page.js", "/icon.svg"
#: Without scripts it is loaded again this often.
RELOAD_SECONDS: Final = 10


class Moment(Struct, frozen=True):
    """How the process is, beside what the ledger knows.

    Attributes:
        since: when it began, in seconds since the epoch.
        started: it has looked through the results folder.
        paused: why everything rests, if so.
        resting: which destinations rest and why, if any.
        bytes_per_second: how fast uploads were within the last minute; None: nothing is known.
        limits: what it holds to; empty: nothing is known.
    """

    since: float
    started: bool = True
    paused: str = ""
    resting: tuple[str, ...] = ()
    bytes_per_second: float | None = None
    limits: str = ""


class Headline(NamedTuple):
    """The whole in a few words: how it looks, the words, and what else is to be said."""

    kind: str
    text: str
    more: str


def headline(view: View, moment: Moment) -> Headline:
    """What somebody reads who reads nothing else: the most urgent, and beside it what else there is."""
    runs = view.overview.runs
    problems = Counter(problem.state for problem in view.overview.problems)
    needy = runs[RunState.QUARANTINED] + runs[RunState.INCOMPLETE]
    failing = runs[RunState.FAILING]
    waiting = runs[RunState.PENDING] + failing
    # Problems that are no runs': what is left out, and folders whose disk is not there.
    left_out = max(0, problems[RunState.QUARANTINED] - runs[RunState.QUARANTINED])
    away = max(0, problems[RunState.FAILING] - failing)
    said: list[tuple[str, str]] = []
    if moment.paused:
        said.append(("paused", f"paused: {moment.paused}"))
    if needy:
        said.append(("attention", f"{count_text(needy, 'run needs', 'runs need')} attention"))
    if left_out:
        text = count_text(left_out, "file or folder needs", "files and folders need")
        said.append(("attention", f"{text} attention"))
    if away:
        said.append(("failing", f"{count_text(away, 'folder is', 'folders are')} away"))
    if waiting:
        kind = "failing" if failing else "busy"
        said.append((kind, f"{count_text(waiting, 'run is', 'runs are')} waiting"))
    if not said and not moment.started:
        said.append(("waiting", "looking through the results folder"))
    if not said and not runs[RunState.SYNCED]:
        said += [
            ("waiting", "no run is there yet"),
            ("waiting", "the first is carried as soon as it is stored"),
        ]
    if not said:
        said.append(("synced", "everything is synced"))
    tried = [f"{count_text(failing, 'run')} failed and will be tried again"] if failing else []
    (kind, text), *others = said
    return Headline(kind, text, "; ".join([*(other for _, other in others), *tried, *moment.resting]))


def page(view: View, moment: Moment, thumbnail: Callable[[RunKey, str], str]) -> bytes:
    """The whole page.

    Args:
        view: of the ledger.
        moment: how the process is.
        thumbnail: gives the id of a run's image, as it stands below `sections.THUMBNAILS`.
    """
    said = headline(view, moment)
    document = tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("title", f"{said.text} · pixaris-sync"),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("meta", name="robots", content="noindex"),
            tag("link", rel="icon", type="image/svg+xml", href=ICON),
            tag("link", rel="stylesheet", href=STYLE),
            tag("noscript", tag("meta", http_equiv="refresh", content=str(RELOAD_SECONDS))),
            tag("script", src=SCRIPT, defer=True),
        ),
        tag(
            "body",
            _top(view),
            tag(
                "p",
                "pixaris-sync does not answer: this is how it was ",
                tag("time", id="seen"),
                id="lost",
                role="alert",
                hidden=True,
            ),
            tag(
                "main",
                _state(said),
                _part("numbers", "numbers", _numbers(view, moment), label="In numbers"),
                _part("problems", "", problems(view)),
                _part("waiting", "", waiting(view)),
                _part("datasets", "", datasets(view.datasets)),
                _part("runs", "", runs(view.last_runs, thumbnail)),
            ),
            _part("about", "about", _about(view, moment), kind="footer"),
        ),
        lang="en",
    )
    return f"<!doctype html>\n{document}\n".encode()


def _part(id_: str, class_: str, content: Content, *, kind: str = "section", label: str = "") -> Html:
    """A part that the script exchanges, and does not show while it is empty."""
    body = html(content)
    titled = kind == "section" and not label
    return tag(
        kind,
        body,
        id=id_,
        class_=class_ or None,
        data_part=True,
        aria_labelledby=f"{id_}-title" if titled and body else None,
        aria_label=label or None,
        hidden=not body,
    )


def _top(view: View) -> Html:
    destination = view.destination
    return tag(
        "header",
        tag("p", tag("img", src=ICON, alt="", width="28", height="28"), "pixaris-sync", class_="brand"),
        tag(
            "p",
            tag("span", "from ", tag("code", name(str(view.folder)))),
            tag("span", " to bucket ", tag("code", name(destination.bucket))),
            tag("span", " and dataset ", tag("code", name(destination.bq_dataset))),
            class_="route",
        ),
    )


def _state(said: Headline) -> Html:
    """Readers of the screen hear the word when it changes; so its element stays and what is in it changes."""
    sign = tag("span", SIGNS[said.kind], class_="sign", aria_hidden="true")
    word = tag(
        "div",
        tag("h1", sign, tag("span", said.text)),
        id="word",
        class_=said.kind,
        data_part=True,
        role="status",
        aria_live="polite",
    )
    more = _part("more", "", tag("p", said.more) if said.more else None, kind="div")
    return tag("div", word, more, id="state")


def _numbers(view: View, moment: Moment) -> Content:
    overview = view.overview
    synced = overview.runs[RunState.SYNCED]
    total = sum(overview.runs.values()) - overview.runs[RunState.DOWNLOADED]
    files = overview.files["pending"] + overview.files["uploading"] + overview.files["in_doubt"]
    left, rate = overview.pending_bytes, moment.bytes_per_second
    shown: list[tuple[str, str, Content]] = [
        (
            "runs synced",
            f"{synced:,}",
            f"of {total:,}" if total > synced else "all of them" if total else None,
        ),
        ("files to upload", f"{files:,}", bytes_text(left) if files else "nothing left"),
    ]
    if files and rate:
        shown.append(("speed", f"{bytes_text(rate)}/s", f"about {span_text(max(1.0, left / rate))} left"))
    if overview.oldest_pending_at is not None:
        shown.append(("waiting longest", "", time_of(overview.oldest_pending_at, since=True)))
    if overview.last_synced_at is not None:
        shown.append(("last row synced", "", time_of(overview.last_synced_at)))
    tiles = tag(
        "dl",
        [
            tag("div", tag("dt", label), tag("dd", tag("b", number) if number else None, tag("span", more)))
            for label, number, more in shown
        ],
    )
    if not total:
        return tiles
    bar = tag("progress", f"{synced} of {total}", value=str(synced), max=str(total), aria_label="runs synced")
    return [bar, tiles]


def _about(view: View, moment: Moment) -> Content:
    totals = view.totals
    sent = f"{count_text(totals.files_sent, 'file')}, {bytes_text(totals.bytes_sent)}"
    if totals.files_found:
        sent += f"; {count_text(totals.files_found, 'file')}, {bytes_text(totals.bytes_found)} found there"
    facts: list[tuple[str, Content]] = [
        ("Results folder", name(str(view.folder))),
        ("Google Cloud project", name(view.destination.gcp_project)),
        ("Bucket", name(view.destination.bucket)),
        ("BigQuery dataset", name(view.destination.bq_dataset)),
        ("Ledger", [name(str(view.ledger)), f" ({bytes_text(view.ledger_bytes)})"]),
        ("Sent so far", sent),
        ("Watched", time_of(moment.since, since=True)),
        *([("Limits", moment.limits)] if moment.limits else []),
        ("Version", f"pixaris-sync {view.version}"),
    ]
    return tag("dl", [tag("div", tag("dt", name), tag("dd", text)) for name, text in facts])
