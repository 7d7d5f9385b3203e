"""The real command in the test's own process: hundreds of calls in the time of a few processes."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from pixaris_sync.cli.app import main


@dataclass(frozen=True, slots=True)
class InProcess:
    """Calls of the command, with this process's environment."""

    capsys: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch

    def run(self, *arguments: str) -> tuple[int, str]:
        """Run it; its exit code and what it printed on stderr."""
        self.monkeypatch.setattr(sys, "argv", ["pixaris-sync", *arguments])
        with _logging_kept(), pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        assert isinstance(code, int)
        return int(code), self.capsys.readouterr().err


@contextmanager
def _logging_kept() -> Iterator[None]:
    """Give other tests their logging back, which a command sets up for its own process."""
    loggers = logging.getLogger(), logging.getLogger("pixaris_sync")
    levels, handlers = [logger.level for logger in loggers], list(loggers[0].handlers)
    try:
        yield
    finally:
        loggers[0].handlers[:] = handlers
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
