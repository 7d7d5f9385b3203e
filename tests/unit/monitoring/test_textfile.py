"""Metrics in a file: whole at any moment, readable by all, and never in the way of the work."""

import logging
import math
import os
from pathlib import Path

import pytest

from pixaris_sync.monitoring.metrics import Metrics
from pixaris_sync.monitoring.textfile import Textfile
from pixaris_sync.monitoring.view import Figures


async def unread() -> Figures | None:
    return None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pixaris_sync.prom"


@pytest.fixture
def textfile(path: Path, tmp_path: Path) -> Textfile:
    return Textfile(path, Metrics(tmp_path, lambda: (math.inf, math.inf)), unread)


def test_it_is_replaced_as_a_whole_and_everybody_may_read_it(path: Path, textfile: Textfile) -> None:
    """Goal: no reader sees a half. Method: who has the old one open keeps it; under a umask of 077."""
    path.write_text("old")
    before = os.umask(0o077)
    try:
        with path.open() as old:
            textfile.write(None)
            assert old.read() == "old"
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.read_text().startswith("# HELP pixaris_sync_build_info")
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_what_an_earlier_process_left_is_no_obstacle(path: Path, textfile: Textfile, tmp_path: Path) -> None:
    """Goal: after a crash it goes on, and no link is followed. Method: a link in the place of the twin."""
    other = tmp_path / "other"
    other.write_text("mine")
    (tmp_path / ".pixaris_sync.prom.new").symlink_to(other)
    textfile.write(None)
    assert other.read_text() == "mine"
    assert not path.is_symlink()
    assert "pixaris_sync_at_work" in path.read_text()


def test_a_folder_that_is_not_there_is_told_once_and_so_is_its_return(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: one warning. Method: two attempts without the folder, two with it, one without it again."""
    folder = tmp_path / "later"
    textfile = Textfile(folder / path.name, Metrics(tmp_path, lambda: (math.inf, math.inf)), unread)
    caplog.set_level(logging.INFO)
    for _ in range(2):
        textfile.write(None)
    folder.mkdir()
    for _ in range(2):
        textfile.write(None)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "No such file or directory" in caplog.messages[0]
    assert "again" in caplog.messages[1]
