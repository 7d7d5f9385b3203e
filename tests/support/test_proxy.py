"""What becomes of requests that the proxy holds back."""

import socket
import struct

import pytest

from tests.support.proxy import Held, Proxy
from tests.support.scripted_bigquery import Answer, scripted_bigquery
from tests.support.waiting import eventually

REQUEST = b"POST /insertAll HTTP/1.1\r\nHost: proxy\r\nContent-Length: 4\r\n\r\nrows"


@pytest.mark.parametrize(
    ("whole", "reset", "arrives"),
    [(False, True, False), (False, False, True), (True, True, True)],
    ids=["packets, a reset", "packets, an orderly end", "a proxy, a reset"],
)
def test_what_is_held_arrives_as_in_a_real_network(*, whole: bool, reset: bool, arrives: bool) -> None:
    """Goal: packets come to nothing by a reset, a proxy goes on. Method: end a connection in either way."""
    with scripted_bigquery() as server, Proxy(server.url) as proxy:
        proxy.rule = lambda _: Held(0.0, whole=whole)
        server.script(Answer(body={}))
        with socket.create_connection(("127.0.0.1", int(proxy.url.rpartition(":")[2]))) as client:
            client.sendall(REQUEST)
            eventually(lambda: proxy.held, "the request is held")
            assert not server.asked
            if reset:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        eventually(lambda: not proxy.held, "the request is let go or dropped")
        assert (proxy.let_go, proxy.dropped) == (int(arrives), int(not arrives))
        assert [asked.body for asked in server.asked] == [b"rows"] * arrives
        assert not proxy.failures
