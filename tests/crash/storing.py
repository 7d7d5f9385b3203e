"""A process that stores runs until its standard input ends, and tells which ones were reported as stored.

``python -m tests.crash.storing ORDER``, an `Order` as JSON. Each marker is a line on its standard output.
"""

import itertools
import json
import os
import select
import sys
from dataclasses import dataclass
from typing import Any

from tests.crash.made_runs import made_run

#: Without waiting, so many runs are taken before it is made sure that they are stored.
_RUNS_BETWEEN_FLUSHES = 3


@dataclass(frozen=True, slots=True)
class Order:
    """What to do.

    Attributes:
        name: how its markers begin.
        project, dataset: where it stores.
        folder: the results folder, or the spool.
        wait: of the handler; without it, runs count as stored after a flush.
        cloud: arguments of GCPExperimentHandler; without them it is LocalExperimentHandler.
    """

    name: str
    project: str
    dataset: str
    folder: str
    wait: bool
    cloud: tuple[str, ...] = ()


def _handler(order: Order) -> Any:
    if order.cloud:
        from pixaris_sync.handlers import GCPExperimentHandler  # noqa: PLC0415 - the other one needs less

        return GCPExperimentHandler(*order.cloud, spool_folder=order.folder, wait=order.wait)
    from pixaris_sync.handlers import LocalExperimentHandler  # noqa: PLC0415 - see above

    return LocalExperimentHandler(order.folder, wait=order.wait)


def _main() -> None:
    order = Order(**json.loads(sys.argv[1]))
    handler = _handler(order)
    stored: list[str] = []
    for number in itertools.count():
        marker = f"{order.name}-{number:04d}"
        run = made_run(marker)
        pairs = [(image, name) for name, image in run.images.items()]
        handler.store_results(order.project, order.dataset, run.name, pairs, run.metrics, run.args)
        stored.append(marker)
        has_to_end = bool(select.select([sys.stdin], [], [], 0)[0])
        if not order.wait and (has_to_end or len(stored) == _RUNS_BETWEEN_FLUSHES):
            handler.flush()
        elif not order.wait:
            continue
        os.write(sys.stdout.fileno(), "".join(f"{marker}\n" for marker in stored).encode())
        stored.clear()
        if has_to_end:
            return


if __name__ == "__main__":
    _main()
