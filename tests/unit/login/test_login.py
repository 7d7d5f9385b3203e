"""One token for all who ask, got once; and who one is."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from pixaris_sync.errors import ConfigurationError, Failure, SyncError
from pixaris_sync.login.login import Login
from tests.support.google import POOL, ROBOT, TARGET, external, impersonating, robot, workforce
from tests.support.scripted_bigquery import Answer, Asked, ScriptedBigQuery, scripted_bigquery
from tests.support.scripted_gcs import ENVIRONMENT, unused_port
from tests.support.secrets import ask_no_other_host, authorized_user, secrets_in
from tests.support.waiting import eventually

REFUSED = Answer(400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."})


@pytest.fixture
def service() -> Iterator[ScriptedBigQuery]:
    """A token service."""
    with scripted_bigquery() as running:
        yield running


@pytest.fixture
def file(service: ScriptedBigQuery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's login, whose tokens the service gives."""
    for name in (*ENVIRONMENT, "GOOGLE_CLOUD_UNIVERSE_DOMAIN", "GOOGLE_CLOUD_QUOTA_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    ask_no_other_host(partial(monkeypatch.setattr, raising=False))
    path = tmp_path / "credentials.json"
    path.write_text(json.dumps(authorized_user(f"{service.url}/token")))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    return path


@pytest.fixture
def login(file: Path) -> Iterator[Login]:
    assert file.exists()
    login = Login(timeout_seconds=5)
    yield login
    login.close()


def tokens_asked(service: ScriptedBigQuery) -> int:
    return [asked.path for asked in service.asked].count("/token")


def ask_together(login: Login, count: int = 8) -> list[str | SyncError]:
    """What so many threads get that ask at once."""
    barrier = threading.Barrier(count)

    def ask(_: int) -> str | SyncError:
        barrier.wait()
        try:
            return login.token(wanted_since=0)
        except SyncError as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(ask, range(count)))


def test_all_who_ask_share_one_token(login: Login, service: ScriptedBigQuery) -> None:
    """Goal: one request for both halves. Method: many threads ask at once, and again later."""
    assert login.fresh() is None
    tokens = ask_together(login)
    assert {*tokens, login.fresh(), login.token()} == {tokens[0]}
    assert tokens_asked(service) == 1


def test_all_who_wait_share_one_failure(login: Login, service: ScriptedBigQuery) -> None:
    """Goal: a service that hangs is waited for once. Method: many threads at once; the next one asks anew."""
    service.token = Answer(503, {})
    failures = ask_together(login)
    assert {error.failure for error in failures if isinstance(error, SyncError)} == {Failure.TRANSIENT}
    assert len({id(error) for error in failures}) == len(failures)
    assert tokens_asked(service) == 1
    with pytest.raises(SyncError):
        login.token()
    assert tokens_asked(service) == 2


def test_a_token_is_renewed_ahead_of_its_end(login: Login, service: ScriptedBigQuery) -> None:
    """Goal: no request carries a token that ends on its way. Method: one that lives for a second."""
    service.token = Answer(body={"access_token": "secret-token-1", "expires_in": 1})
    login.token()
    eventually(lambda: login.fresh() is None, "its time is over")
    login.token()
    assert tokens_asked(service) == 2


def test_a_refused_token_is_dropped_with_its_login(
    login: Login, service: ScriptedBigQuery, file: Path
) -> None:
    """Goal: who logs in again is done. Method: refuse a token, an older one, and another login meanwhile."""
    first = login.token()
    login.refuse("another")
    assert login.token() == first
    file.write_text(file.read_text().replace('"refresh_token": "', '"refresh_token": "another'))
    login.refuse(first)
    login.token()
    assert b"refresh_token=another" in service.asked[-1].body


