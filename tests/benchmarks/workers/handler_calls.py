"""Calls one method of an experiment handler, Pixaris' or ours, as often as it is told, and times each call.

Usage: handler_calls.py JSON, with ``handler`` (``pixaris``, ``ours`` or ``behind``), ``where`` (``local`` or
``cloud``), ``arguments`` of the constructor, ``folder``, ``call`` (``store``, ``images`` or ``projects``),
``times``, and for pictures ``images`` and ``side``. It prints the seconds of each call, and of each until
everything is stored.
"""

import contextlib
import importlib
import io
import json
import random
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

task = json.loads(sys.argv[1])
is_ours = task["handler"] != "pixaris"
folder = Path(task["folder"])


def made_handler() -> Any:
    """The handler; what it imports is not timed."""
    names = {"local": "LocalExperimentHandler", "cloud": "GCPExperimentHandler"}
    room = "gcp" if task["where"] == "cloud" else "local"
    module = importlib.import_module(
        f"pixaris_sync.handlers.{room}" if is_ours else f"pixaris.experiment_handlers.{room}"
    )
    options: dict[str, Any] = {"wait": task["handler"] == "ours"} if is_ours else {}
    if is_ours and task["where"] == "cloud":
        options["spool_folder"] = str(folder / "spool")
    return getattr(module, names[task["where"]])(*task["arguments"], **options)


def pictures() -> list[tuple[Image.Image, str]]:
    """Pictures that compress as generated ones do: smooth, with a little noise."""
    side = task["side"]
    chance = random.Random(side)  # noqa: S311 - pictures need no secrecy
    found = []
    for number in range(task["images"]):
        smooth = Image.frombytes("RGB", (32, 32), chance.randbytes(32 * 32 * 3)).resize((side, side))
        noise = Image.frombytes("RGB", (side, side), chance.randbytes(side * side * 3))
        found.append((Image.blend(smooth, noise, 0.03), f"image_{number}.png"))
    return found


def call() -> Callable[[int], Any]:
    """What is timed; it is given the number of the call."""
    match task["call"]:
        case "store":
            pairs = pictures()
            return lambda number: handler.store_results(
                "bench", "set0", f"new{number}", list(pairs), {"score": 0.5}, {"seed": number}
            )
        case "images":
            return lambda _: handler.load_images_for_experiment("bench", "set0", "run0", str(folder / "read"))
        case _:
            return lambda _: handler.load_projects_and_datasets()


handler = made_handler()
timed = call()
seconds: list[float] = []
stored: list[float] = []
answer = None
with contextlib.redirect_stdout(io.StringIO()):
    for number in range(task["times"]):
        shutil.rmtree(folder / "read", ignore_errors=True)
        begun = time.monotonic()
        answer = timed(number)
        seconds.append(time.monotonic() - begun)
        if is_ours and task["call"] == "store":
            handler.flush()
        stored.append(time.monotonic() - begun)
answers = sum(map(len, answer.values())) if isinstance(answer, dict) else len(answer or ())
print(json.dumps({"seconds": seconds, "stored": stored, "answers": answers}))  # noqa: T201 - for the measuring program
