"""How GcsObjectStore gets, renews and misses access tokens."""

import json
import time
from pathlib import Path

import anyio
import pytest
from aiohttp import web

from pixaris_sync.errors import ConfigurationError, Failure
from pixaris_sync.gcs.store import CHUNK_UNIT_BYTES, GcsObjectStore
from pixaris_sync.login.login import Login
from tests.support.scripted_gcs import (
    CONTENT,
    Handler,
    Script,
    breaks,
    failure_of,
    gives_object,
    hangs,
    open_store,
    refuses,
    says,
    serve_script,
    unused_port,
    upload,
)
from tests.support.secrets import authorized_user

pytestmark = pytest.mark.anyio


class TestTokens:
    async def test_one_unauthorized_answer_is_met_with_a_fresh_token(
        self, store: GcsObjectStore, script: Script
    ) -> None:
        """Goal: an expired token is no failure. Method: 401 once, then the object."""
        script.answers = [refuses(401, "authError"), gives_object()]
        assert (await upload(store)).generation == 7
        assert [seen.authorization for seen in script.seen] == [
            "Bearer secret-token-1",
            "Bearer secret-token-2",
        ]
        assert script.seen[0].body.count(CONTENT) == script.seen[1].body.count(CONTENT) == 1

    async def test_a_second_unauthorized_answer_is_final(self, store: GcsObjectStore, script: Script) -> None:
        """Goal: revoked access ends in a clear error. Method: 401 twice."""
        script.answers = [refuses(401, "authError")] * 2
        error = await failure_of(upload(store))
        assert isinstance(error, ConfigurationError)
        assert error.failure is Failure.CREDENTIALS
        assert "gcloud auth application-default login" in error.hint
        assert len(script.seen) == 2

    async def test_requests_that_fail_together_take_one_fresh_token(
        self, store: GcsObjectStore, script: Script
    ) -> None:
        """Goal: a machine that wakes up asks once. Method: two requests refused for the same token."""
        both_arrived = anyio.Event()

        async def refuse_both(request: web.Request) -> web.StreamResponse:
            if len(script.seen) == 2:
                both_arrived.set()
            await both_arrived.wait()
            return await refuses(401)(request)

        script.answers = [refuse_both, refuse_both, gives_object(), gives_object()]
        async with anyio.create_task_group() as group:
            group.start_soon(upload, store)
            group.start_soon(upload, store)
        assert script.tokens == 2

    @pytest.mark.parametrize(
        ("answer", "failure"),
        [
            (says(400, {"error": "invalid_grant", "error_description": "revoked"}), Failure.CREDENTIALS),
            (says(401, {"error": "invalid_client"}), Failure.CREDENTIALS),
            (says(429), Failure.QUOTA),
            (says(503), Failure.TRANSIENT),
            (says(200, b"<html>please log in</html>"), Failure.TRANSIENT),
            (breaks, Failure.TRANSIENT),
        ],
    )
    async def test_a_refused_token_request_is_classified_and_not_repeated(
        self, store: GcsObjectStore, script: Script, answer: Handler, failure: Failure
    ) -> None:
        """Goal: revoked is told from unreachable, at once. Method: one answer of the token service each."""
        script.token_answers = [answer]
        error = await failure_of(upload(store))
        assert error.failure is failure
        assert isinstance(error, ConfigurationError) == (failure is Failure.CREDENTIALS)
        assert script.token_answers == []
        assert script.tokens == len(script.seen) == 0
        script.answers = [gives_object()]
        assert (await upload(store)).generation == 7

    async def test_refused_credentials_are_read_anew(
        self, store: GcsObjectStore, script: Script, tmp_path: Path
    ) -> None:
        """Goal: who logs in again is done. Method: a refused login, no file, another login; then a 401."""
        file = tmp_path / "credentials.json"
        asked: list[str] = []

        def gives_token_to(name: str) -> Handler:
            async def handler(request: web.Request) -> web.StreamResponse:
                asked.append((await request.post())["refresh_token"])  # type: ignore[arg-type]
                if asked[-1] != name:
                    return await says(400, {"error": "invalid_grant"})(request)
                return web.json_response({"access_token": f"secret-token-{name}", "expires_in": 3600})

            return handler

        def log_in(name: str) -> None:
            file.write_text(json.dumps(authorized_user(f"{script.url}/token") | {"refresh_token": name}))

        script.token_answers = [gives_token_to("second")] * 2
        log_in("first")
        assert (await failure_of(upload(store))).failure is Failure.CREDENTIALS
        file.unlink()
        assert "does not exist" in (await failure_of(upload(store))).cause
        log_in("second")
        script.answers = [gives_object()]
        await upload(store)

        script.token_answers = [gives_token_to("third")]
        log_in("third")
        script.answers = [refuses(401), gives_object()]
        await upload(store)
        assert asked == ["first", "second", "third"]
        assert [seen.authorization.removeprefix("Bearer secret-token-") for seen in script.seen] == [
            *("second", "second", "third"),
        ]

    @pytest.mark.parametrize("status", [302, 303, 307, 308])
    async def test_secrets_are_not_redirected(
        self, store: GcsObjectStore, script: Script, status: int
    ) -> None:
        """Goal: a login is shown to its token service alone. Method: that one sends us to another host."""
        async with serve_script() as elsewhere:
            headers = {"Location": f"{elsewhere.url}/token"}
            script.token_answers = [says(status, headers=headers)]
            error = await failure_of(upload(store))
            assert (elsewhere.tokens, elsewhere.seen) == (0, [])
        assert error.failure is Failure.TRANSIENT
        assert "redirects" in error.cause

    async def test_a_token_service_that_hangs_is_given_up(self, script: Script, tmp_path: Path) -> None:
        """Goal: no acquisition outlasts its limit. Method: a token request that is never answered."""
        script.token_answers = [hangs]
        async with open_store(script, tmp_path, timeout_seconds=0.2) as store:
            error = await failure_of(upload(store))
        assert error.failure is Failure.TRANSIENT

    async def test_a_cancelled_caller_does_not_take_the_token_from_another(
        self, store: GcsObjectStore, script: Script
    ) -> None:
        """Goal: cancellation reaches only its task. Method: cancel the one that waits for the token."""
        arrived, go_on = anyio.Event(), anyio.Event()

        async def gives_token_late(request: web.Request) -> web.StreamResponse:
            arrived.set()
            await go_on.wait()
            return await says(200, {"access_token": "secret-token-0", "expires_in": 3600})(request)

        script.token_answers = [gives_token_late]
        script.answers = [gives_object()]
        generations: list[int] = []

        async def upload_second() -> None:
            generations.append((await upload(store)).generation)

        async with anyio.create_task_group() as outer:
            async with anyio.create_task_group() as inner:
                inner.start_soon(upload, store)
                await arrived.wait()
                outer.start_soon(upload_second)
                inner.cancel_scope.cancel()
            go_on.set()
        assert generations == [7]

    async def test_without_credentials_the_answer_comes_quickly(
        self, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Goal: no minutes of waiting for a metadata server that is not there. Method: nobody listens."""
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
        monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{unused_port()}")
        began = time.monotonic()
        store = real_store(script)
        error = await failure_of(store.check())
        await store.close()
        assert time.monotonic() - began < 3
        assert isinstance(error, ConfigurationError)
        assert error.failure is Failure.CREDENTIALS
        assert "GOOGLE_APPLICATION_CREDENTIALS" in error.hint

    @pytest.mark.parametrize("text", [None, "{}", '{"type": "unheard_of"}', '{"type": "authorized_user"}'])
    async def test_a_credentials_file_that_cannot_be_used_is_told(
        self, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None
    ) -> None:
        """Goal: a wrong file is no riddle. Method: no file, and files that lack what they need."""
        path = tmp_path / "key.json"
        if text is not None:
            path.write_text(text)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
        monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{unused_port()}")
        store = real_store(script)
        for _ in range(2):
            error = await failure_of(store.check())
            assert isinstance(error, ConfigurationError)
            assert error.failure is Failure.CREDENTIALS
            assert error.hint
        await store.close()


def real_store(script: Script) -> GcsObjectStore:
    """A store with the Application Default Credentials of the environment."""
    return GcsObjectStore(
        "bucket",
        connections_limit=1,
        timeout_seconds=10,
        chunk_bytes=CHUNK_UNIT_BYTES,
        login=Login(timeout_seconds=10, endpoints={"storage": script.url}),
    )
