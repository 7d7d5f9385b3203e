"""What the page says, of every state there is."""

import time
from typing import Any

import pytest
from msgspec.structs import replace

from pixaris_sync.model import RunKey, RunState
from pixaris_sync.monitoring.page import Moment, headline, page
from pixaris_sync.monitoring.view import View
from tests.support import views
from tests.support.read_html import Read
from tests.support.views import NOW, dataset, problem, view

_MOMENT = Moment(since=NOW - 3600)


def shown(of: View, moment: Moment = _MOMENT) -> str:
    return page(of, moment, lambda run, path: f"id-of-{run.run}-{path.rpartition('/')[2]}").decode()


@pytest.mark.parametrize(
    ("runs", "changes", "kind", "text"),
    [
        ({}, {}, "waiting", "no run is there yet"),
        ({}, {"started": False}, "waiting", "looking through the results folder"),
        ({"synced": 3}, {}, "synced", "everything is synced"),
        ({"synced": 3, "downloaded": 1}, {}, "synced", "everything is synced"),
        ({"pending": 1}, {}, "busy", "1 run is waiting"),
        ({"synced": 3, "pending": 1200}, {"started": False}, "busy", "1,200 runs are waiting"),
        ({"pending": 1, "failing": 2}, {}, "failing", "3 runs are waiting"),
        ({"quarantined": 1}, {}, "attention", "1 run needs attention"),
        ({"pending": 9, "quarantined": 2, "incomplete": 1}, {}, "attention", "3 runs need attention"),
        ({"quarantined": 2}, {"paused": "no credentials"}, "paused", "paused: no credentials"),
    ],
)
def test_the_whole_in_a_word(runs: dict[str, int], changes: dict[str, Any], kind: str, text: str) -> None:
    """Goal: one word for everything. Method: each state, the worst beside the others."""
    said = headline(view(runs=runs), replace(_MOMENT, **changes))
    assert (said.kind, said.text) == (kind, text)
    assert text in Read(shown(view(runs=runs), replace(_MOMENT, **changes))).text


def test_what_is_left_out_needs_attention_too() -> None:
    """Goal: a folder that is no run is not overlooked. Method: its notice alone."""
    said = headline(view(problems=[problem("a/b", "a name that GCS refuses")]), _MOMENT)
    assert said.text == "1 file or folder needs attention"


def test_a_folder_that_is_away_is_not_everything() -> None:
    """Goal: nothing is synced that nobody can see. Method: its notice, beside synced runs."""
    said = headline(
        view(runs={"synced": 9}, problems=[problem("a/b", "it is away", state="failing")]), _MOMENT
    )
    assert (said.kind, said.text) == ("failing", "1 folder is away")


def test_what_else_waits_is_said_beside_the_word() -> None:
    """Goal: nothing hides behind the worst. Method: waiting, failing and resting beside it."""
    runs = {"pending": 1, "failing": 2, "quarantined": 1}
    said = headline(view(runs=runs), replace(_MOMENT, resting=("the bucket rests: no network",)))
    assert said.more == (
        "3 runs are waiting; 2 runs failed and will be tried again; the bucket rests: no network"
    )


@pytest.mark.parametrize(
    ("one", "word"),
    [
        (dataset("d", synced=1), "synced"),
        (dataset("d", pending=2), "uploading 2 files"),
        (dataset("d", pending=2)._replace(uploading=0), "waiting"),
        (dataset("d", failing=1, synced=1), "failing"),
        (dataset("d", quarantined=1, failing=1), "needs attention"),
        (dataset("d", incomplete=1), "needs attention"),
        (dataset("d", cause="a slash"), "cannot be synced"),
    ],
)
def test_each_dataset_has_a_word(one: Any, word: str) -> None:
    """Goal: no state by colour alone. Method: a dataset in each state."""
    assert f"</span>{word}</span></td>" in shown(view(datasets=[one]))


def test_every_state_of_a_problem_has_a_word() -> None:
    """Goal: the same of problems. Method: one in each state."""
    states = (RunState.QUARANTINED, RunState.INCOMPLETE, RunState.FAILING, "notice")
    text = Read(shown(view(problems=[problem(f"p/d/{state}", "it", state=state) for state in states]))).text
    for word in ("needs attention", "incomplete", "failing", "to know"):
        assert word in text


