"""The log of a command, for people and for machines."""

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from google.api_core import client_logging

from pixaris_sync.cli.console import logs_json, set_up_logging

_HOSTILE = "a\n2026 ERROR b\x1b[2J\u202e\udcff"


@pytest.fixture(autouse=True)
def logging_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is set up for the whole process is gone after each test."""
    loggers = [logging.getLogger(name) for name in ("", "pixaris_sync", "google")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    # `basicConfig` closes what is there, which is pytest's.
    loggers[0].handlers = []
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    yield
    logging.captureWarnings(capture=False)
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers = handlers
        logger.setLevel(level)
        logger.propagate = propagate


def _objects(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    text = capsys.readouterr().err
    assert text.isascii()
    return [json.loads(line) for line in text.splitlines()]


def _fail() -> None:
    raise ValueError(_HOSTILE)


def test_libraries_and_warnings_go_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: nothing on stderr is something else. Method: a library logs, and Python warns."""
    set_up_logging("info", "json")
    client_logging.initialize_logging()  # type: ignore[no-untyped-call] # Google's
    logging.getLogger("google.auth").warning("no %s", "quota project")
    logging.getLogger("google.auth").info("not told")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    first, second = _objects(capsys)
    assert (first["logger"], first["level"], first["message"]) == (
        "google.auth",
        "WARNING",
        "no quota project",
    )
    assert second["logger"] == "py.warnings"
    assert "DeprecationWarning: old" in second["message"]


def test_an_exception_is_one_field(capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: a traceback is no broken line. Method: one that is logged, and one that nobody catches."""
    set_up_logging("info", "json")
    log = logging.getLogger("pixaris_sync.test")
    try:
        _fail()
    except ValueError as error:
        log.exception("it failed", extra={"run": _HOSTILE})
        sys.excepthook(ValueError, error, error.__traceback__)
    logged, uncaught = _objects(capsys)
    assert "Traceback (most recent call last):\n" in logged["exception"]
    assert "\\udcff" in logged["exception"]
    assert logged["run"] == _HOSTILE.replace("\udcff", "\\udcff")
    assert (uncaught["level"], uncaught["message"]) == ("CRITICAL", "ended by an exception")
    assert uncaught["exception"] == logged["exception"]


def test_lines_for_people_obey_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: a name is a name. Method: one that would forge a line, clear the screen and turn the text."""
    set_up_logging("info")
    log = logging.getLogger("pixaris_sync.test")
    log.warning("run %s", _HOSTILE)
    try:
        _fail()
    except ValueError:
        log.exception("it failed")
    line, failed, *trace = capsys.readouterr().err.splitlines()
    assert line.endswith(r" WARNING run a\n2026 ERROR b\x1b[2J\u202e\udcff")
    assert failed.endswith(" ERROR it failed")
    assert trace[-1] == r"  2026 ERROR b\x1b[2J\u202e\udcff"
    assert all(line.startswith("  ") for line in trace)
    assert not logs_json()
