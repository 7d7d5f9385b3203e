"""The real command in the test's own process: hundreds of calls in the time of a few processes."""

import sys
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
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        assert isinstance(code, int)
        return int(code), self.capsys.readouterr().err
