"""Folders and tracking lines made to hurt: nothing outside is read, nothing breaks, what is sound arrives.

Each folder is made from a seed: a results folder with a hand of harms in it, synced to fakes in virtual time.
Seeds follow each other, so that some bring every harm, in company that changes. Settings:

* ``PIXARIS_SYNC_TEST_FUZZ_SECONDS``: how long; then the folder under way is the last.
* ``PIXARIS_SYNC_TEST_FUZZ_SEED``: where to begin. With 0 seconds, only that one: so a failure is replayed.
"""

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from types import FrameType
from typing import Final

import pytest

from pixaris_sync.cli.report import preview_text
from pixaris_sync.pipeline.context import Mode
from pixaris_sync.pipeline.preview import preview
from pixaris_sync.text import printable_line
from pixaris_sync.verify import Sign, verify
from tests.engine.machine import Machine
from tests.fuzz import hostile_folders, hostile_lines
from tests.fuzz.folder import HostileFolder
from tests.fuzz.invariants import ArrivalCheck, Log, check, snapshot
from tests.fuzz.link_swapper import LinkSwapper
from tests.support.open_watch import watch_opens
from tests.support.proof_summary import Tell

SECONDS: Final = float(os.environ.get("PIXARIS_SYNC_TEST_FUZZ_SECONDS", "10"))
FIRST_SEED: Final = os.environ.get("PIXARIS_SYNC_TEST_FUZZ_SEED")
#: A folder takes a second or two.
FOLDER_SECONDS_MAX: Final = 60
#: Whoever takes so long brings every harm.
ALL_HARMS_SECONDS: Final = 60

HARMS: Final = {
    **hostile_folders.harms(),
    **{harm.__name__.replace("_", " "): harm for harm in hostile_lines.HARMS},
}
#: So many harms in a folder come by turns, and so many by chance.
_BY_TURNS, _BY_CHANCE = 4, 4
#: One folder in so many has links swapped in right before files are opened, or all the time.
_SWAP_EVERY, _THREAD_EVERY = 4, 12


class HangError(BaseException):
    """A folder takes too long; no ``except Exception`` may outlive it."""


@pytest.mark.timeout(0)  # each folder has its own limit
def test_a_hostile_folder_does_no_harm(tmp_path: Path, tell: Tell) -> None:
    """Goal: nothing outside is read, all that is sound arrives. Method: see the module's docstring."""
    used: Counter[str] = Counter()
    seed = int(FIRST_SEED or 0)
    begun_at = time.monotonic()
    ends_at = begun_at + SECONDS
    all_harms = not FIRST_SEED and SECONDS >= ALL_HARMS_SECONDS
    turns = -(-len(HARMS) // _BY_TURNS) if all_harms else 1
    while turns > 0 or time.monotonic() < ends_at:
        folder = tmp_path / str(seed)
        try:
            with limited(FOLDER_SECONDS_MAX):
                used.update(sync_hostile_folder(folder, seed))
        except BaseException as error:
            error.add_note(
                f"replay: PIXARIS_SYNC_TEST_FUZZ_SEED={seed} PIXARIS_SYNC_TEST_FUZZ_SECONDS=0; see {folder}"
            )
            raise
        shutil.rmtree(folder)
        seed, turns = seed + 1, turns - 1
    swaps = used["swap"]
    told = {"seconds": round(time.monotonic() - begun_at), "hostile folders": seed - int(FIRST_SEED or 0)}
    tell("fuzz", {**told, "harms in them": used.total() - swaps, "links swapped in meanwhile": swaps})
    if all_harms:
        assert not [name for name in (*HARMS, "swap") if not used[name]]


def sync_hostile_folder(folder: Path, seed: int) -> Counter[str]:
    """Sync one folder; which harms were in it, and how many swaps."""
    folder.mkdir()
    machine = Machine(folder, seed=seed)
    hostile = HostileFolder(folder, Random(seed))  # noqa: S311 - replayed by its seed
    machine.store.observer = machine.sink.observer = ArrivalCheck(hostile)
    names = list(HARMS)
    hand = [names[(seed * _BY_TURNS + turn) % len(names)] for turn in range(_BY_TURNS)]
    hand += hostile.random.choices(names, k=_BY_CHANCE)
    for name in hand:
        HARMS[name](hostile)
    swapper = LinkSwapper(hostile) if seed % _SWAP_EVERY == 0 else None
    log, before = Log(), snapshot(hostile.root, hostile.outside)
    with watch_opens(*hostile.forbidden_paths()) as watch, log.listening():
        run_passes(machine, swapper, threaded=seed % _THREAD_EVERY == 0)
        told = machine.clock.run(partial(compare, machine))
        assert not watch.happened(), "something was opened that stands outside of all runs"
    assert snapshot(hostile.root, hostile.outside) == before, "the results folder was changed"
    check(hostile, machine, [*told, *log.lines])
    hostile.unlock()
    return Counter([*hand, *["swap"] * (swapper.swaps if swapper else 0)])


def run_passes(machine: Machine, swapper: LinkSwapper | None, *, threaded: bool) -> None:
    """Sync everything, under attack if there is a swapper; a last pass must find nothing left to do."""
    if swapper is None:
        machine.run_pass()
    else:
        with swapper.all_the_time() if threaded else swapper.at_every_opening():
            machine.run_pass()
        # The attacker has gone: what is sound must arrive now, and only once.
        machine.clock.let_pass(3600)
        machine.release()
        machine.run_pass(full=True)
    done = (len(machine.store.uploads), machine.sink.counts["stream"], machine.sink.counts["load"])
    left = machine.run_pass()
    assert (len(machine.store.uploads), machine.sink.counts["stream"], machine.sink.counts["load"]) == done
    assert left.waiting == 0, "work is left, and nothing hinders it"


async def compare(machine: Machine) -> list[str]:
    """What ``verify`` and ``backfill --dry-run`` say for people: they read the same folder."""
    with machine.ledger() as ledger:
        ports = (ledger, machine.store, machine.sink)
        found = [finding async for finding in verify(machine.settings, *ports)]
        document = await preview(machine.settings, Mode(bulk=True), *ports, now=machine.clock.now())
    for finding in found:
        sound = "/calm/plain/" in finding.subject or finding.subject.startswith("calm_plain_")
        assert finding.sign is Sign.SAME or not sound, finding
    assert (document["files"], document["rows"]) == (0, 0)
    return [*(printable_line(f"{f.sign} {f.subject}: {f.detail}") for f in found), preview_text(document)]


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
