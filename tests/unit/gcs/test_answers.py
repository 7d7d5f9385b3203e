"""How GcsObjectStore asks, and how it reads refusals and lost answers."""

import gzip
import json
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import pytest
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from pixaris_sync.errors import ConfigurationError, Failure, ObjectConflictError, SyncError
from pixaris_sync.gcs.answers import Refusal, encode_crc32c
from pixaris_sync.gcs.store import CHUNK_UNIT_BYTES, GcsObjectStore
from pixaris_sync.model import RemoteObject
from tests.support.scripted_gcs import (
    CONTENT,
    CRC32C,
    NAME,
    Handler,
    Resumable,
    Script,
    breaks,
    failure_of,
    gives_object,
    hangs,
    list_all,
    open_store,
    refuses,
    says,
    serve_script,
    session_uri,
    stops_halfway,
    unused_port,
    upload,
)

pytestmark = pytest.mark.anyio


class TestRequests:
    async def test_an_upload_is_one_request_that_says_everything(
        self, store: GcsObjectStore, script: Script
    ) -> None:
        """Goal: no look before or after, and all guards are sent. Method: read the only request."""
        script.answers = [gives_object()]
        assert await upload(store) == RemoteObject(NAME, len(CONTENT), CRC32C, 7)
        (seen,) = script.seen
        assert (seen.method, seen.path) == ("POST", "/upload/storage/v1/b/bucket/o")
        assert seen.query == {"uploadType": "multipart", "ifGenerationMatch": "0"}
        assert seen.authorization == "Bearer secret-token-1"
        assert json.dumps({"crc32c": encode_crc32c(CRC32C), "name": NAME}).encode() in seen.body
        assert b"Content-Type: application/json\r\n\r\ncontent\r\n" in seen.body

    async def test_many_requests_use_one_token(self, store: GcsObjectStore, script: Script) -> None:
        """Goal: tokens are asked for when needed. Method: uploads side by side, from the start."""
        script.answers = [gives_object()] * 8
        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(upload, store)
        assert len(script.seen) == 8
        assert script.tokens == 1

    async def test_names_reach_the_service_quoted(self, store: GcsObjectStore, script: Script) -> None:
        """Goal: nothing on the way reads a name as part of the address. Method: reserved characters."""
        script.answers = [gives_object()]
        await store.stat("a/../b c;%2F?#+&=é")
        assert script.seen[0].path == ("/storage/v1/b/bucket/o/a%2F..%2Fb%20c%3B%252F%3F%23%2B%26%3D%C3%A9")

    async def test_a_listing_follows_its_pages(self, store: GcsObjectStore, script: Script) -> None:
        """Goal: every page is asked for, once. Method: three pages, one of them without objects."""
        item = {"name": NAME, "size": "1", "crc32c": "AAAAAA==", "generation": "1"}
        script.answers = [
            says(200, {"items": [item, item], "nextPageToken": "two"}),
            says(200, {"nextPageToken": "three"}),
            says(200, {"items": [item]}),
        ]
        pages = [len(page) async for page in store.list("results/p&?#/")]
        assert pages == [2, 1]
        assert [seen.query.get("pageToken") for seen in script.seen] == [None, "two", "three"]
        assert {seen.query["prefix"] for seen in script.seen} == {"results/p&?#/"}
        assert script.seen[0].query["fields"] == "items(name,size,crc32c,generation,metadata),nextPageToken"

    @pytest.mark.parametrize("objects", [1, 20_000])
    async def test_a_page_is_read_whole_however_it_arrives(
        self, store: GcsObjectStore, script: Script, objects: int
    ) -> None:
        """Goal: what has come with its head is taken at once, and nothing else is left behind.

        Method: one packet, and megabytes that are unpacked step by step.
        """
        names = [f"results/{number:09d}/{'x' * 90}" for number in range(objects)]
        page = {"items": [{"name": name, "size": "1", "generation": "1"} for name in names]}
        packed = says(200, gzip.compress(json.dumps(page).encode()), headers={"Content-Encoding": "gzip"})
        script.answers = [packed, says(200, page)]
        for _ in range(2):
            assert [[one.name for one in page] async for page in store.list("results/")] == [names]

    async def test_an_object_without_a_checksum_stops_no_listing(
        self, store: GcsObjectStore, script: Script
    ) -> None:
        """Goal: a bucket under its owner's key can be listed; the checksum is unknown. Method: list one."""
        script.answers = [says(200, {"items": [{"name": NAME, "size": "1", "generation": "1"}]})]
        (remote,) = await list_all(store)
        assert remote == RemoteObject(NAME, 1, None, 1)

    async def test_an_answer_to_an_upload_need_not_repeat_the_checksum(
        self, store: GcsObjectStore, script: Script
    ) -> None:
        """Goal: untold is not another. Method: answers without it, of the right size and of another."""
        script.answers = [says(200, {"name": NAME, "size": size, "generation": "7"}) for size in ("7", "8")]
        assert await upload(store) == RemoteObject(NAME, len(CONTENT), CRC32C, 7)
        assert (await failure_of(upload(store))).failure is Failure.IN_DOUBT

    @pytest.mark.parametrize("scheme", ["", "http://"])
    async def test_an_emulator_is_asked_without_a_token(self, script: Script, scheme: str) -> None:
        """Goal: a sandbox needs no account. Method: the server as an emulator, with and without scheme."""
        script.answers = [gives_object()]
        store = GcsObjectStore(
            "bucket",
            emulator_host=scheme + script.url.removeprefix("http://"),
            connections_limit=1,
            timeout_seconds=10,
            chunk_bytes=CHUNK_UNIT_BYTES,
        )
        await upload(store)
        await store.close()
        assert script.seen[0].authorization == ""
        assert script.tokens == 0

    @pytest.mark.parametrize(
        "limits",
        [{"connections_limit": 0}, {"timeout_seconds": 0}, {"chunk_bytes": 0}, {"chunk_bytes": 1000}],
    )
    def test_limits_that_cannot_work_are_refused_at_once(self, limits: dict[str, Any]) -> None:
        """Goal: no wrong limit is found out late. Method: one wrong limit each."""
        right: dict[str, Any] = {
            "connections_limit": 1,
            "timeout_seconds": 1,
            "chunk_bytes": CHUNK_UNIT_BYTES,
        }
        with pytest.raises(ConfigurationError):
            GcsObjectStore("bucket", **{**right, **limits})


