"""How the connections to BigQuery end, on real TCP."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import requests
from requests.adapters import HTTPAdapter

from pixaris_sync.bigquery.connection import ResettingSession
from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.login.login import Login
from tests.support.scripted_bigquery import Answer, ScriptedBigQuery, error, scripted_bigquery
from tests.support.secrets import ask_no_other_host, authorized_user

TIMEOUT_SECONDS = 0.3
#: Less than a socket takes from its sender at once, and far more than `Receiver` lets in.
ROWS = b"row" * 50_000 + b"THE LAST ROW"
#: Posts what it reads, and says so when the kernel has all of it.
SENDER = """
import http.client, sys
import requests
from pixaris_sync.bigquery.connection import ResettingSession

def told(connection, wait=http.client.HTTPConnection.getresponse):
    print("sent", flush=True)
    return wait(connection)

http.client.HTTPConnection.getresponse = told
session = ResettingSession(None, 30) if sys.argv[1] == "ours" else requests.Session()
session.post(sys.argv[2], data=sys.stdin.buffer.read(), timeout=30)
"""


class Receiver:
    """A server behind a network that holds packets back: some kilobytes come in, the rest when it reads."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self._listener.settimeout(30)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._connection: socket.socket | None = None

    def accept(self, *, tunnel: bool = False) -> None:
        """Take a connection; as a proxy, agree to a tunnel."""
        self._connection, _ = self._listener.accept()
        self._connection.settimeout(30)
        if tunnel:
            assert self._connection.recv(65536).startswith(b"CONNECT ")
            self._connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")

    def let_go(self) -> tuple[bytes, bool]:
        """What arrives until the connection ends, and whether it ends with a reset."""
        assert self._connection is not None
        received = bytearray()
        try:
            while piece := self._connection.recv(65536):
                received += piece
        except ConnectionResetError:
            return bytes(received), True
        return bytes(received), False

    def close(self) -> None:
        self._listener.close()
        if self._connection is not None:
            self._connection.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def resetting() -> ResettingSession:
    return ResettingSession(None, TIMEOUT_SECONDS)


@pytest.fixture
def login(server: ScriptedBigQuery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Login:
    """A user's login, whose tokens the scripted server gives."""
    file = tmp_path / "credentials.json"
    file.write_text(json.dumps(authorized_user(f"{server.url}/token")))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    ask_no_other_host(partial(monkeypatch.setattr, raising=False))
    return Login(timeout_seconds=5)


def mounted_by_others() -> ResettingSession:
    session = resetting()
    session.mount("https://", HTTPAdapter())
    return session


def send_until_killed(kind: str, address: str) -> Callable[[], None]:
    process = subprocess.Popen(
        [sys.executable, "-c", SENDER, kind, f"http://{address}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(ROWS)
    process.stdin.close()

    def kill() -> None:
        assert process.stdout is not None
        with process:
            assert process.stdout.readline() == b"sent\n"
            process.kill()

    return kill


def send_until_late(kind: str, address: str) -> Callable[[], None]:
    session = resetting() if kind == "ours" else requests.Session()

    def post() -> None:
        with session, suppress(requests.Timeout):
            session.post(f"http://{address}", data=ROWS, timeout=TIMEOUT_SECONDS)

    thread = threading.Thread(target=post)
    thread.start()
    return thread.join


@pytest.mark.parametrize("send", [send_until_killed, send_until_late])
@pytest.mark.parametrize("kind", ["ours", "plain"])
def test_what_was_held_back_never_arrives(
    receiver: Receiver, send: Callable[[str, str], Callable[[], None]], kind: str
) -> None:
    """Goal: no rows arrive that were given up.

    Method: packets are let in when a sender was killed or had its time; a plain session shows what can come.
    """
    end = send(kind, receiver.address)
    receiver.accept()
    end()
    received, reset = receiver.let_go()
    assert reset == (kind == "ours")
    assert (b"THE LAST ROW" in received) == (kind == "plain")


@pytest.mark.parametrize(
    ("scheme", "tunnel", "make"),
    [
        ("http", False, resetting),
        ("https", False, resetting),
        ("https", True, resetting),
        ("https", True, mounted_by_others),
    ],
)
def test_a_request_that_ran_out_of_time_resets_its_connection(
    receiver: Receiver,
    scheme: str,
    tunnel: bool,  # noqa: FBT001 - a parameter of the test
    make: Callable[[], ResettingSession],
) -> None:
    """Goal: nothing is left half open, with TLS, in a tunnel, or with an adapter that others mount.

    Method: a server that says nothing sees the reset while the session is still open.
    """
    proxies = {"https": f"http://{receiver.address}"} if tunnel else {}
    ended: list[bool] = []

    def serve() -> None:
        receiver.accept(tunnel=tunnel)
        ended.append(receiver.let_go()[1])

    server = threading.Thread(target=serve)
    server.start()
    host = "bigquery.test" if tunnel else receiver.address
    with make() as session:
        with pytest.raises(requests.RequestException):
            session.get(f"{scheme}://{host}/", timeout=TIMEOUT_SECONDS, proxies=proxies)
        server.join()
    assert ended == [True]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_neither_rows_nor_logins_are_redirected(server: ScriptedBigQuery, login: Login, status: int) -> None:
    """Goal: nothing is shown to whom an answer names.

    Method: the service sends us to another host, then the one that gives tokens does.
    """
    with scripted_bigquery() as elsewhere:
        away = Answer(status, {}, {"Location": f"{elsewhere.url}/anything"})
        with resetting() as session:
            server.script(away)
            assert session.post(f"{server.url}/rows", data=b"rows", timeout=5).status_code == status
            # As the address of an upload's session may be.
            with pytest.raises(requests.TooManyRedirects):
                session.put(f"{elsewhere.url}/session", data=b"rows", timeout=5)
        server.token = away
        with ResettingSession(login, 5) as session:
            assert failure_of_get(session, server.url) is Failure.TRANSIENT
        assert elsewhere.asked == []


def test_credentials_that_were_refused_are_loaded_anew(server: ScriptedBigQuery, login: Login) -> None:
    """Goal: who logs in again is done, and not before.

    Method: credentials that the token service refuses, none, some whose tokens are refused, and good ones.
    """
    file = Path(os.environ["GOOGLE_APPLICATION_CREDENTIALS"])
    good, content = server.token, file.read_text()
    with ResettingSession(login, 5) as session:
        server.token = Answer(400, {"error": "invalid_grant"})
        assert failure_of_get(session, server.url) is Failure.CREDENTIALS
        server.token = good
        file.unlink()
        assert failure_of_get(session, server.url) is Failure.CREDENTIALS
        file.write_text(content)
        # It asks with a fresh token once by itself, and again with each request.
        server.script(*[error(401, "authError")] * 2, *[Answer()] * 3)
        assert session.get(server.url, timeout=5).status_code == 401
        assert [session.get(server.url, timeout=5).status_code for _ in range(3)] == [200] * 3
    assert [asked.path for asked in server.asked].count("/token") == 4


def failure_of_get(session: ResettingSession, url: str) -> Failure:
    with pytest.raises(SyncError) as caught:
        session.get(url, timeout=5)
    return caught.value.failure


def test_the_kernel_gives_up_with_the_request(server: ScriptedBigQuery) -> None:
    """Goal: a machine that slept repeats nothing. Method: ask the kernel for a connection's time limit."""
    with resetting() as session, session.get(server.url, stream=True, timeout=5) as answer:
        connection = answer.raw._connection.sock
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == TIMEOUT_SECONDS * 1000
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
