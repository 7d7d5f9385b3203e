"""What becomes of requests that the proxy holds back."""

import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from tests.support.proxy import Held, Proxy, Request
from tests.support.scripted_bigquery import Answer, ScriptedBigQuery, scripted_bigquery
from tests.support.waiting import eventually

REQUEST = b"POST /insertAll HTTP/1.1\r\nHost: proxy\r\nContent-Length: 4\r\n\r\nrows"


@pytest.fixture
def server() -> Iterator[ScriptedBigQuery]:
    """What stands behind the proxy."""
    with scripted_bigquery() as server:
        server.script(Answer(body={}))
        yield server


@pytest.fixture
def proxy(server: ScriptedBigQuery) -> Iterator[Proxy]:
    """A proxy, in which nothing goes wrong."""
    with Proxy(server.url) as proxy:
        yield proxy
    assert not proxy.failures


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(proxy.url.rpartition(":")[2])))


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize(
    ("whole", "end", "arrives"),
    [(False, reset, False), (False, socket.socket.close, True), (True, reset, True)],
    ids=["packets, a reset", "packets, an orderly end", "a proxy, a reset"],
)
def test_what_is_held_arrives_as_in_a_real_network(
    server: ScriptedBigQuery,
    proxy: Proxy,
    *,
    whole: bool,
    end: Callable[[socket.socket], None],
    arrives: bool,
) -> None:
    """Goal: packets come to nothing by a reset, a proxy goes on. Method: end a connection in either way."""
    proxy.rule = lambda _: Held(0.0, whole=whole)
    with connect(proxy) as client:
        client.sendall(REQUEST)
        eventually(lambda: proxy.held, "the request is held")
        assert not server.asked
        end(client)
    eventually(lambda: not proxy.held, "the request is let go or dropped")
    assert (proxy.let_go, proxy.dropped) == (int(arrives), int(not arrives))
    assert [asked.body for asked in server.asked] == [b"rows"] * arrives


def test_a_client_that_is_reset_while_the_rule_is_asked_was_reset(
    server: ScriptedBigQuery, proxy: Proxy
) -> None:
    """Goal: a process may be killed at the arrival of its request. Method: a rule that resets its client."""
    with connect(proxy) as client:

        def rule(_: Request) -> Held:
            reset(client)
            eventually(lambda: all(one.is_closing() for one in proxy._clients), "the client has left")
            return Held(0.0, whole=False)

        proxy.rule = rule
        client.sendall(REQUEST)
        eventually(lambda: proxy.dropped, "the request came to nothing")
    assert (proxy.let_go, server.asked) == (0, [])
