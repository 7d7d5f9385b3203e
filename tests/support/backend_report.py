"""On which backends the contract suites ran, told after a test run; with failures, the backend's log."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import pytest
from _pytest.terminal import TerminalReporter

_PROPERTY = "contract backend"
_LOG = pytest.StashKey[tuple[Path, int]]()
_LOG_BYTES = 8192
_NOT_RUN = "NOT RUN"

#: What pytest calls the outcomes, and how they are told here.
_OUTCOMES: Mapping[str, str] = {
    "passed": "passed",
    "xpassed": "passed",
    "xfailed": "different from the service",
    "failed": "FAILED",
    "error": "in ERROR",
    "skipped": "not run",
}


def note_backend(item: pytest.Item, backend: str) -> None:
    """Note which suite a test belongs to and which backend it runs on: ``<suite> on <backend>``."""
    item.user_properties.append((_PROPERTY, backend))


def note_log(item: pytest.Item, log: Path) -> None:
    """Note where a backend writes its log; what it wrote until now is no business of the test."""
    item.stash[_LOG] = (log, log.stat().st_size)


def skip_backend(reason: str) -> NoReturn:
    """Skip a test because its backend cannot be had."""
    pytest.skip(f"{_NOT_RUN}: {reason}")


def fold(report: pytest.TestReport) -> None:
    """Let all tests that a missing backend skips be told in one line: their places are of no interest."""
    if report.skipped and isinstance(report.longrepr, tuple) and _NOT_RUN in report.longrepr[2]:
        report.longrepr = (__file__, 1, report.longrepr[2])


def add_log(item: pytest.Item, report: pytest.TestReport) -> None:
    """Show what a backend wrote to its log during a test that failed."""
    if report.failed and item.stash.get(_LOG, None) is not None:
        log, offset = item.stash[_LOG]
        written = log.read_bytes()[offset:][-_LOG_BYTES:].decode(errors="replace")
        report.sections.append((log.name, written))


def summarise(reporter: TerminalReporter, missing: Mapping[str, str]) -> None:
    """Write one line for each backend of the suites that were run.

    Args:
        reporter: where to.
        missing: backends that cannot be run, and why.
    """
    counts: dict[str, Counter[str]] = {}
    for outcome, reports in reporter.stats.items():
        for report in reports:
            backend = dict(getattr(report, "user_properties", ())).get(_PROPERTY)
            if backend is not None and outcome in _OUTCOMES:
                counts.setdefault(str(backend), Counter())[outcome] += 1
    suites = {_suite(backend) for backend in counts}
    missing = {backend: reason for backend, reason in missing.items() if _suite(backend) in suites}
    if suites:
        reporter.section("contract suites, by backend")
    for backend, counted in sorted(counts.items()):
        if backend not in missing:
            told = ", ".join(f"{counted[key]} {words}" for key, words in _OUTCOMES.items() if counted[key])
            reporter.write_line(f"{backend}: {told}")
    for backend, reason in sorted(missing.items()):
        reporter.write_line(f"{backend}: {_NOT_RUN}: {reason}", yellow=True, bold=True)


def _suite(backend: str) -> str:
    return backend.partition(" ")[0]
