"""``pixaris-sync ui``: the real UI of Pixaris over what was carried, seen with a real browser."""

import json
import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.cloud.storage import Bucket

from pixaris_sync.ui.feedback_table import COLUMNS
from tests.integration.cloud import TIMEOUT_SECONDS, Cloud
from tests.integration.warehouse import Warehouse
from tests.support.browser import Browser, browsing
from tests.support.command_line import CommandLine
from tests.support.pixaris_ui import ShownUi, Visitor
from tests.support.proxy import Loss, Proxies, refusal
from tests.support.stored_runs import DATASET, PROJECT, StoredRun, picture, store_run
from tests.support.waiting import eventually

FEEDBACK = "feedback_tracking"
#: Each has a width of its own, so that it is seen which is shown.
WIDTHS = (240, 360, 480)
OTHER_PROJECT = "hats and shoes"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """A browser that is as wide as a screen."""
    with browsing(tmp_path / "browser") as started:
        yield started


def pictures(widths: tuple[int, ...]) -> list[tuple[Any, str]]:
    return [(picture(at).resize((width, 160)), f"view_{at}.png") for at, width in enumerate(widths)]


def create_iteration(cloud: Cloud, name: str, folder: Path) -> None:
    """Let Pixaris make a feedback iteration of three pictures, dated the first of January 2026."""
    from pixaris.feedback_handlers.gcp import GCPFeedbackHandler  # noqa: PLC0415 - takes a while

    (folder / "chosen").mkdir(parents=True)
    for image, file in pictures(WIDTHS):
        image.save(folder / "chosen" / file)
    GCPFeedbackHandler(
        gcp_project_id=cloud.project,
        gcp_bq_feedback_table=cloud.table(FEEDBACK),
        gcp_pixaris_bucket_name=cloud.bucket,
        local_feedback_directory=str(folder / "own"),
    ).create_feedback_iteration(str(folder / "chosen"), PROJECT, name, "260101", DATASET)


def choose_first_run(visitor: Visitor, first: StoredRun, second: StoredRun) -> None:
    """Assert what is offered on the way to the images of a run, and that they are seen."""
    assert visitor.is_offered("Project", ["", OTHER_PROJECT, PROJECT])
    visitor.choose("Project", OTHER_PROJECT)
    assert visitor.is_offered("Dataset", ["hats"])
    visitor.choose("Project", PROJECT)
    assert visitor.is_offered("Dataset", [DATASET])
    visitor.choose("Dataset", DATASET)
    assert visitor.is_offered("Experiments", sorted([first.name, second.name]))
    visitor.choose("Experiments", first.name)
    assert visitor.gallery(first.name) == list(WIDTHS)


def give_feedback(visitor: Visitor, warehouse: Warehouse, table: str) -> None:
    """Assert that feedback arrives in the table, and is seen when the page is loaded anew."""
    assert visitor.show_iteration(PROJECT, "260101_favourites") == list(WIDTHS)
    visitor.rate(1, "Dislike", "too dark")
    assert visitor.toast("Feedback sent") == "Feedback sent successfully"
    rows = warehouse.rows(table, "comment, likes, dislikes, image_name, misc")
    assert sorted(rows) == [
        ("too dark", 0, 1, "view_1.png", ""),
        *(("upload", 0, 0, f"view_{at}.png", "") for at in range(3)),
    ]
    visitor.open()
    visitor.show_iteration(PROJECT, "260101_favourites")
    assert visitor.previous_feedback() == [
        *("Likes: 0 - Comments: []", "Dislikes: 0 - Comments: []"),
        *("Likes: 0 - Comments: []", "Dislikes: 1 - Comments: ['too dark']"),
        *("Likes: 0 - Comments: []", "Dislikes: 0 - Comments: []"),
    ]