def test_problems_of_one_cause_are_one_and_say_what_to_do() -> None:
    """Goal: as `status` groups them. Method: an outage of 212 runs, and others."""
    document = shown(views.with_problems())
    assert document.count("<article") == 5
    assert "212 of the same cause" in document
    assert "cannot upload object ...: the service answered 503" in document
    assert "and 192 more; " in document
    assert (
        "<strong>What to do: </strong>correct the line, or delete it; then <code>pixaris-sync retry</code>"
        in (document)
    )


def test_speed_and_time_left_are_told_while_something_is_sent() -> None:
    """Goal: when will it be done. Method: 592 MiB at 2 MiB/s; nothing to send; no speed known."""
    fast = replace(_MOMENT, bytes_per_second=2 * 1024 * 1024)
    assert "about 4 min 56 s left" in shown(views.busy(), fast)
    assert "2.0 MiB/s" in shown(views.busy(), fast)
    assert "left</span>" not in shown(views.synced(), fast).replace("nothing left", "")
    assert "MiB/s" not in shown(views.busy())


def test_equal_views_make_equal_pages() -> None:
    """Goal: who asks again need not be sent the same. Method: the same view, read and made later."""
    assert shown(views.busy()) == shown(replace(views.busy(), read_at=NOW + 60))


def test_hostile_names_are_text_everywhere() -> None:
    """Goal: harmless names. Method: the elements are those of the same page with plain names."""
    plain = {name: f"plain {at}" for at, name in enumerate(views.HOSTILE_NAMES)}
    document = shown(views.hostile())
    found = [name for name, _ in Read(document).tags]
    assert "script" in found
    assert found.count("script") == 1
    assert not [name for name, attrs in Read(document).tags if any(key.startswith("on") for key, _ in attrs)]
    assert document.isascii() or document.replace("\n", "").isprintable()
    assert len(plain) == len(views.HOSTILE_NAMES)


def test_no_address_leads_elsewhere() -> None:
    """Goal: no external asset, and no path from a name. Method: all sources and references."""
    for of in (views.hostile(), views.busy()):
        for name, attrs in Read(page(of, _MOMENT, lambda *_: "0123abcd").decode()).tags:
            for key, value in attrs:
                if key in ("src", "href"):
                    assert value in (
                        "/page.css",
                        "/page.js",
                        "/icon.svg",
                        "/thumbnails/0123abcd",
                    ), (name, value)


def test_a_thousand_datasets_and_problems_stay_readable() -> None:
    """Goal: what matters is seen. Method: a thousand of each: some are shown, and how many are not."""
    document = shown(views.many())
    assert document.count("<article") == 20
    assert "and 980 more; " in document
    # Three tables with a head each.
    assert document.count("<tr") == 3 + 30 + 300 + 300
    assert "470 more datasets are not synced" in document
    assert "500 datasets are synced" in document
    assert "and 170 more" in document
    assert "and 200 more" in document
    assert len(document) < 400_000


@pytest.mark.large
def test_a_large_page_is_made_in_no_time() -> None:
    """Goal: a page within 200 ms. Method: the best of five of a thousand datasets and problems."""
    of = views.many()
    seconds = []
    for _ in range(5):
        begun = time.process_time()
        shown(of)
        seconds.append(time.process_time() - begun)
    assert min(seconds) < 0.15


def test_a_run_shows_what_it_is() -> None:
    """Goal: name, place, files, size, time from line to row, images. Method: a run of seven images."""
    run = views.synced_run("a", "p", "d", images=7)
    document = shown(view(runs={"synced": 1}, last_runs=[run]))
    text = Read(document).text
    assert "8 files, 14.0 MiB1.3 s from line to row" in text
    assert '<img src="/thumbnails/id-of-a-0.png" alt="0.png"' in document
    assert document.count("<img") == 4 + 1
    assert "+3" in text
    assert RunKey("p", "d", "a") == run.run
