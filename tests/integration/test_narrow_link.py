"""The clock of a request, through the real command: a slow link works, and a dead one is noticed."""

import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import CommandLine
from tests.support.narrow_link import NarrowLink
from tests.support.stored_runs import Reader, StoredRun, store_run

#: A link of 64 KiB/s has a minute and a half for it: longer than a command may take here.
BYTES = 6 * 1024 * 1024


def _store(folder: Path) -> tuple[StoredRun, Path]:
    """A run, and its only image, which is large."""
    run = store_run(folder)
    [image] = (run.folder / "generated_images").iterdir()
    # Pixels are not looked at: what stands behind the end of a picture is sent like the rest.
    image.write_bytes(image.read_bytes() + os.urandom(BYTES))
    return run, image


def _having(command_line: CommandLine, link: NarrowLink, *, chunks: bool, **settings: Any) -> CommandLine:
    threshold = (1 if chunks else 32) * 1024 * 1024
    way = {"resumable_threshold_bytes": threshold, "chunk_bytes": BYTES, **settings}
    return command_line.having(**way).but(STORAGE_EMULATOR_HOST=link.url)


def test_a_dead_link_is_noticed_within_the_time_limit_however_large_a_body_is(
    command_line: CommandLine,
) -> None:
    """Goal: a stalled request ends soon. Method: nothing moves after a part of it; a command has a minute."""
    _store(command_line.folder)
    with NarrowLink(command_line.environment["STORAGE_EMULATOR_HOST"]) as link:
        link.stalls_after_bytes = 200_000
        limited = _having(command_line, link, chunks=True, request_timeout_seconds=1, sync_attempts_limit=1)
        assert limited.run("sync").code == 5
        assert "no answer within the time limit" in str(limited.status()["problems"])


@pytest.mark.large
@pytest.mark.parametrize("chunks", [False, True], ids=["one request", "chunks"])
def test_a_slow_link_works_whatever_the_time_limit(
    command_line: CommandLine, pixaris: Reader, *, chunks: bool
) -> None:
    """Goal: what moves is not cut. Method: a body that takes three times the limit; it is sent once."""
    run, image = _store(command_line.folder)
    with NarrowLink(command_line.environment["STORAGE_EMULATOR_HOST"]) as link:
        link.bytes_per_second = BYTES / 12
        limited = _having(command_line, link, chunks=chunks, request_timeout_seconds=4, sync_attempts_limit=1)
        assert limited.run("sync", "--json").document["files_uploaded"] == 1
    assert command_line.having(doubt_settle_seconds=1).sync()["runs"]["synced"] == 1
    assert pixaris.runs() == [run.name]
    assert pixaris.content(f"results/{run.key}/generated_images/{image.name}") == image.read_bytes()
