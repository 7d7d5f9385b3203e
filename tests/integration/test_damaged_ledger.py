"""A ledger with a damaged page, through the real command: it is rebuilt, nothing is doubled or lost."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from pixaris_sync.ledger.database import migrations
from tests.integration.in_process import InProcess
from tests.support.command_line import CommandLine, Watching
from tests.support.stored_runs import Reader, store_run

PAGE = 4096
#: Every fifth page, each in one way; `large` takes all of them, each in every way.
PAGES_STEP = 5

Damage = Callable[[bytes, random.Random], bytes]

DAMAGES: dict[str, Damage] = {
    "zeros": lambda page, _: bytes(len(page)),
    "noise": lambda page, dice: dice.randbytes(len(page)),
    "half of it": lambda page, dice: page[: len(page) // 2] + dice.randbytes(len(page) - len(page) // 2),
    "its beginning": lambda page, dice: dice.randbytes(64) + page[64:],
}


def damage_page(path: Path, number: int, damage: Damage) -> None:
    """Damage a page on the disk, counted from 0."""
    with path.open("r+b") as file:
        file.seek(number * PAGE)
        page = file.read(PAGE)
        file.seek(number * PAGE)
        file.write(damage(page, random.Random(number)))  # noqa: S311 - no secret


def damaged(command_line: CommandLine) -> list[Path]:
    """The ledgers that were set aside."""
    return sorted(
        path
        for path in command_line.state_dir.glob("*.damaged-*")
        if not path.name.endswith(("-wal", "-shm"))
    )


def damage_one_page_after_another(
    command_line: CommandLine, pixaris: Reader, in_process: InProcess, step: int
) -> None:
    """Sync with each page damaged in each way; the ledger knows nothing of the last run, as an older one."""
    folder = command_line.folder
    runs = [store_run(folder, f"run-{at}", images=2, metrics={"score": at}).name for at in range(3)]
    assert in_process.run("sync")[0] == 0
    [ledger] = command_line.ledgers()
    whole = ledger.read_bytes()
    runs.append(store_run(folder, "run-3").name)
    assert in_process.run("sync")[0] == 0
    objects, pages, rebuilt = pixaris.objects(), len(whole) // PAGE, 0
    for at, (kind, damage) in enumerate(DAMAGES.items()):
        numbers = range(pages) if step == 1 else range(at * step, pages, step * len(DAMAGES))
        for number in numbers:
            ledger.write_bytes(whole)
            damage_page(ledger, number, damage)
            code, told = in_process.run("sync")
            what = f"{kind} in page {number} of {pages}: {told}"
            assert code == 0, what
            assert "Traceback" not in told, what
            assert "the free space there" not in told, what
            assert in_process.run("status")[0] == 0, what
            rebuilt += "is kept as" in told
        assert pixaris.runs() == runs
        assert pixaris.objects() == objects
    assert rebuilt == len(damaged(command_line))
    assert rebuilt >= pages // step // 2


def test_a_damaged_page_costs_no_run_and_no_row(
    command_line: CommandLine, pixaris: Reader, in_process: InProcess
) -> None:
    """Goal: whatever page it is, `sync` heals. Method: some pages, with zeros, noise and less of it."""
    damage_one_page_after_another(command_line, pixaris, in_process, PAGES_STEP)


@pytest.mark.large
def test_every_damaged_page_costs_no_run_and_no_row(
    command_line: CommandLine, pixaris: Reader, in_process: InProcess
) -> None:
    """Goal: the same. Method: all pages."""
    damage_one_page_after_another(command_line, pixaris, in_process, 1)


#: What stands before the pages in SQLite's ``-wal`` file, and before each of them.
LOG_HEAD, FRAME_HEAD = 32, 24


def damage_the_log(command_line: CommandLine, pixaris: Reader, in_process: InProcess, step: int) -> None:
    """Sync after a crash that left a ``-wal`` file, with a frame of it damaged: SQLite drops what follows.

    What it dropped may stand in the ledger itself already, so that pages of two times lie side by side.
    """
    folder = command_line.folder
    runs = [store_run(folder, "first").name]
    assert in_process.run("sync")[0] == 0
    [ledger] = command_line.ledgers()
    log = ledger.with_name(f"{ledger.name}-wal")
    with closing(sqlite3.connect(ledger)) as other:
        # As long as it reads, nobody removes the log.
        other.execute("SELECT * FROM facts").fetchall()
        runs += [store_run(folder, f"run-{at}", metrics={"score": at}).name for at in range(2)]
        assert in_process.run("sync")[0] == 0
        before, frames = ledger.read_bytes(), log.read_bytes()
        other.execute("PRAGMA wal_checkpoint(PASSIVE)")
        after = ledger.read_bytes()
    assert before != after
    objects, size = pixaris.objects(), FRAME_HEAD + PAGE
    for whole in (before, after):
        for start in range(LOG_HEAD, len(frames), step * size):
            ledger.write_bytes(whole)
            dice = random.Random(start)  # noqa: S311 - no secret
            log.write_bytes(frames[:start] + dice.randbytes(size) + frames[start + size :])
            code, told = in_process.run("sync")
            assert code == 0, f"{start}: {told}"
            assert "Traceback" not in told
        assert pixaris.runs() == runs
        assert pixaris.objects() == objects
    assert in_process.run("status")[0] == 0


def test_a_damaged_log_costs_no_run_and_no_row(
    command_line: CommandLine, pixaris: Reader, in_process: InProcess
) -> None:
    """Goal: a ledger that became older, in part, doubles nothing. Method: some frames of its log."""
    damage_the_log(command_line, pixaris, in_process, 24)


@pytest.mark.large
def test_every_damaged_frame_of_the_log_costs_no_run_and_no_row(
    command_line: CommandLine, pixaris: Reader, in_process: InProcess
) -> None:
    """Goal: the same. Method: all frames."""
    damage_the_log(command_line, pixaris, in_process, 1)


def test_damage_that_comes_while_watch_is_at_work_is_noticed_and_mended(
    command_line: CommandLine, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: no endless wait in which nothing is carried. Method: damage under a watch, then a run.

    A write of another process lets it read the file anew, as memory that is needed elsewhere does.
    """
    runs = [store_run(command_line.folder, "before").name]
    with Watching(command_line, tmp_path) as watch:
        watch.until(lambda: pixaris.runs() == runs, "the first run arrives")
        watch.until(lambda: command_line.status()["runs"]["synced"] == 1, "it is read back")
        [ledger] = command_line.ledgers()
        with closing(sqlite3.connect(ledger)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            for number in range(2, ledger.stat().st_size // PAGE):
                damage_page(ledger, number, DAMAGES["noise"])
            other.execute(f"PRAGMA user_version = {migrations()[-1][0]}")
        runs.append(store_run(command_line.folder, "later").name)
        watch.until(lambda: pixaris.runs() == runs, "the second run arrives")
        watch.until(lambda: command_line.status()["runs"]["synced"] == 2, "both are known again")
        assert len(damaged(command_line)) == 1
        assert "is kept as" in watch.log()
        assert "the free space there" not in watch.log()
        assert "Traceback" not in watch.log()
        assert watch.end() == 0
