"""The benchmark's server: both services on one port of the loopback interface, in a process of its own.

It prints its address and serves until its standard input is closed, so that it never outlives whoever started
it. Below ``/bench`` it answers, without latency, how it was used.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import resource
import sys
import time
from collections.abc import Callable

import uvloop

from tests.benchmarks.server.bodies import Collected, Sink
from tests.benchmarks.server.objects import Objects, inventory_digest
from tests.benchmarks.server.uploads import Uploads
from tests.benchmarks.server.warehouse import Warehouse
from tests.benchmarks.server.wire import Answer, Line, Request, json_answer, refusal


class Services:
    """What the server serves, and what it tells about itself."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._latency_seconds = 0.0
        self._objects = Objects(host, with_md5=False)
        self._warehouse = Warehouse(host)

    def latency_seconds(self) -> float:
        """What is added to every answer."""
        return self._latency_seconds

    def route(self, request: Request) -> tuple[Sink, Callable[[], Answer]]:
        """Send a request to the service that it is for."""
        match request.segments:
            case ["storage", "v1", "b", *_] | ["upload", "storage", "v1", "b", _, "o", *_]:
                return self._objects.route(request)
            case ["download", "storage", "v1", "b", _, "o", *_]:
                # Where Google's client downloads; elsewhere it is the same.
                request.segments.pop(0)
                return self._objects.route(request)
            case ["bigquery", "v2", "projects", _, *_] | ["upload", "bigquery", "v2", "projects", *_]:
                return self._warehouse.route(request)
            case ["bench", what]:
                return Collected(), lambda: self._tell(what, request.query)
            case [_, _, *_] if request.method == "PUT":
                return self._objects.route_put(request)
        body = Collected()
        return body, lambda: refusal(404, "notFound", f"not served: {'/'.join(request.segments)}")

    def _tell(self, what: str, query: dict[str, str]) -> Answer:
        match what:
            case "reset":
                uploads = Uploads(int(query["at_once"]))
                self._objects = Objects(
                    self._host,
                    with_md5=query["md5"] == "True",
                    keeps=query["keep"] == "True",
                    uploads=uploads,
                )
                self._warehouse = Warehouse(self._host)
                self._latency_seconds = float(query["latency_ms"]) / 1000
                gc.collect()
                answer = json_answer({})
            case "latency":
                self._latency_seconds = float(query["latency_ms"]) / 1000
                answer = json_answer({})
            case "seed":
                self._objects.seed(
                    query["bucket"],
                    int(query["objects"]),
                    datasets=int(query["datasets"]),
                    size=int(query["size"]),
                )
                answer = json_answer({})
            case "counts":
                answer = json_answer({**self._objects.counts, **self._warehouse.counts})
            case "uploads":
                answer = json_answer(self._objects.uploads.told())
            case "load":
                usage = resource.getrusage(resource.RUSAGE_SELF)
                answer = json_answer(
                    {"cpu": time.process_time(), "at": time.monotonic(), "rss": usage.ru_maxrss}
                )
            case "inventory":
                checksums = self._objects.checksums()
                stored = {"objects": len(checksums), "digest": inventory_digest(checksums)}
                answer = json_answer({**stored, "rows": self._warehouse.row_count()})
            case "stored":
                stored = {"stored": self._objects.stored, "refused": self._objects.refused}
                answer = json_answer({**stored, "tables": self._warehouse.told()})
            case "arrived":
                answer = json_answer(self._warehouse.arrived_at(query["run"]))
            case _:
                answer = refusal(404, "notFound")
        answer.at_once = True
        return answer


async def serve() -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    services: list[Services] = []
    server = await loop.create_server(
        lambda: Line(services[0].route, services[0].latency_seconds), "127.0.0.1", 0, backlog=1024
    )
    host = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    services.append(Services(host))
    print(host, flush=True)  # noqa: T201 - for whoever started it
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    server.close()


def main() -> None:
    """Run the server on one core, if one is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--core", type=int)
    arguments = parser.parse_args()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    # Nothing here makes reference cycles worth the pauses.
    gc.disable()
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve())


if __name__ == "__main__":
    main()
