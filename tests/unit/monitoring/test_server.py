"""What is answered to whom, within which bounds, and at which cost while nobody asks."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from pixaris_sync.errors import ConfigurationError, LedgerError, SyncError
from pixaris_sync.monitoring import server
from pixaris_sync.monitoring.guards import HEADERS
from pixaris_sync.monitoring.server import listening
from tests.support import views
from tests.support.served_page import ServedPage, served_page

DOCKERFILE = Path(__file__).parents[3] / "deploy" / "Dockerfile"
ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 - what is tested


@pytest.fixture(autouse=True)
def never_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_FRESH_SECONDS", -1.0)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedPage]:
    with served_page(views.busy(), tmp_path, metrics=lambda: b"up 1\n") as served:
        yield served


def test_each_path_has_its_answer(served: ServedPage) -> None:
    """Goal: page, files, metrics, health, and nothing else. Method: status and kind of each."""
    kinds = {
        "/": (200, "text/html; charset=utf-8"),
        "/page.css": (200, "text/css; charset=utf-8"),
        "/page.js": (200, "text/javascript; charset=utf-8"),
        "/icon.svg": (200, "image/svg+xml; charset=utf-8"),
        "/metrics": (200, "text/plain; version=0.0.4; charset=utf-8"),
        "/healthz": (200, "application/json; charset=utf-8"),
        "/readyz": (200, "application/json; charset=utf-8"),
        "/thumbnails/": (404, "text/plain; charset=utf-8"),
        "/thumbnails/../page.css": (404, "text/plain; charset=utf-8"),
        "/thumbnails/%2e%2e%2f%2e%2e%2fetc/passwd": (404, "text/plain; charset=utf-8"),
        "/favicon.ico": (404, "text/plain; charset=utf-8"),
        "//": (404, "text/plain; charset=utf-8"),
        "/no-picture.svg": (404, "text/plain; charset=utf-8"),
    }
    answers = {path: served.get(path) for path in kinds}
    assert {path: (one.status, one.headers["Content-Type"]) for path, one in answers.items()} == kinds
    assert answers["/metrics"].body == b"up 1\n"


def test_every_answer_says_what_browsers_may_do_with_it(served: ServedPage) -> None:
    """Goal: no answer without its guards. Method: headers of pages, files and refusals."""
    answers = [
        served.get(),
        served.get("/page.js"),
        served.get("/nothing"),
        served.get(Host="evil.example"),
        served.get(Origin="http://evil.example"),
        served.get(method="POST"),
        served.get("/" + "x" * 20_000),
        served.get(If_None_Match=served.get().headers["ETag"]),
    ]
    assert [one.status for one in answers] == [200, 200, 404, 421, 403, 405, 400, 304]
    for one in answers:
        kept = {**HEADERS, "Cache-Control": one.headers["Cache-Control"]}
        assert {name: one.headers[name] for name in HEADERS} == kept
    assert answers[0].headers["Cache-Control"] == "no-store"
    assert "Python" not in str(answers[0].headers)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"])
def test_it_only_shows(served: ServedPage, method: str) -> None:
    """Goal: nothing can be changed. Method: every other method, on several paths."""
    for path in ("/", "/metrics", "/healthz", "/page.css"):
        refused = served.get(path, method)
        assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD")


def test_head_says_the_same_without_a_body(served: ServedPage) -> None:
    """Goal: HEAD as RFC 9110 has it. Method: length and no body."""
    whole, head = served.get(), served.get(method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(whole.body))
    assert head.headers["ETag"] == whole.headers["ETag"]


def test_who_has_the_page_is_not_sent_it_again(served: ServedPage) -> None:
    """Goal: a page at rest costs nothing. Method: ask with its tag, before and after a change."""
    tag = served.get().headers["ETag"]
    assert served.get(If_None_Match=tag).status == 304
    served.view = views.synced()
    changed = served.get(If_None_Match=tag)
    assert changed.status == 200
    assert "everything is synced" in changed.text


def test_many_who_look_cost_one_reading(served: ServedPage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: bounded cost. Method: twenty requests within what counts as fresh."""
    monkeypatch.setattr(server, "_FRESH_SECONDS", 60.0)
    for _ in range(20):
        assert served.get().status == 200
    assert served.readings == 1