def test_a_refusal_is_told_once_and_then_the_file_is_read_anew(
    login: Login, service: ScriptedBigQuery
) -> None:
    """Goal: no circle. Method: a refusal, and a service that takes the same login afterwards."""
    good, service.token = service.token, REFUSED
    with pytest.raises(ConfigurationError) as caught:
        login.token()
    assert caught.value.failure is Failure.CREDENTIALS
    service.token = good
    assert login.token()


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_service_in_trouble_is_asked_once(login: Login, service: ScriptedBigQuery, status: int) -> None:
    """Goal: when to try again is decided elsewhere. Method: answers that Google's library would repeat."""
    service.token = Answer(status, {"error": "server_error"}, {"Retry-After": "7"})
    with pytest.raises(SyncError) as caught:
        login.token()
    assert caught.value.failure is (Failure.QUOTA if status == 429 else Failure.TRANSIENT)
    assert caught.value.retry_after_seconds == 7
    assert tokens_asked(service) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(403, b"<html>blocked</html>"), "a proxy or firewall in between answered 403"),
        (Answer(407, b""), "a proxy or firewall in between answered 407"),
        (Answer(451, {"error": "x"}), "a proxy or firewall in between answered 451"),
        (Answer(200, b"<html>log in</html>"), "the answer cannot be read"),
        (Answer(302, b"", {"Location": "http://elsewhere.invalid/"}), "redirects to another address"),
        (Answer(way="drop"), "no connection can be made, or it broke"),
    ],
)
def test_what_is_in_between_is_no_refusal(
    login: Login, service: ScriptedBigQuery, answer: Answer, words: str
) -> None:
    """Goal: nobody renews a login for a proxy's page. Method: answers that no token service gives."""
    service.token = answer
    with pytest.raises(SyncError) as caught:
        login.token()
    assert caught.value.failure is Failure.TRANSIENT
    assert words in caught.value.cause


def test_a_service_that_hangs_is_given_up(file: Path, service: ScriptedBigQuery) -> None:
    """Goal: no acquisition outlasts its limit. Method: a token request that is never answered."""
    assert file.exists()
    service.token = Answer(way="hang")
    login = Login(timeout_seconds=0.2)
    with pytest.raises(SyncError) as caught:
        login.token()
    assert (caught.value.failure, caught.value.cause) == (
        Failure.TRANSIENT,
        "no answer within the time limit",
    )


def test_who_one_is_without_secrets(login: Login, file: Path, service: ScriptedBigQuery) -> None:
    """Goal: people see in whose name it works. Method: a login that is good, refused, and gone."""
    content = json.loads(file.read_text()) | {"account": "somebody@example.com", "quota_project_id": "payer"}
    file.write_text(json.dumps(content))
    told = login.whoami()
    assert (told.kind, told.principal, told.source) == ("user", "somebody@example.com", str(file))
    assert (told.named, told.universe, told.quota_project) == (True, "googleapis.com", "payer")
    assert told.failure is None
    assert told.expires_at is not None
    assert 3500 < told.expires_at - time.time() <= 3600

    login.refuse(login.fresh())
    service.token = REFUSED
    refused = login.whoami()
    assert (refused.kind, refused.principal, refused.expires_at) == ("user", "somebody@example.com", None)
    assert refused.failure is not None
    assert refused.failure.failure is Failure.CREDENTIALS

    file.unlink()
    gone = login.whoami()
    assert (gone.kind, gone.principal, gone.source) == ("", "", "")
    assert gone.failure is not None
    assert "does not exist" in gone.failure.cause
    assert secrets_in(f"{told} {refused} {gone}") == []


@pytest.mark.parametrize(
    ("content", "kind", "principal"),
    [
        (robot, "service account key", ROBOT),
        (lambda: impersonating(robot()), "impersonated service account", TARGET),
        (lambda: external({"file": "/nowhere"}, acts=True), "workload identity federation", TARGET),
        (lambda: external({"file": "/nowhere"}), "workload identity federation", POOL),
        (workforce, "workforce identity", workforce()["audience"]),
    ],
)
def test_each_kind_tells_its_account_though_it_is_refused(
    login: Login, file: Path, monkeypatch: pytest.MonkeyPatch, content: object, kind: str, principal: str
) -> None:
    """Goal: one sees which account to mend. Method: logins whose token services cannot be reached."""
    assert callable(content)
    file.write_text(json.dumps(content()))
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{unused_port()}")
    told = login.whoami()
    assert (told.kind, told.principal) == (kind, principal)
    assert told.failure is not None


def test_a_login_of_another_universe_is_refused_while_it_works(login: Login, file: Path) -> None:
    """Goal: tokens of one cloud are not shown to another. Method: another login in the place of the first."""
    assert login.api_root("storage") == "https://storage.googleapis.com"
    token = login.token()
    file.write_text(json.dumps(json.loads(file.read_text()) | {"universe_domain": "example.com"}))
    login.refuse(token)
    with pytest.raises(ConfigurationError) as caught:
        login.token()
    assert "it is of the universe domain example.com" in caught.value.cause


def test_asked_with(login: Login, service: ScriptedBigQuery) -> None:
    """Goal: the service sees the program, and no cookie or netrc login. Method: the request's headers."""
    login.token()
    asked: Asked = service.asked[0]
    assert asked.headers["User-Agent"].startswith("pixaris-sync/")
    assert "Authorization" not in asked.headers
