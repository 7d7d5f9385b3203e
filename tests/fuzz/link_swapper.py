"""An attacker that swaps files and folders for links while they are read.

`os.open` is where everything of a run is opened, so right before it is the worst instant for a swap: names
were listed and looked at, and the link comes before the handle. A swap there depends on nothing but the seed.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.fuzz.folder import IMAGES, TRACKING_FILE, HostileFolder, mirrored

_SWAP_CHANCE = 0.3


class LinkSwapper:
    """Puts a link in the place of something sound, and takes it away again; one at a time.

    Attributes:
        swaps: how often it did.
    """

    def __init__(self, hostile: HostileFolder) -> None:
        self.swaps = 0
        self._random = Random(hostile.random.random())  # noqa: S311 - it must come again with its seed
        self._aside = hostile.outside.parent / "aside"
        self._aside.mkdir()
        self._targets = [(place, mirrored(hostile, place)) for place in _places(hostile)]
        self._swapped: tuple[Path, Path] | None = None
        self._lock = threading.Lock()

    def swap(self) -> None:
        """Swap something, or undo the swap that is there."""
        with self._lock:
            if self._swapped is not None:
                self._undo()
                return
            place, target = self._random.choice(self._targets)
            aside = self._aside / "original"
            with _times_kept(place.parent):
                place.rename(aside)
                place.symlink_to(target)
            self._swapped = place, aside
            self.swaps += 1

    def perhaps_swap(self) -> None:
        """Swap or undo, by chance."""
        if self._random.random() < _SWAP_CHANCE:
            self.swap()

    def end(self) -> None:
        """Undo what is still swapped."""
        with self._lock:
            if self._swapped is not None:
                self._undo()

    def _undo(self) -> None:
        assert self._swapped is not None
        place, aside = self._swapped
        with _times_kept(place.parent):
            place.unlink()
            aside.rename(place)
        self._swapped = None

    @contextmanager
    def at_every_opening(self) -> Iterator[None]:
        """Swap by chance right before files and folders are opened; at the end everything is as it was."""
        with before_opening(self.perhaps_swap):
            try:
                yield
            finally:
                self.end()

    @contextmanager
    def all_the_time(self) -> Iterator[None]:
        """Swap as fast as a thread can; no seed brings the same instants again."""
        ended = threading.Event()

        def work() -> None:
            while not ended.is_set():
                self.swap()
                time.sleep(0)

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self.end()


def _places(hostile: HostileFolder) -> list[Path]:
    """What to swap: everything that leads to a sound run's files."""
    run = hostile.sound[0]
    dataset = run.parent
    return [
        dataset.parent,
        dataset,
        dataset / TRACKING_FILE,
        run,
        run / IMAGES,
        run / IMAGES / "0.png",
        run / "args.json",
    ]


@contextmanager
def _times_kept(folder: Path) -> Iterator[None]:
    status = folder.stat()
    yield
    os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns))


@contextmanager
def before_opening(act: Callable[[], None]) -> Iterator[None]:
    """Let something happen right before each `os.open` of this thread."""
    really_open, this_thread = os.open, threading.get_ident()

    def opening(*args: Any, **options: Any) -> int:
        if threading.get_ident() == this_thread:
            act()
        return really_open(*args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", opening)
        yield
