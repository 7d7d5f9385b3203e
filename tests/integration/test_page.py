"""``watch --listen`` as a process: what it serves of what happens, and what it says where it cannot."""

import re
import socket
import threading
from pathlib import Path

import pytest

from pixaris_sync.text import printable_line
from tests.support.browser import browsing
from tests.support.command_line import CommandLine, Watching
from tests.support.page_checks import load_pictures
from tests.support.proxy import Proxies, held_until
from tests.support.served_page import Answered, get
from tests.support.stored_runs import append_line, picture, store_run
from tests.support.views import HOSTILE_NAMES
from tests.support.waiting import eventually

_LISTEN = ("--listen", "127.0.0.1:0")
_HOSTILE_FOLDERS = [
    name for name in HOSTILE_NAMES if len(name) < 200 and not {"/", "\0", "\udc80"} & set(name)
]


def port_of(watch: Watching) -> int:
    """The port that the log names."""

    def named() -> str:
        found = re.findall(r"serving status and metrics at http://127\.0\.0\.1:(\d+)/", watch.log())
        return found[-1] if found else ""

    return int(watch.until(named, "the log says where the page is"))


def page_says(watch: Watching, port: int, *words: str) -> Answered:
    """The page, once it holds all of these."""

    def holds() -> Answered | None:
        answer = get(port)
        return answer if all(word in answer.text for word in words) else None

    found = watch.until(holds, f"the page says {words}")
    assert found is not None
    return found


def test_watch_shows_what_happens(proxied: CommandLine, proxies: Proxies, tmp_path: Path) -> None:
    """Goal: at any moment: what is synced, what waits and why, who must do what.

    Method: the page of a real process: with nothing there; while an upload is held; once it is synced, with a
    picture; with a damaged line, whose cause and hint are those of `status`; health all the while.
    """
    release = threading.Event()
    proxies.storage.rule = held_until(release)
    with Watching(proxied, tmp_path, *_LISTEN) as watch:
        watch.wait_until_ready()
        port = port_of(watch)
        page_says(watch, port, "no run is there yet")
        watch.until(lambda: get(port, "/readyz").status == 200, "it is ready")
        assert get(port, "/healthz").status == 200

        run = store_run(proxied.folder, "shown", images=[(picture(1, (64, 48)), "a.png")])
        page_says(watch, port, "1 run is waiting", "being uploaded", "uploading 1 file")
        release.set()
        shown = page_says(watch, port, "everything is synced", f"<bdi>{run.name}</bdi>")
        assert "1 file," in shown.text
        assert get(port, If_None_Match=shown.headers["ETag"]).status == 304
        metrics = get(port, "/metrics").text
        assert re.search(r'^pixaris_sync_runs\{.*state="synced".*\} 1\.0$', metrics, re.MULTILINE)
        uploads = r'^pixaris_sync_requests_total\{.*kind="upload",outcome="ok",.*\} 1\.0$'
        assert re.search(uploads, metrics, re.MULTILINE)
        [image] = re.findall('src="(/thumbnails/[0-9a-f]+)"', shown.text)
        small = get(port, image)
        assert (small.headers["Content-Type"], small.body[:3]) == ("image/jpeg", b"\xff\xd8\xff")

        append_line(run.tracking, "this is no JSON\n")
        page_says(watch, port, "1 run needs attention", f"{run.tracking.name}:2")
        [problem] = proxied.status()["problems"]
        words = re.sub("<[^>]*>", "", get(port).text).replace("&#x27;", "'")
        assert problem["cause"] in words
        assert problem["hint"].replace("`", "") in words

        for secret in ("upload_id", "Bearer", "STORAGE_EMULATOR_HOST", "/b/"):
            assert secret not in get(port).text
        assert watch.end() == 0
    with pytest.raises(ConnectionRefusedError):
        get(port)
    assert "Traceback" not in watch.log()


def test_an_address_that_cannot_be_had_ends_watch_before_any_work(command_line: CommandLine) -> None:
    """Goal: nobody waits for a page that is nowhere. Method: a port in use; nothing was carried."""
    store_run(command_line.folder)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        outcome = command_line.run("watch", "--listen", f"127.0.0.1:{taken.getsockname()[1]}")
    assert outcome.code == 4, str(outcome)
    assert "another process listens there" in outcome.stderr
    assert "port 0 takes a free one" in outcome.stderr
    assert command_line.status()["runs"]["synced"] == 0


def test_watch_without_an_address_loads_and_opens_nothing(command_line: CommandLine, tmp_path: Path) -> None:
    """Goal: who wants no page pays nothing. Method: what is imported, and which sockets listen."""
    told = command_line.but(PYTHONPROFILEIMPORTTIME="1")
    with Watching(told, tmp_path) as watch:
        watch.wait_until_ready()
        imported = set(re.findall(r"\| +([\w.]+)$", watch.log(), re.MULTILINE))
        listening = Path(f"/proc/{watch.process.pid}/net/tcp").read_text(encoding="ascii")
        inodes = {line.split()[9] for line in listening.splitlines()[1:] if line.split()[3] == "0A"}
        handles = Path(f"/proc/{watch.process.pid}/fd").iterdir()
        own = {str(handle.readlink()) for handle in handles if handle.is_symlink()}
        assert watch.end() == 0
    assert "pixaris_sync.pipeline.engine" in imported
    assert {
        name for name in imported if name.startswith(("aiohttp.web_server", "pixaris_sync.monitoring"))
    } <= {
        # `status` groups problems so.
        "pixaris_sync.monitoring",
        "pixaris_sync.monitoring.grouping",
    }
    assert not {f"socket:[{inode}]" for inode in inodes} & own


@pytest.mark.large
def test_people_see_what_happens(proxied: CommandLine, proxies: Proxies, tmp_path: Path) -> None:
    """Goal: the same in a browser that stays open. Method: empty, busy, synced, trouble, hostile names.

    Nothing is loaded again: the page follows by itself. Each state is kept as a picture.
    """
    release = threading.Event()
    proxies.storage.rule = held_until(release)
    with Watching(proxied, tmp_path, *_LISTEN) as watch, browsing(tmp_path / "browser") as browser:
        watch.wait_until_ready()
        browser.open(f"http://127.0.0.1:{port_of(watch)}/")
        browser.ask("window.stays = true")

        def says(*words: str) -> None:
            eventually(lambda: all(word in browser.text() for word in words), f"the page says {words}")

        says("no run is there yet")
        browser.screenshot("watch-empty")
        store_run(proxied.folder, "one", images=[(picture(at, (64, 48)), f"{at}.png") for at in range(3)])
        says("1 run is waiting", "uploading")
        browser.screenshot("watch-busy")
        release.set()
        says("everything is synced", "from line to row")
        load_pictures(browser)
        widths = "return [...document.querySelectorAll('.pictures img')].map((one) => one.naturalWidth)"
        assert browser.ask(widths) == [64, 64, 64]
        browser.screenshot("watch-synced")
        for name in _HOSTILE_FOLDERS:
            (proxied.folder / "hostile" / name).mkdir(parents=True)
            append_line(proxied.folder / "hostile" / name / "experiment_tracking.jsonl", "no JSON\n")
        says("need attention", *map(printable_line, _HOSTILE_FOLDERS))
        browser.screenshot("watch-hostile")
        assert browser.ask("return window.stays")
        assert browser.complaints() == []
        assert watch.end() == 0
        eventually(lambda: browser.find("#lost").is_displayed(), "it says that nobody answers any more")