@pytest.mark.large
@pytest.mark.timeout(300)
def test_the_ui_shows_what_was_synced_and_takes_feedback(
    proxied: CommandLine,
    proxies: Proxies,
    cloud: Cloud,
    warehouse: Warehouse,
    bucket: Bucket,
    browser: Browser,
    tmp_path: Path,
) -> None:
    """Goal: people see their runs, and are heard. Method: sync, one session in a browser; then break things.

    What breaks: an object is removed before its run is shown, then the table of feedback is dropped, and at
    last the bucket answers no longer, while somebody waits for images.
    """
    folder = proxied.folder
    first = store_run(folder, "first", images=pictures(WIDTHS), metrics={"similarity": 0.25})
    second = store_run(folder, "second", images=pictures(WIDTHS), metrics={"similarity": 0.75})
    third = store_run(folder, "third", project=OTHER_PROJECT, dataset="hats")
    proxied.sync()
    before = sorted(folder.rglob("*"))

    flagged = proxied.but(STORAGE_EMULATOR_HOST=None, BIGQUERY_EMULATOR_HOST=None)
    # Google's clients take addresses with a scheme, ours also without.
    flags = ["--storage-emulator-host", proxies.storage.url.removeprefix("http://")]
    flags += ["--bigquery-emulator-host", proxies.bigquery.url.removeprefix("http://")]
    with ShownUi(flagged, tmp_path / "ui", *flags) as ui:
        create_iteration(cloud, "favourites", tmp_path / "feedback")
        visitor = Visitor(browser, ui.address)

        choose_first_run(visitor, first, second)
        browser.screenshot("ui-gallery")

        bucket.blob(f"results/{second.key}/generated_images/view_1.png").delete(timeout=TIMEOUT_SECONDS)
        visitor.choose("Experiments", second.name)
        assert visitor.gallery(second.name) == [WIDTHS[0], WIDTHS[2]]

        visitor.turn_to("Table")
        both = [(first.name, "0.25"), (second.name, "0.75")]
        eventually(lambda: sorted(visitor.table("experiment_run_name", "similarity")) == both, "both show")
        browser.screenshot("ui-table")

        give_feedback(visitor, warehouse, cloud.table(FEEDBACK))
        browser.screenshot("ui-feedback")

        warehouse.client.delete_table(cloud.table(FEEDBACK))
        visitor.rate(0, "Like", "")
        assert "Not found: Table" in visitor.toast("Not found")

        proxies.storage.rule = lambda _: Loss.SWALLOWED_REQUEST
        visitor.open()
        visitor.choose("Project", OTHER_PROJECT)
        visitor.choose("Dataset", "hats")
        listings = len(proxies.storage.seen)
        visitor.choose("Experiments", third.name)
        eventually(lambda: len(proxies.storage.seen) > listings, "images are asked for")
        ended = ui.end()

    assert (ended.code, ended.stdout) == (0, ""), str(ended)
    assert "Traceback" not in ended.stderr
    assert list(ui.temporary.iterdir()) == []
    assert sorted(folder.rglob("*")) == before