class TestRefusals:
    @pytest.mark.parametrize(
        ("answer", "kind", "failure"),
        [
            (refuses(400, "invalid"), SyncError, Failure.PERMANENT),
            (refuses(400, "invalid", f'Provided "{encode_crc32c(CRC32C)}"'), SyncError, Failure.TRANSIENT),
            (refuses(403, "forbidden"), SyncError, Failure.PERMISSION),
            (refuses(403, "rateLimitExceeded"), SyncError, Failure.QUOTA),
            (refuses(403, "userRateLimitExceeded"), SyncError, Failure.QUOTA),
            (refuses(403, "quotaExceeded"), SyncError, Failure.QUOTA),
            (refuses(503, "slowDown"), SyncError, Failure.TRANSIENT),
            (refuses(403, "accountDisabled"), SyncError, Failure.PERMISSION),
            (refuses(403, "objectUnderActiveHold"), SyncError, Failure.PERMANENT),
            (refuses(403, "retentionPolicyNotMet"), SyncError, Failure.PERMANENT),
            (refuses(400, "required", "Bucket is requester pays bucket"), SyncError, Failure.PERMISSION),
            *(
                (says(status, body), SyncError, Failure.TRANSIENT)
                for status in (400, 403, 404, 405, 407, 413, 451)
                for body in (b"<html>no</html>", b"", b'{"message": "blocked"}', b'["error"]')
            ),
            (refuses(407), SyncError, Failure.TRANSIENT),
            (refuses(451), SyncError, Failure.TRANSIENT),
            (refuses(404, "notFound"), ConfigurationError, Failure.PERMANENT),
            (refuses(408), SyncError, Failure.TRANSIENT),
            (refuses(412, "conditionNotMet"), ObjectConflictError, Failure.PERMANENT),
            (refuses(429, "rateLimitExceeded"), SyncError, Failure.QUOTA),
            (refuses(500, "backendError"), SyncError, Failure.TRANSIENT),
            (says(502, b"<html>bad gateway</html>"), SyncError, Failure.TRANSIENT),
            (refuses(503), SyncError, Failure.TRANSIENT),
            (says(504), SyncError, Failure.TRANSIENT),
        ],
    )
    async def test_each_status_has_its_meaning(
        self,
        store: GcsObjectStore,
        script: Script,
        answer: Handler,
        kind: type[SyncError],
        failure: Failure,
    ) -> None:
        """Goal: the table of storage_answers holds, and nothing is repeated. Method: one upload a status."""
        script.answers = [answer]
        error = await failure_of(upload(store))
        assert (type(error), error.failure) == (kind, failure)
        assert len(script.seen) == 1
        assert NAME in str(error)

    @pytest.mark.parametrize("status", [403, 407, 502])
    async def test_a_proxy_that_lets_nothing_through_is_named(self, status: int) -> None:
        """Goal: nor does its refusal of a tunnel accuse the account. Method: what the client raises then."""
        request = aiohttp.RequestInfo(URL("https://storage"), "CONNECT", CIMultiDictProxy(CIMultiDict()))
        refused = aiohttp.ClientHttpProxyError(request, (), status=status, message="Forbidden")
        answer = Refusal.from_client(refused)
        assert answer is not None
        error = answer.error("upload", "object", bucket="bucket")
        assert (type(error), error.failure) == (SyncError, Failure.TRANSIENT)
        assert ("a proxy or firewall in between" in error.cause) == (status < 500)

    async def test_the_missing_permission_is_named(self, store: GcsObjectStore, script: Script) -> None:
        """Goal: the reader knows what to grant. Method: the service's own words for a lacking role."""
        script.answers = [
            refuses(
                403, "forbidden", "a@b.iam.gserviceaccount.com does not have storage.objects.create access."
            )
        ]
        error = await failure_of(upload(store))
        assert "storage.objects.create" in error.cause
        assert "storage.objects.create" in error.hint

    @pytest.mark.parametrize(
        ("header", "seconds"), [("17", 17.0), ("Wed, 21 Oct 2020 07:28:00 GMT", 0.0), ("-1", None)]
    )
    async def test_a_wait_that_the_service_asks_for_is_told(
        self, store: GcsObjectStore, script: Script, header: str, seconds: float | None
    ) -> None:
        """Goal: whoever repeats can be polite. Method: Retry-After in seconds, as a date, and as nonsense."""
        script.answers = [refuses(429, headers={"Retry-After": header})]
        assert (await failure_of(upload(store))).retry_after_seconds == seconds

    async def test_a_message_that_quotes_secrets_is_scrubbed(
        self, store: GcsObjectStore, script: Script
    ) -> None:
        """Goal: no answer can put a secret into a log. Method: a message with an address and a long token."""
        script.answers = [
            refuses(400, "invalid", f"bad {session_uri(script)} or secret-token-{'x' * 40} in request")
        ]
        error = await failure_of(upload(store))
        assert "in request" in error.cause

    async def test_each_method_reports_a_refusal(self, store: GcsObjectStore, script: Script) -> None:
        """Goal: no method lets a refusal through as something else. Method: 503 for each."""
        for call in (
            store.check,
            lambda: store.stat(NAME),
            lambda: list_all(store),
            lambda: upload(store),
            Resumable(store).run,
        ):
            script.answers = [refuses(503)]
            assert (await failure_of(call())).failure is Failure.TRANSIENT