def test_health_is_that_of_loop_and_ledger(served: ServedPage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: 503 where somebody must look. Method: well, a full disk, and a ledger that does not answer."""
    assert served.get("/healthz").body == b'{"status": "ok"}'
    served.trouble = LedgerError("write ledger", "l", "the disk is full")
    full = served.get("/healthz")
    assert full.status == 503
    assert "the disk is full" in full.text
    served.trouble = None
    monkeypatch.setattr(server, "_HEALTH_SECONDS", 0.05)
    served.stuck = True
    stuck = served.get("/healthz")
    assert stuck.status == 503
    assert "has not answered" in stuck.text


def test_ready_is_who_has_looked_and_seen_the_destination(tmp_path: Path) -> None:
    """Goal: nobody waits for what has not begun. Method: not started; not seen; both."""
    with served_page(views.empty(), tmp_path, started=False) as served:
        assert served.get("/readyz").status == 503
        assert served.get("/healthz").status == 200
        assert "looking through the results folder" in served.get().text
    with served_page(views.empty(), tmp_path) as served:
        served.confirmed = False
        assert served.get("/readyz").status == 503
        served.confirmed = True
        assert served.get("/readyz").status == 200


def test_what_pauses_or_rests_is_told(served: ServedPage) -> None:
    """Goal: the word comes from the process, too. Method: one rests; credentials are gone."""
    served.resting = {"the bucket": SyncError("reach", "bucket b", "no network")}
    assert "the bucket rests: cannot reach bucket b: no network" in served.get().text
    served.paused = SyncError("get", "a token", "they expired")
    assert "paused: cannot get a token: they expired" in served.get().text


def test_the_speed_is_that_of_what_was_sent_lately(
    served: ServedPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: how fast, and how long still. Method: 30 MiB in 15 s, then a long pause."""
    now = 1000.0
    monkeypatch.setattr(server, "monotonic", lambda: now)
    sent = served.view.totals.bytes_sent
    assert "/s</b>" not in served.get().text
    now += 15.0
    totals = served.view.totals._replace(bytes_sent=sent + 30 * views.MEBIBYTE)
    served.view = views.busy(totals=totals)
    assert "<b>2.0 MiB/s</b><span>about 4 min 56 s left</span>" in served.get().text
    now += 200.0
    assert "/s</b>" not in served.get().text


def test_a_ledger_in_trouble_is_no_empty_page(
    served: ServedPage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: errors are told, those of ours in the log. Method: a reading that fails in either way."""

    def fail(error: Exception) -> None:
        def read(_: ServedPage) -> None:
            raise error

        monkeypatch.setattr(ServedPage, "read", read)

    fail(LedgerError("read ledger", "l", "it is damaged"))
    answer = served.get()
    assert (answer.status, answer.text) == (503, "cannot read ledger l: it is damaged\n")
    assert caplog.text == ""
    fail(KeyError("oops"))
    answer = served.get()
    assert answer.status == 500
    assert "oops" not in answer.text
    assert "oops" in caplog.text


def test_pictures_come_by_the_ids_of_the_page(tmp_path: Path) -> None:
    """Goal: pictures, a sign where there is none, none but those. Method: as a browser asks."""
    run = views.synced_run("run", "p", "d", images=2)
    image = tmp_path / "p" / "d" / "run" / run.first_images[0]
    image.parent.mkdir(parents=True)
    Image.new("RGB", (400, 200)).save(image)
    with served_page(views.view(last_runs=[run]), tmp_path) as served:
        sound, missing = re.findall('src="(/thumbnails/[0-9a-f]+)"', served.get().text)
        found = served.get(sound)
        assert (found.status, found.headers["Content-Type"]) == (200, "image/jpeg")
        assert found.headers["Cache-Control"] == "private, no-cache"
        assert served.get(sound, If_None_Match=found.headers["ETag"]).status == 304
        placeholder = served.get(missing)
        assert (placeholder.status, placeholder.headers["Content-Type"]) == (200, "image/svg+xml")
        assert placeholder.headers["Cache-Control"] == "no-store"
        assert served.get(f"{sound}0").status == 404


def test_too_many_connections_and_slow_ones_are_closed(
    served: ServedPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: nobody holds it up. Method: fill it with connections that say nothing."""
    monkeypatch.setattr(server, "_CONNECTIONS_MAX", 2)
    monkeypatch.setattr(server, "_REQUEST_SECONDS", 0.5)
    begun = time.monotonic()
    silent = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(2)]
    silent[0].sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as third:
        assert third.recv(1) == b""
    for one in silent:
        one.settimeout(10)
        assert one.recv(1) == b""
        one.close()
    assert time.monotonic() - begun > 0.4
    assert served.get().status == 200


def test_what_nobody_can_read_is_refused_in_silence(
    served: ServedPage, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: whoever knocks fills no log. Method: no HTTP, a header of 20 KB, a hundred of them, no host."""
    for sent in (
        b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X%d: y\r\n" % at for at in range(100)) + b"\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
            connection.sendall(sent)
            answer = connection.recv(65536)
        assert re.match(rb"HTTP/1\.[01] 4(00|21) ", answer), (sent[:40], answer[:80])
    assert caplog.text == ""
    assert served.readings == 0


def test_nothing_is_read_while_nobody_looks(served: ServedPage) -> None:
    """Goal: it costs nothing. Method: health and files need no reading, the page one."""
    for path in ("/healthz", "/readyz", "/page.css", "/nothing"):
        served.get(path)
    assert served.readings == 0
    served.get()
    assert served.readings == 1


def test_the_reader_is_closed_at_the_end(tmp_path: Path) -> None:
    """Goal: nothing stays open. Method: after the context."""
    with served_page(views.empty(), tmp_path) as served:
        served.get()
    assert served.readings == -1


@pytest.mark.parametrize(
    ("host", "port", "cause"),
    [
        ("192.0.2.1", 0, "no such address"),
        ("no-such-host.invalid", 0, "no address of this name is known"),
    ],
)
def test_an_address_that_is_none_is_refused(host: str, port: int, cause: str) -> None:
    """Goal: a wrong setting ends it before work. Method: another machine's address, and no name."""
    with pytest.raises(ConfigurationError, match=cause) as refused, listening((host, port)):
        pass
    assert "127.0.0.1:9465" in refused.value.hint


def test_a_port_in_use_is_refused() -> None:
    """Goal: the same of a port. Method: listen twice."""
    with listening(("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with (
            pytest.raises(ConfigurationError, match="another process listens there"),
            listening(("127.0.0.1", port)),
        ):
            pass
    with listening(("127.0.0.1", port)):
        pass


def test_other_machines_are_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: nobody opens it unawares. Method: all addresses; the same at loopback says nothing."""
    with served_page(views.empty(), tmp_path, host=ALL_ADDRESSES) as served:
        assert served.get(Host=f"192.0.2.1:{served.port}").status == 200
    assert caplog.text.count("everybody who reaches") == 1
    caplog.clear()
    with served_page(views.empty(), tmp_path):
        pass
    assert "everybody who reaches" not in caplog.text


def test_the_image_asks_for_health_where_there_is_any(tmp_path: Path) -> None:
    """Goal: the Dockerfile's health check works. Method: run it: served, stuck, and without an address."""
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", "")
    [code] = re.findall(r'^HEALTHCHECK .* CMD \["python", "-c", "(.*)"\]$', text, re.MULTILINE)

    def check(listen: str) -> int:
        environment = {**os.environ, "PIXARIS_SYNC_LISTEN": listen}
        program = [sys.executable, "-c", code.replace("\\n", "\n")]
        return subprocess.run(program, env=environment, stderr=subprocess.DEVNULL, check=False).returncode

    with served_page(views.empty(), tmp_path, host=ALL_ADDRESSES) as served:
        assert check(f"{ALL_ADDRESSES}:{served.port}") == 0
        served.trouble = LedgerError("write ledger", "l", "the disk is full")
        assert check(f"{ALL_ADDRESSES}:{served.port}") != 0
    assert check("") == 0