def fetch(address: str, *, body: Any = None, **headers: str) -> bytes:
    request = urllib.request.Request(  # noqa: S310 - our own address
        address,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json", **headers},
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - the same
        return bytes(answer.read())


@pytest.mark.large
@pytest.mark.timeout(300)
def test_the_ui_on_a_sandbox_needs_nothing_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: one command shows runs. Method: begun with nothing set, asked as a browser and by strangers."""
    monkeypatch.chdir(tmp_path)
    secret = tmp_path / "secret.txt"
    secret.write_text("nobody may read this")
    names = ("STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST", "GOOGLE_APPLICATION_CREDENTIALS")
    alone = CommandLine(tmp_path / "none", tmp_path / "state", {}).but(
        **dict.fromkeys(names), PIXARIS_SYNC_STATE_DIR=None, PIXARIS_SYNC_LOCAL_RESULTS_FOLDER=None
    )

    with ShownUi(alone, tmp_path / "ui", "--sandbox") as ui:
        config = json.loads(fetch(f"{ui.address}config"))
        lists = [one["props"] for one in config["components"] if one["type"] == "dropdown"]
        offered = [props["choices"] for props in lists if props.get("label") == "Project"]
        assert offered == [[["", ""], ["demo", "demo"]]] * 2
        assert config["analytics_enabled"] is False
        assert not config.get("is_space")

        for path in (secret, Path("/etc/hostname")):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                fetch(f"{ui.address}gradio_api/file={path}")
        # Whoever claims to have uploaded a file of this machine does not get it.
        claimed = {"path": str(secret), "meta": {"_type": "gradio.FileData"}}
        number = next(
            one["id"] for one in config["dependencies"] if one["api_name"] == "update_dataset_choices"
        )
        join = {"data": [claimed, None], "fn_index": number, "session_hash": "stranger"}
        fetch(f"{ui.address}gradio_api/queue/join", body=join)
        told = fetch(f"{ui.address}gradio_api/queue/data?session_hash=stranger")
        assert b'"success": false' in told or b'"success":false' in told
        assert not list(ui.temporary.rglob("secret*"))
        with pytest.raises(urllib.error.HTTPError, match="400"):
            fetch(ui.address, Host="pixaris.example:8080")
        port = int(ui.address.rstrip("/").rpartition(":")[2])
        assert listeners(port) == {"127.0.0.1"}

        ended = ui.end(signal.SIGTERM)

    assert (ended.code, ended.stdout) == (0, ""), str(ended)
    assert list(ui.temporary.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"secret.txt", "ui"}


def listeners(port: int) -> set[str]:
    """The addresses of this machine that a port is listened on, IPv4 (proc(5): little-endian hexadecimal)."""
    lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    places = [line.split()[1] for line in lines if line.split()[3] == "0A"]
    return {
        socket.inet_ntoa(bytes.fromhex(place[:8])[::-1]) for place in places if int(place[9:], 16) == port
    }


def test_without_the_extra_the_ui_says_what_to_install(command_line: CommandLine, tmp_path: Path) -> None:
    """Goal: exit 4 and a remedy, before anything starts. Method: the real command, where both seem absent."""
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules.update(pixaris=None, gradio=None)")

    told = command_line.but(PYTHONPATH=str(tmp_path)).run("ui", "--sandbox")

    assert told.code == 4, str(told)
    assert "cannot start the Pixaris UI: not installed: gradio, pixaris" in told.stderr
    assert "hint: run pip install '.[ui]' in a checkout of the repository" in told.stderr


def test_a_sandbox_and_a_destination_of_ones_own_do_not_go_together(command_line: CommandLine) -> None:
    """Goal: nobody gives feedback to the wrong table. Method: both on the command line."""
    told = command_line.run("ui", "--sandbox", "--gcp-project-id", "mine")

    assert told.code == 2
    assert "a sandbox is a destination of its own" in told.stderr


def test_a_table_that_may_not_be_made_is_told_with_a_statement_that_works(
    proxied: CommandLine, proxies: Proxies, warehouse: Warehouse, cloud: Cloud
) -> None:
    """Goal: somebody else can help. Method: deny changes; run what the hint says; the same a column short."""
    denied = refusal(403, "accessDenied", "Access Denied: Dataset p:d: permission denied")
    proxies.bigquery.rule = lambda request: (
        denied if request.matches("^POST .*/(tables|jobs|queries)$") else None
    )
    statements = []
    for _ in range(2):
        told = proxied.run("ui")
        assert told.code == 4, str(told)
        assert "Access Denied" in told.stderr
        found = re.search(r"hint: .* run in BigQuery: (.*)", told.stderr)
        assert found, str(told)
        warehouse.ask(found[1])
        assert warehouse.columns(cloud.table(FEEDBACK)) == {
            column.name: column.type.value for column in COLUMNS
        }
        statements.append(found[1].split()[0])
        # As Pixaris makes it.
        warehouse.ask(f"ALTER TABLE `{cloud.table(FEEDBACK)}` DROP COLUMN misc")
    assert statements == ["CREATE", "ALTER"]


def test_a_port_that_is_taken_is_told(command_line: CommandLine) -> None:
    """Goal: exit 4 and a remedy. Method: listen there first."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = command_line.run("ui", "--port", str(port))

    assert told.code == 4, str(told)
    assert f"cannot open address 127.0.0.1:{port}: Address already in use" in told.stderr
    assert "hint: choose another --port, or 0 for a free one" in told.stderr
