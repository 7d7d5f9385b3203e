"""Stores runs while everything goes wrong."""

import random
import threading
from pathlib import Path
from typing import Any

from PIL import Image

from tests.support.stored_runs import picture, store_run

#: The project that all machines store runs in, so that they meet in one table.
SHARED_PROJECT = "team"
_PAUSE_BETWEEN_RUNS_SECONDS = (0.1, 0.9)


class Writer:
    """Stores runs with the real LocalExperimentHandler until it is told to stop.

    Attributes:
        stored: how many runs.
        failure: what ended it before its time.
    """

    def __init__(self, folder: Path, machine: str, seed: int) -> None:
        self._folder = folder
        self._machine = machine
        self._chance = random.Random(f"{seed} {machine} runs")  # noqa: S311 - tests need no secrecy
        self._ended = threading.Event()
        self.stored = 0
        self.failure: Exception | None = None

    def run(self) -> None:
        """Store runs until `stop`."""
        try:
            while not self._ended.wait(self._chance.uniform(*_PAUSE_BETWEEN_RUNS_SECONDS)):
                self._store()
        except Exception as error:  # noqa: BLE001 - told to the test
            self.failure = error

    def stop(self) -> None:
        """No more runs."""
        self._ended.set()

    def _store(self) -> None:
        chance = self._chance
        own = chance.random() < 0.7
        project, dataset = (self._machine, chance.choice(("one", "two"))) if own else (SHARED_PROJECT, "all")
        name = f"{self._machine}-{self.stored:04d}"
        args: dict[str, Any] = {"marker": name, "seed": chance.getrandbits(40)}
        metrics: dict[str, Any] = {
            "score": chance.choice((chance.random(), chance.randint(0, 9), float("nan")))
        }
        images = self._images()
        kind = chance.random()
        if kind < 0.05:
            # Stored again at once: where both fall into one second, two equal lines are one record.
            self._store_one(name, project, dataset, images, metrics, args)
        elif kind < 0.25:
            args["mask"] = picture(chance.randrange(256))
        elif kind < 0.45:
            args["flow"] = {"steps": chance.randint(1, 50), "name": name}
        elif kind < 0.6:
            metrics["detail"] = {"parts": [chance.random() for _ in range(3)], "name": name}
        elif kind < 0.62:
            metrics[f"extra_{self.stored}"] = chance.choice((1, "text", 0.5, True))
        self._store_one(name, project, dataset, images, metrics, args)

    def _store_one(self, name: str, project: str, dataset: str, images: Any, metrics: Any, args: Any) -> None:
        store_run(
            self._folder, name, project=project, dataset=dataset, images=images, metrics=metrics, args=args
        )
        self.stored += 1

    def _images(self) -> list[tuple[Image.Image, str]]:
        chance = self._chance
        images = [(picture(chance.randrange(256)), f"{at}.png") for at in range(chance.randint(1, 3))]
        if chance.random() < 0.15:
            width, height = chance.choice(((400, 300), (640, 480)))
            noise = Image.frombytes("RGB", (width, height), chance.randbytes(width * height * 3))
            images.append((noise, "large.png"))
        return images
