"""The real command in the test's own process: hundreds of calls in the time of a few processes."""

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass

import pytest

from pixaris_sync.cli.app import main
from tests.support.command_line import CommandLine, Outcome


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


class CommandLineInProcess(CommandLine):
    """The same command line, but `run` starts no process unless it has to: others are for `start`.

    Processes of their own are for what a process is about: signals, terminals, crashes, file modes.
    """

    def _run(self, *arguments: str, powerless: bool) -> Outcome:
        if powerless or self._around:
            return super()._run(*arguments, powerless=powerless)
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
        with (
            pytest.MonkeyPatch.context() as patch,
            warnings.catch_warnings(),
            _logging_kept(),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            # As outside of pytest; what it makes of warnings is about the tests' own calls.
            warnings.simplefilter("ignore")
            for name in os.environ.keys() - self.environment.keys():
                patch.delenv(name)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["pixaris-sync", *arguments])
            with pytest.raises(SystemExit) as ended:
                main()
            logging.captureWarnings(capture=False)
        code = ended.value.code
        assert isinstance(code, int)
        return Outcome(int(code), *(_text(stream) for stream in (out, err)))


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    content = stream.buffer
    assert isinstance(content, io.BytesIO)
    return content.getvalue().decode()


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