class TestTheCheck:
    async def test_an_account_that_may_not_look_at_the_bucket_passes(
        self, store: GcsObjectStore, script: Script
    ) -> None:
        """Goal: a write-only account suffices. Method: 403 for the bucket."""
        script.answers = [refuses(403, "forbidden", "does not have storage.buckets.get access")]
        await store.check()
        assert script.seen[0].path == "/storage/v1/b/bucket"

    @pytest.mark.parametrize(
        "answer",
        [
            refuses(400, "invalid", "Invalid bucket name: 'no bucket'"),
            refuses(400, "required", "Bucket is requester pays bucket but no user project provided."),
            refuses(410, "gone"),
        ],
    )
    async def test_what_no_later_look_can_change_is_a_wrong_setting(
        self, store: GcsObjectStore, script: Script, answer: Handler
    ) -> None:
        """Goal: nobody waits for ever for a bucket that cannot be. Method: refusals that stay."""
        script.answers = [answer]
        error = await failure_of(store.check())
        assert isinstance(error, ConfigurationError)
        assert error.hint

    @pytest.mark.parametrize("status", [403, 404, 407, 451])
    async def test_the_page_of_a_proxy_says_nothing_of_the_bucket(
        self, store: GcsObjectStore, script: Script, status: int
    ) -> None:
        """Goal: a proxy is blamed for its own pages. Method: HTML for the look, a look-up and an upload."""
        script.answers = [says(status, b"<html>Please log in</html>")] * 3
        for asked in (store.check(), store.stat(NAME), upload(store)):
            error = await failure_of(asked)
            assert (type(error), error.failure) == (SyncError, Failure.TRANSIENT)
            assert "a proxy or firewall in between" in error.cause
            assert "proxy" in error.hint

    async def test_a_missing_bucket_and_refused_credentials_do_not(
        self, store: GcsObjectStore, script: Script
    ) -> None:
        """Goal: no work begins in vain. Method: 404; then 401 twice."""
        script.answers = [refuses(404, "notFound")]
        error = await failure_of(store.check())
        assert isinstance(error, ConfigurationError)
        assert "bucket" in error.cause
        assert error.hint
        script.answers = [refuses(401, "authError")] * 2
        error = await failure_of(store.check())
        assert isinstance(error, ConfigurationError)
        assert error.failure is Failure.CREDENTIALS


