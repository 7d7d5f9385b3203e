"""What denies everything alike, before the real command: it rests, is told once, and goes on by itself."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine, Watching
from tests.support.proxy import STREAMS, UPLOADS, Answer, Proxies, Proxy, Request, refusal
from tests.support.stored_runs import PROJECT, Reader, store_run
from tests.support.waiting import eventually

#: The waits between attempts, short enough for a test to see several.
_HASTY = {
    "retry_delay_seconds_min": 0.05,
    "retry_delay_seconds_max": 0.3,
    "table_settle_seconds": 0,
    "doubt_settle_seconds": 1,
}
_NO_STREAMING = "Access Denied: BigQuery BigQuery: Streaming insert is not allowed in the free tier"
_PAGE = Answer(403, b"<html><body>Your request was blocked. Please log in.</body></html>")

#: By kind of trouble: what is answered to bucket and tables, and words of the cause.
_KINDS: dict[str, tuple[Answer, Answer, str]] = {
    "permission": (
        refusal(403, "forbidden", "a@b does not have storage.objects.create access"),
        refusal(403, "accessDenied", "Access Denied: Dataset p:d: permission denied"),
        "ccess",
    ),
    "proxy": (_PAGE, _PAGE, "a proxy or firewall in between answered 403"),
    "proxy without a login": (Answer(407, b""), Answer(407, b""), "answered 407"),
    "page not found": (Answer(404, _PAGE.content), Answer(404, _PAGE.content), "answered 404"),
    "billing": (
        refusal(403, "accountDisabled", "The billing account for the owning project is disabled"),
        refusal(403, "billingNotEnabled", "Billing has not been enabled for this project"),
        "illing",
    ),
}


def _warnings(text: str) -> list[str]:
    return [line for line in text.splitlines() if " WARNING " in line or " ERROR " in line]


class _Denial:
    """Answers every request with a refusal, and counts them."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.count = 0

    def __call__(self, request: Request) -> Answer:
        del request
        self.count += 1
        return self._answer


def _befall(
    watch: Watching,
    command: CommandLine,
    proxy: Proxy,
    pixaris: Reader,
    *,
    answer: Answer,
    words: str,
    count: int,
) -> None:
    """Let a trouble befall a running `watch` while runs come; it must be told once, and pass."""
    told, already = len(_warnings(watch.log())), len(pixaris.runs())
    denial = _Denial(answer)
    proxy.rule = denial
    # Names of their own: a trouble may pass within the second that the handler puts in front of them.
    runs = [store_run(command.folder, f"run-{already + at}") for at in range(count)]
    # As many as are under way at first may be refused at once.
    begun = eventually(lambda: denial.count, "it strikes")
    watch.until(lambda: denial.count >= begun + 4 and len(_warnings(watch.log())) > told, "several tries")
    found = command.status()
    assert found["runs"]["quarantined"] == 0, found
    assert any(words in problem["cause"] for problem in found["problems"]), found
    proxy.rule = lambda _: None
    watch.until(
        lambda: {run.name for run in runs} <= set(pixaris.runs()), f"everything is there after {words}"
    )
    lines = _warnings(watch.log())[told:]
    assert len(lines) == 1, watch.log()
    assert words in lines[0]


def _go_through(
    command: CommandLine,
    proxies: Proxies,
    pixaris: Reader,
    scratch: Path,
    half: str,
    *kinds: str,
    count: int = 4,
) -> None:
    """Let one kind of trouble after another befall one process, which needs nobody's help."""
    command = command.having(**_HASTY)
    of_tables = half == "tables"
    proxy = proxies.bigquery if of_tables else proxies.storage
    store_run(command.folder, "before")
    with Watching(command, scratch) as watch:
        watch.until(pixaris.runs, "the first run is there")
        for kind in kinds:
            of_bucket_answer, of_tables_answer, words = _KINDS[kind]
            answer = of_tables_answer if of_tables else of_bucket_answer
            _befall(watch, command, proxy, pixaris, answer=answer, words=words, count=count)
        watch.until(lambda: command.status()["runs"]["synced"] == 1 + len(kinds) * count, "all are synced")
        watch.until(lambda: command.status()["problems"] == [], "nothing rests any more")
        watch.until(lambda: "works again" in watch.log(), "that is told")
        assert watch.end() == 0, watch.log()
    assert len(pixaris.runs()) == len(set(pixaris.runs())) == 1 + len(kinds) * count


