"""What all tests share."""

from collections.abc import Generator, Iterator

import pytest

from tests.support.secrets import secrets_in, secrets_in_ledgers


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio: the Google clients know no other event loop."""
    return "asyncio"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test whose captured output or log holds one of the secrets that tests hand out."""
    report = yield
    if call.when == "teardown" and report.passed:
        found = secrets_in("\n".join(content for _, _, content in item._report_sections))
        if found:
            report.outcome, report.longrepr = "failed", f"captured output holds secrets: {found}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _no_ledger_keeps_a_secret(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Search the ledgers that the whole run has left behind."""
    yield
    assert secrets_in_ledgers(tmp_path_factory.getbasetemp()) == []
