"""What all tests share, and the search of the whole run for secrets that tests handed out."""

import os
import signal
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pandas  # noqa: F401, ICN001 - Google's client finds it at its first import by any test, or never
import pytest
from _pytest.terminal import TerminalReporter

from tests.support import proof_summary
from tests.support.secrets import secrets_in, secrets_in_ledgers

_TESTS = Path(__file__).parent

#: Set by .ci/run. Without it tests that are marked as large are left out, so that a person waits less.
LARGE_TOO = os.environ.get("PIXARIS_SYNC_TEST_LARGE") == "1"

#: Folders that begin first where several processes share the tests: some files there are one test of minutes.
#: Begun last, it would leave the other cores idle; the many short files of other folders fill them up.
LONG_FIRST = ("crash", "fuzz", "engine", "integration")

#: For the same tests once more, under another Python: `--hypothesis-profile=few`. None fails for being slow.
hypothesis.settings.register_profile("few", hypothesis.settings.get_profile("ci"), max_examples=10)


def pytest_configure() -> None:
    """Let Ctrl+C reach what tests start, also where a shell in the background lets it be ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than cores: tests wait for processes and disks for a sixth of their time."""
    return len(os.sched_getaffinity(0)) + 1


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = {item for item in items if item.get_closest_marker("large") and not LARGE_TOO}
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
    if hasattr(config, "workerinput"):
        items.sort(key=_rank)


def _rank(item: pytest.Item) -> int:
    folder = item.path.relative_to(_TESTS).parts[0]
    return LONG_FIRST.index(folder) if folder in LONG_FIRST else len(LONG_FIRST)


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio: the Google clients know no other event loop."""
    return "asyncio"


@pytest.fixture
def tell(record_property: proof_summary.Record) -> proof_summary.Tell:
    """Tell what a test has done for a proof."""
    return proof_summary.telling(record_property)


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    proof_summary.summarise(terminalreporter)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test with a secret in what it printed or logged, once all of that is known."""
    report = yield
    if report.when != "teardown" or not report.passed:
        return report
    found = secrets_in("\n".join(text for _, text in report.sections))
    if found:
        report.outcome = "failed"
        report.longrepr = f"printed or logged: {found}"
    return report


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run where a ledger that it leaves behind holds a secret in a place that is not for it."""
    factory = getattr(session.config, "_tmp_path_factory", None)
    folder: Path | None = getattr(factory, "_basetemp", None)
    found = secrets_in_ledgers(folder) if folder is not None else []
    if found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"secrets in ledgers: {found}", red=True)
