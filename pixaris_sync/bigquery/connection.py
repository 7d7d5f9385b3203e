"""The connections of the warehouse: a request that its sender has given up goes no further.

When a process dies or closes a connection, the kernel sends on what was written and is not acknowledged, and
repeats it for minutes (tcp(7), ``tcp_orphan_retries``, ``tcp_retries2``). Rows would so arrive behind those
that replaced them. Two options of the sockets prevent it:

* ``SO_LINGER``, on with no time (socket(7)): however the socket ends, by a time limit or with its process,
  the kernel throws away what it has not sent, and tells the other end by a reset.
* ``TCP_USER_TIMEOUT`` (tcp(7)), the time limit of a request: the kernel gives up what is not acknowledged in
  that time by itself, though the process was stopped or the machine slept meanwhile.

What had left this machine can still arrive: packets on their way, which live for seconds, and a whole request
that a proxy or the service's front had taken before the reset. A part of a request is none to anybody. An
answer that was read takes no harm: by then the reset only ends an idle connection.
"""

import socket
import struct
from functools import partial
from typing import TYPE_CHECKING, cast

from google.auth.transport.requests import AuthorizedSession
from urllib3.connection import HTTPConnection

if TYPE_CHECKING:
    from google.auth.credentials import Credentials
    from requests.adapters import HTTPAdapter


class ResettingSession(AuthorizedSession):
    """A session whose connections end with a reset, with TLS or without, through a proxy or not.

    The connection of a request that failed is closed at once: urllib3 sees to that.

    Args:
        credentials: what requests are signed with.
        timeout_seconds: the time limit of a request, which it has to be given as well.
    """

    def __init__(self, credentials: "Credentials", timeout_seconds: float) -> None:
        super().__init__(credentials)  # type: ignore[no-untyped-call] # it has no annotations
        self._socket_options = _socket_options(timeout_seconds)

    def get_adapter(self, url: str) -> "HTTPAdapter":
        """What makes the connections to `url`, told how they are to end.

        It is told at each request, and not once: Google's session mounts another adapter where there is a
        client certificate, and again when that is replaced.
        """
        adapter = cast("HTTPAdapter", super().get_adapter(url))
        options = self._socket_options
        adapter.poolmanager.connection_pool_kw["socket_options"] = options
        with_options = partial(type(adapter).proxy_manager_for, adapter, socket_options=options)
        adapter.proxy_manager_for = with_options  # type: ignore[method-assign] # proxies get known by requests
        return adapter


def _socket_options(timeout_seconds: float) -> list[tuple[int, int, int | bytes]]:
    options = [
        *HTTPConnection.default_socket_options,
        (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)),
    ]
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        milliseconds = max(round(timeout_seconds * 1000), 1)
        options.append((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds))
    return options
