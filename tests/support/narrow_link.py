"""A link to a service that is slow, or on which nothing moves any more, down to the kernel's buffers."""

import socket
import threading
import time
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

#: What a kernel takes in for a reader that does not read, about; small, so that a sender sees how it reads.
_BUFFER_BYTES = 16 * 1024
_PIECE_BYTES = 32 * 1024


class NarrowLink:
    """Relays TCP connections to a service; use as a context.

    Args:
        upstream: URL of the service.

    Attributes:
        url: where it takes connections.
        bytes_per_second: how fast each connection passes on what is sent to the service.
        stalls_after_bytes: so much of a connection is passed on, and nothing more; None: all of it.
    """

    def __init__(self, upstream: str) -> None:
        address = urlsplit(upstream)
        self._upstream = (address.hostname or "", address.port or 80)
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        self._listener.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.bytes_per_second = 1e9
        self.stalls_after_bytes: int | None = None
        self._ended = threading.Event()
        self._links: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for link in (self._listener, *self._links):
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
            link.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                service = socket.create_connection(self._upstream)
                self._links += [client, service]
                threading.Thread(target=self._send, args=(client, service), daemon=True).start()
                threading.Thread(target=self._answer, args=(service, client), daemon=True).start()

    def _send(self, client: socket.socket, service: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while piece := client.recv(_PIECE_BYTES):
                if self.stalls_after_bytes is not None and passed >= self.stalls_after_bytes:
                    self._ended.wait()
                    return
                time.sleep(len(piece) / self.bytes_per_second)
                service.sendall(piece)
                passed += len(piece)
            service.shutdown(socket.SHUT_WR)

    def _answer(self, service: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while piece := service.recv(_PIECE_BYTES):
                client.sendall(piece)
            client.shutdown(socket.SHUT_WR)