@pytest.mark.parametrize("half", ["bucket", pytest.param("tables", marks=pytest.mark.large)])
def test_watch_rests_while_everything_is_denied_and_goes_on_by_itself(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader, tmp_path: Path, half: str
) -> None:
    """Goal: a role is granted, or takes a while to be in force: `watch` needs no `retry`.

    Method: everything is denied to a running process, then allowed; lines of its log are counted.
    """
    _go_through(proxied, proxies, pixaris, tmp_path, half, "permission")


@pytest.mark.large
@pytest.mark.parametrize("half", ["bucket", "tables"])
def test_watch_outlives_each_kind_of_shared_trouble(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader, tmp_path: Path, half: str
) -> None:
    """Goal: nor for a login to the proxy that is renewed, or billing that is switched on again.

    Method: each kind of trouble in turn for one running process.
    """
    _go_through(proxied, proxies, pixaris, tmp_path, half, *_KINDS)


@pytest.mark.large
@pytest.mark.parametrize("half", ["bucket", "tables"])
def test_500_runs_that_are_denied_are_one_line(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader, tmp_path: Path, half: str
) -> None:
    """Goal: the log does not grow with what waits. Method: the same with 500 runs."""
    _go_through(proxied, proxies, pixaris, tmp_path, half, "permission", count=500)


@pytest.mark.large
def test_granting_a_role_lets_the_next_sync_go_on(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader
) -> None:
    """Goal: the remedy that is named is all that is needed, and 4 says that somebody must act.

    Method: passes while bucket, then tables, are denied; the role is granted; a pass. No `retry`.
    """
    hasty = proxied.having(**_HASTY, sync_attempts_limit=2)
    runs = [store_run(proxied.folder, f"run-{at}") for at in range(3)]
    hasty.sync()
    for pattern, answer, hint in (
        (UPLOADS, _KINDS["permission"][0], "grant storage.objects.create on bucket"),
        (r".", _KINDS["permission"][1], "grant the roles BigQuery Data Editor"),
    ):
        runs += [store_run(proxied.folder, f"more-{len(runs)}-{at}") for at in range(3)]
        half = proxies.storage if pattern is UPLOADS else proxies.bigquery

        def deny(request: Request, pattern: str = pattern, answer: Answer = answer) -> Answer | None:
            return answer if request.matches(pattern) else None

        half.rule = deny
        outcome = hasty.run("sync", "--json")
        assert outcome.code == 4, str(outcome)
        assert outcome.document["runs"]["quarantined"] == 0
        assert len(_warnings(outcome.stderr)) == 1
        assert any(hint in problem["hint"] for problem in outcome.document["problems"])
        half.rule = lambda _: None
        assert hasty.sync()["problems"] == []
        assert sorted(pixaris.runs()) == sorted(run.name for run in runs)


