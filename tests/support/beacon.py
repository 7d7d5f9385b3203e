"""A loopback address that counts how often it is asked, and answers as it is told."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

#: A part of the address that nobody may tell.
UNTOLD: Final = "secret-token-of-the-heartbeat"


class Beacon:
    """A running one.

    Attributes:
        url: what to ask; it holds a secret.
        asked: the path of each request so far.
        status, headers, content: what it answers.
    """

    def __init__(self, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}"
        self.url = f"{self.address}/{UNTOLD}?key={UNTOLD}"
        self.asked: list[str] = []
        self.status = 200
        self.headers: Mapping[str, str] = {}
        self.content = b"OK"


@contextmanager
def running_beacon() -> Iterator[Beacon]:
    """A beacon on a free port, for as long as the context is open."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            beacon.asked.append(self.path)
            self.send_response(beacon.status)
            for name, value in {**beacon.headers, "Content-Length": str(len(beacon.content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(beacon.content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        beacon = Beacon(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=[0.01], daemon=True)
        thread.start()
        try:
            yield beacon
        finally:
            server.shutdown()
            thread.join()
