"""Where a command reads and prints, whatever environment it was started in.

File names are bytes, which only UTF-8 gives back as they are, whatever locale is set; and what is printed may
not be in the terminal's character set, or there may be nobody who reads it: neither breaks any work.
"""

import codecs
import io
import locale
import os
import sys
from contextlib import suppress
from typing import Final

#: Open without anybody's help wherever a process was begun with care.
_STANDARD: Final = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
#: Tells a process that it was begun anew, and what its terminal's character set is.
_BEGUN_ANEW: Final = "PIXARIS_SYNC_TERMINAL_ENCODING"


def prepare_streams() -> None:
    """Open what was closed, take file names as bytes, and print what cannot be encoded as escapes.

    Under a locale that is not of UTF-8 the process begins anew in Python's UTF-8 mode.
    """
    _open_closed()
    encoding = os.environ.pop(_BEGUN_ANEW, None)
    if encoding is None and _is_other(sys.getfilesystemencoding()):
        os.environ[_BEGUN_ANEW] = locale.getencoding()
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - itself
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=encoding, errors="backslashreplace")


def _is_other(encoding: str) -> bool:
    with suppress(LookupError):
        return codecs.lookup(encoding).name != "utf-8"
    return True


def _open_closed() -> None:
    """Let what is closed lead nowhere: else a file that is opened later would get its number and its text."""
    for number, (name, mode) in enumerate(_STANDARD):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free, which is this one.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
