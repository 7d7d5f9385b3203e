"""Rows that a network or a proxy holds back when their sender is killed or gives up."""

import subprocess

import pytest

from tests.support.command_line import CommandLine
from tests.support.proxy import STREAMS, Held, Proxies, Request
from tests.support.stored_runs import Reader, store_run
from tests.support.waiting import eventually

SETTINGS = {"table_settle_seconds": 0, "doubt_settle_seconds": 1, "request_timeout_seconds": 1}
#: Later than rows in doubt are looked for, and than they are sent again.
LATE_SECONDS = 15.0
SOON_SECONDS = 0.3


def hold(proxies: Proxies, held: Held) -> None:
    """Hold the next streaming insert back, and no other."""
    left = [held]

    def rule(request: Request) -> Held | None:
        return left.pop() if left and request.matches(STREAMS) else None

    proxies.set_rule(rule)


def kill_while_held(proxied: CommandLine, proxies: Proxies) -> None:
    with proxied.start("sync", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        eventually(lambda: proxies.bigquery.held, "the rows are on their way")
        process.kill()


@pytest.mark.parametrize(
    "killed",
    [pytest.param(True, id="killed"), pytest.param(False, id="out of time", marks=pytest.mark.large)],
)
def test_packets_that_were_held_back_bring_no_row_twice(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader, *, killed: bool
) -> None:
    """Goal: no request outlives its sender.

    Method: packets of a streaming insert are on their way for longer than the process lives, or waits; the
    row is sent again, and nothing is left that could still arrive.
    """
    proxied = proxied.having(**SETTINGS)
    first = store_run(proxied.folder, "first")
    proxied.sync()
    second = store_run(proxied.folder, "second")
    hold(proxies, Held(LATE_SECONDS, whole=False))
    if killed:
        kill_while_held(proxied, proxies)

    assert proxied.sync()["rows_synced"] == 1

    assert (proxies.bigquery.held, proxies.bigquery.dropped, proxies.bigquery.let_go) == (0, 1, 0)
    assert pixaris.runs() == sorted([first.name, second.name])


@pytest.mark.large
def test_rows_that_a_proxy_passes_on_late_are_found(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader
) -> None:
    """Goal: what a reset cannot take back is waited for. Method: a proxy passes an insert on after a kill."""
    proxied = proxied.having(**SETTINGS)
    first = store_run(proxied.folder, "first")
    proxied.sync()
    second = store_run(proxied.folder, "second")
    hold(proxies, Held(SOON_SECONDS, whole=True))
    kill_while_held(proxied, proxies)
    deliveries = proxies.deliveries

    assert proxied.sync()["rows_synced"] == 1

    assert (proxies.bigquery.held, proxies.bigquery.dropped, proxies.bigquery.let_go) == (0, 0, 1)
    assert proxies.deliveries == deliveries
    assert pixaris.runs() == sorted([first.name, second.name])
