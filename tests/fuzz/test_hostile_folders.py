"""Folders and tracking lines made to hurt: nothing outside is read, nothing breaks, what is sound arrives.

Each history is made from a seed: a results folder with a hand of harms in it, carried on fakes in virtual time.
Seeds follow each other, so that a few hundred bring every harm many times, in company that changes. Settings:

* ``PIXARIS_SYNC_FUZZ_SECONDS``: how long; then the history under way is the last.
* ``PIXARIS_SYNC_FUZZ_SEED``: where to begin. With 0 seconds, only that one: so a failure is replayed.
"""

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from random import Random
from types import FrameType
from typing import Final

import pytest

from pixaris_sync.verify import verify
from tests.engine.world import World
from tests.fuzz import lines, places
from tests.fuzz.folder import HostileFolder
from tests.fuzz.races import Swapper
from tests.fuzz.verdict import Eyes, Log, check, snapshot
from tests.support.openings import openings_of

SECONDS: Final = float(os.environ.get("PIXARIS_SYNC_FUZZ_SECONDS", "20"))
FIRST_SEED: Final = os.environ.get("PIXARIS_SYNC_FUZZ_SEED")
#: A history takes a fraction of a second.
HISTORY_SECONDS_MAX: Final = 60

HARMS: Final = {**places.harms(), **{harm.__name__.replace("_", " "): harm for harm in lines.HARMS}}
#: So many harms in a history come by turns, and so many by chance.
_BY_TURNS, _BY_CHANCE = 4, 4
#: One history in so many has somebody who swaps links in right before files are opened, or all the time.
_RACE_EVERY, _THREAD_EVERY = 4, 12


class HangError(BaseException):
    """A history takes too long; no ``except Exception`` may outlive it."""


@pytest.mark.timeout(0)  # each history has its own limit
def test_a_hostile_folder_does_no_harm(tmp_path: Path) -> None:
    """Goal: issue's invariants 5 and 6 whatever stands in the folder. Method: see the module's docstring."""
    used: Counter[str] = Counter()
    seed = int(FIRST_SEED or 0)
    ends_at = time.monotonic() + SECONDS
    turns = 1 if FIRST_SEED else -(-len(HARMS) // _BY_TURNS)
    while turns > 0 or time.monotonic() < ends_at:
        folder = tmp_path / str(seed)
        try:
            with limited(HISTORY_SECONDS_MAX):
                used.update(live_through(folder, seed))
        except BaseException as error:
            error.add_note(f"replay: PIXARIS_SYNC_FUZZ_SEED={seed} PIXARIS_SYNC_FUZZ_SECONDS=0; see {folder}")
            raise
        shutil.rmtree(folder)
        seed, turns = seed + 1, turns - 1
    print(f"{seed - int(FIRST_SEED or 0)} histories, seeds to {seed - 1}; {used.total()} harms, {used['swap']} swaps")
    if not FIRST_SEED:
        assert not [name for name in (*HARMS, "swap") if not used[name]]


def live_through(folder: Path, seed: int) -> Counter[str]:
    """One history; which harms were in it, and how many swaps."""
    random = Random(seed)
    folder.mkdir()
    world = World(folder, seed=seed)
    pit = HostileFolder(folder, random)
    world.store.witness = world.sink.witness = Eyes(pit)
    names = list(HARMS)
    hand = [names[(seed * _BY_TURNS + turn) % len(names)] for turn in range(_BY_TURNS)]
    hand += random.choices(names, k=_BY_CHANCE)
    for name in hand:
        HARMS[name](pit)
    swapper = Swapper(pit) if seed % _RACE_EVERY == 0 else None
    before = snapshot(pit.root, pit.outside)
    log = Log()
    with openings_of(*pit.forbidden_paths()) as openings, log.listening():
        with _race(swapper, seed):
            world.run_pass()
        assert not openings.happened(), "something was opened that stands outside of all runs"
        if swapper is not None:
            # Whoever attacked has gone. What was sound must arrive, once.
            world.clock.let_pass(3600)
            world.release()
            world.run_pass(full=True)
        uploads, rows = list(world.store.uploads), world.sink.counts["stream"] + world.sink.counts["load"]
        left = world.run_pass()
        assert not openings.happened()
    assert (list(world.store.uploads), world.sink.counts["stream"] + world.sink.counts["load"]) == (uploads, rows)
    assert left.waiting == 0
    assert snapshot(pit.root, pit.outside) == before
    check(pit, world, log)
    pit.unlock()
    return Counter([*hand, *["swap"] * (swapper.swaps if swapper else 0)])


def _race(swapper: Swapper | None, seed: int) -> "contextmanager":
    if swapper is None:
        return nullcontext()
    return swapper.all_the_time() if seed % _THREAD_EVERY == 0 else swapper.at_every_opening()


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Interrupt whatever runs in this thread after so long, also a call of the system that blocks."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise HangError(f"no end within {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