class TestLostAnswers:
    @pytest.mark.parametrize(
        "answer",
        [
            breaks,
            stops_halfway,
            says(200, b"\x00garbage"),
            says(200, b""),
            says(200, {"kind": "storage#object"}),
            says(200, {"name": NAME, "size": "many", "crc32c": "AAAAAA==", "generation": "1"}),
            says(200, {"name": NAME, "size": "7", "crc32c": "???", "generation": "1"}),
            says(200, []),
            gives_object(crc32c=CRC32C ^ 1),
        ],
    )
    async def test_an_upload_without_a_readable_answer_is_in_doubt(
        self, store: GcsObjectStore, script: Script, answer: Handler
    ) -> None:
        """Goal: what may have been done is looked up first. Method: take the upload, spoil the answer."""
        script.answers = [answer]
        assert (await failure_of(upload(store))).failure is Failure.IN_DOUBT
        assert CONTENT in script.seen[0].body

    @pytest.mark.parametrize("answer", [breaks, stops_halfway, says(200, b"\x00garbage"), says(200, [])])
    async def test_a_look_without_a_readable_answer_can_be_repeated(
        self, store: GcsObjectStore, script: Script, answer: Handler
    ) -> None:
        """Goal: reading changes nothing, so it is never in doubt. Method: the same for look-ups and lists."""
        script.answers = [answer] * 4
        assert (await failure_of(store.stat(NAME))).failure is Failure.TRANSIENT
        assert (await failure_of(list_all(store))).failure is Failure.TRANSIENT

    @pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
    async def test_no_redirect_is_followed_and_none_is_believed(
        self, store: GcsObjectStore, script: Script, status: int
    ) -> None:
        """Goal: neither content nor token goes elsewhere. Method: elsewhere all would be well, and there."""
        answer = {"name": NAME, "size": "7", "crc32c": encode_crc32c(CRC32C), "generation": "7"}
        async with serve_script() as elsewhere:
            elsewhere.answers = [gives_object()] * 9
            for place in (elsewhere.url, script.url, ""):
                redirects = says(status, answer, headers={"Location": f"{place}/anything"})
                script.answers = [redirects] * 5
                assert (await failure_of(upload(store))).failure is Failure.IN_DOUBT
                for call in (store.stat(NAME), store.check(), list_all(store), Resumable(store).run()):
                    error = await failure_of(call)
                    assert error.failure is Failure.TRANSIENT
                    assert "redirects" in error.cause
                assert script.answers == []
            assert elsewhere.seen == []
        script.answers = [gives_object()]
        assert (await upload(store)).generation == 7

    async def test_an_upload_that_nobody_took_is_not_in_doubt(self, script: Script, tmp_path: Path) -> None:
        """Goal: no network means no look-ups. Method: a token is got, but the API's port is closed."""
        async with open_store(script, tmp_path, api_root=f"http://127.0.0.1:{unused_port()}") as store:
            error = await failure_of(upload(store))
        assert script.tokens == 1
        assert error.failure is Failure.TRANSIENT

    async def test_a_name_that_does_not_resolve_is_not_in_doubt(self, script: Script, tmp_path: Path) -> None:
        """Goal: the same without DNS. Method: a host of the domain that never exists (RFC 6761)."""
        async with open_store(script, tmp_path, api_root="http://storage.invalid") as store:
            assert (await failure_of(upload(store))).failure is Failure.TRANSIENT

    async def test_an_upload_that_is_never_answered_is_in_doubt_after_its_limit(
        self, script: Script, tmp_path: Path
    ) -> None:
        """Goal: the limit holds, and the upload may have been done. Method: take it and say nothing."""
        script.answers = [hangs, hangs]
        async with open_store(script, tmp_path, timeout_seconds=0.2) as store:
            assert (await failure_of(upload(store))).failure is Failure.IN_DOUBT
            assert (await failure_of(store.stat(NAME))).failure is Failure.TRANSIENT

    async def test_an_answer_that_is_no_http_is_in_doubt(self, script: Script, tmp_path: Path) -> None:
        """Goal: an invented status is not taken for the service's. Method: a server that talks nonsense."""

        async def talk(stream: anyio.abc.SocketStream) -> None:
            async with stream:
                await stream.receive()
                await stream.send(b"nonsense\r\n\r\n")

        async with (
            await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
            anyio.create_task_group() as group,
        ):
            group.start_soon(listener.serve, talk)
            port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610 - a socket's attribute
            async with open_store(script, tmp_path, api_root=f"http://127.0.0.1:{port}") as store:
                assert (await failure_of(upload(store))).failure is Failure.IN_DOUBT
            group.cancel_scope.cancel()
