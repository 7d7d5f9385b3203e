"""What is said of a folder in which nothing can be done."""

import errno
import os
from pathlib import Path

import pytest

from pixaris_sync.errors import OPEN_FILES_HINT
from pixaris_sync.local.presence import AbsentError, Presence


@pytest.mark.parametrize(
    ("code", "hint"), [(errno.EMFILE, OPEN_FILES_HINT), (errno.EIO, "mount its disk again")]
)
def test_the_hint_is_about_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, hint: str
) -> None:
    """Goal: nobody mounts a disk for want of open files. Method: the system refuses to list the folder."""

    def refuse(_: object) -> object:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "scandir", refuse)

    absent = Presence(tmp_path).away()

    assert isinstance(absent, AbsentError)
    assert absent.cause == os.strerror(code)
    assert absent.hint.startswith(hint)
    assert absent.whole
