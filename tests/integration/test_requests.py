"""What requests say, where they go, and what becomes of upload sessions that end."""

import re
from random import Random

import pytest
from PIL import Image

from pixaris_sync import USER_AGENT
from pixaris_sync.cli.exits import Exit
from tests.support.command_line import CommandLine
from tests.support.proxy import Answer, Proxies, Proxy, Request, Rule, refusal, unavailable
from tests.support.stored_runs import Reader, run_objects, store_run

_QUICK = {
    "sync_attempts_limit": 1,
    "doubt_settle_seconds": 0.1,
    "table_settle_seconds": 0,
    "retry_delay_seconds_min": 0.05,
    "retry_delay_seconds_max": 0.05,
}
_SESSION = re.compile(r"upload_id=([^&\s]+)")


@pytest.mark.large
def test_redirects_are_refused(proxied: CommandLine, proxies: Proxies, pixaris: Reader) -> None:
    """Goal: nothing is sent to where an answer leads, and no answer from there is believed.

    Method: one service after the other redirects everything, to another host, where all would work, or to
    itself; it passes by itself, like everything that a proxy says in a service's place.
    """
    quick = proxied.having(**_QUICK | {"sync_attempts_limit": 4})
    stored: list[str] = []
    with Proxy(proxies.storage._upstream) as objects, Proxy(proxies.bigquery._upstream) as rows:
        for proxy, elsewhere in ((proxies.storage, objects), (proxies.bigquery, rows)):
            stored.append(store_run(quick.folder, f"run {len(stored)}").name)
            proxy.seen.clear()
            proxy.rule = _redirects(proxy, elsewhere.url)
            outcome = quick.run("sync", "--json")
            assert outcome.code == Exit.WORK_LEFT, str(outcome)
            assert "redirects to another address" in outcome.stdout + outcome.stderr
            assert len(proxy.seen) >= 4
            assert not elsewhere.seen
            proxy.rule = lambda _: None
            quick.sync()
            assert sorted(pixaris.runs()) == sorted(stored)


def _redirects(proxy: Proxy, host: str) -> Rule:
    """Redirect in every way, one after another."""
    ways = ((302, host), (307, host), (308, host), (307, ""))

    def rule(request: Request) -> Answer:
        status, there = ways[len(proxy.seen) % len(ways)]
        return Answer(status, b"{}", {"Location": f"{there}{request.target}"})

    return rule


def test_a_session_that_ended_is_replaced_by_a_new_one(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader
) -> None:
    """Goal: no answer of an upload session costs more than the session.

    Method: uploads break off in the middle; the next pass finds their sessions expired, cancelled, or ended
    in a way that nobody told of, one each.
    """
    ends = [400, 404, 410, 422, 499]
    pixels = Random(1).randbytes(400 * 300 * 3)  # noqa: S311 - pixels that do not compress
    image = Image.frombytes("RGB", (400, 300), pixels)
    names = [f"{end}.png" for end in ends]
    run = store_run(proxied.folder, images=[(image, name) for name in names])
    machine = proxied.having(**_QUICK, resumable_threshold_bytes=262144, chunk_bytes=262144)
    sessions: list[str] = []

    def break_off(request: Request) -> Answer | None:
        if request.method != "PUT":
            return None
        [session] = _SESSION.findall(request.target)
        if session in sessions:
            return unavailable()
        sessions.append(session)
        return None

    proxies.storage.rule = break_off
    machine.sync(expect=Exit.WORK_LEFT)
    assert len(sessions) == len(ends)

    def end(request: Request) -> Answer | None:
        [session] = _SESSION.findall(request.target) or [""]
        if request.method != "PUT" or session not in sessions:
            return None
        return refusal(ends[sessions.index(session)], "ended", "the session is of no more use")

    proxies.storage.rule = end
    assert machine.sync()["runs"]["synced"] == 1
    assert run_objects(run, *(f"generated_images/{name}" for name in names)) <= pixaris.objects().keys()


def test_every_request_names_the_program_and_its_version(proxied: CommandLine, proxies: Proxies) -> None:
    """Goal: who runs the services can tell who asks. Method: everything that two commands send."""
    store_run(proxied.folder, args={"flow": {"a": 1}})
    proxied.sync()
    assert proxied.run("verify").code == Exit.OK
    for proxy in (proxies.storage, proxies.bigquery):
        assert proxy.seen
        assert {request.agent.split()[0] for request in proxy.seen} == {USER_AGENT}
    assert re.fullmatch(r"pixaris-sync/[0-9]+\.[0-9]+\.[0-9]+\S*", USER_AGENT)