@pytest.mark.large
def test_a_table_that_may_not_be_altered_rests_and_others_do_not(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader
) -> None:
    """Goal: only what needs the change waits, told once. Method: ALTER TABLE is denied, then allowed."""
    hasty = proxied.having(**_HASTY, sync_attempts_limit=3)
    store_run(proxied.folder, "before")
    hasty.sync()
    plain = [store_run(proxied.folder, f"plain-{at}") for at in range(3)]
    needy = [store_run(proxied.folder, f"needy-{at}", args={"more": "x"}) for at in range(5)]
    other = store_run(proxied.folder, "other", dataset="elsewhere")

    def deny(request: Request) -> Answer | None:
        return _KINDS["permission"][1] if request.mentions("ALTER TABLE") else None

    proxies.bigquery.rule = deny
    outcome = hasty.run("sync", "--json")

    assert outcome.code == 4, str(outcome)
    assert outcome.document["runs"]["quarantined"] == 0
    assert len(_warnings(outcome.stderr)) == 1, outcome.stderr
    assert {run.name for run in plain} <= set(pixaris.runs())
    assert not {run.name for run in needy} & set(pixaris.runs())
    assert pixaris.runs(PROJECT, "elsewhere") == [other.name]
    proxies.bigquery.rule = lambda _: None
    assert hasty.sync()["problems"] == []
    assert len(pixaris.runs()) == 9


@pytest.mark.large
def test_a_project_without_billing_takes_load_jobs(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader
) -> None:
    """Goal: no run is quarantined for that streaming is not free, said once.

    Method: streaming is refused as Google does it, over two passes; then allowed, and used again.
    """
    hasty = proxied.having(**_HASTY, stream_rows_limit=1)
    runs = [store_run(proxied.folder, "before")]
    hasty.sync()
    refused = refusal(403, "accessDenied", _NO_STREAMING)
    proxies.bigquery.rule = lambda request: refused if request.matches(STREAMS) else None
    for at in range(2):
        runs += [store_run(proxied.folder, f"run-{at}-{number}") for number in range(4)]
        outcome = hasty.run("sync")
        assert outcome.code == 0, str(outcome)
        [line] = _warnings(outcome.stderr)
        assert _NO_STREAMING in line
        assert "rows go by load jobs" in line
        assert sorted(pixaris.runs()) == sorted(run.name for run in runs)
    assert proxies.bigquery.count(STREAMS) <= 2

    proxies.bigquery.rule = lambda _: None
    proxies.forget()
    runs.append(store_run(proxied.folder, "streamed"))
    assert hasty.run("sync").code == 0
    assert proxies.bigquery.count(STREAMS) == 1
    assert sorted(pixaris.runs()) == sorted(run.name for run in runs)


_Spoil = Callable[[CommandLine, Proxies], CommandLine]


def _refusing(answer: Answer) -> _Spoil:
    def spoil(command: CommandLine, proxies: Proxies) -> CommandLine:
        proxies.storage.rule = lambda _: answer
        return command

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        lambda command, _: command.but(PIXARIS_SYNC_GCP_PIXARIS_BUCKET_NAME="missing_one"),
        lambda command, _: command.but(PIXARIS_SYNC_GCP_BQ_EXPERIMENT_DATASET="missing_one"),
        _refusing(refusal(401, "authError", "Invalid Credentials")),
        _refusing(refusal(400, "invalid", "Invalid bucket name: 'no bucket'")),
        _refusing(refusal(400, "required", "Bucket is requester pays bucket but no user project provided.")),
    ],
    ids=["bucket", "dataset", "credentials", "bucket name", "requester pays"],
)
def test_a_destination_that_cannot_be_used_is_told_before_any_work(
    proxied: CommandLine, proxies: Proxies, tmp_path: Path, spoil: _Spoil
) -> None:
    """Goal: 4 also where there is nothing to do, and no service that is ready for ever.

    Method: a pass over an empty folder; then a service with a run, of which nothing may be sent.
    """
    command = spoil(proxied, proxies).having(**_HASTY)
    outcome = command.run("sync")
    assert outcome.code == 4, str(outcome)
    assert "hint: " in outcome.stderr
    store_run(proxied.folder)
    with Watching(command, tmp_path) as watch:
        eventually(watch.has_ended, "watch has ended")
        assert watch.process.returncode == 4, watch.log()
        assert watch.told("READY") == []
    assert (proxies.uploads, proxies.deliveries) == (0, 0)
