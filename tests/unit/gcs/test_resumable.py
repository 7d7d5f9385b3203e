"""How GcsObjectStore goes on with, replaces and ends resumable sessions."""

import json

import google_crc32c
import pytest

from pixaris_sync.errors import Failure, ObjectConflictError
from pixaris_sync.gcs.answers import encode_crc32c
from pixaris_sync.gcs.store import CHUNK_UNIT_BYTES, GcsObjectStore
from tests.support.scripted_gcs import (
    LARGE,
    NAME,
    Handler,
    Resumable,
    Script,
    begins_session,
    breaks,
    failure_of,
    gives_object,
    has_bytes,
    refuses,
    says,
    serve_script,
    session_uri,
)

pytestmark = pytest.mark.anyio


class TestResumableUploads:
    async def test_a_new_session_is_begun_with_every_guard(
        self, store: GcsObjectStore, script: Script
    ) -> None:
        """Goal: precondition and checksum hold for sessions. Method: read the first request."""
        script.answers = [
            begins_session(script),
            has_bytes(CHUNK_UNIT_BYTES),
            has_bytes(2 * CHUNK_UNIT_BYTES),
            gives_object(LARGE),
        ]
        upload = Resumable(store)
        await upload.run()
        first = script.seen[0]
        assert first.query == {"uploadType": "resumable", "ifGenerationMatch": "0"}
        assert json.loads(first.body) == {
            "name": NAME,
            "crc32c": encode_crc32c(google_crc32c.value(LARGE)),
        }
        assert upload.uris == [session_uri(script)]
        assert [seen.content_range for seen in script.seen[1:]] == [
            "bytes 0-262143/786432",
            "bytes 262144-524287/786432",
            "bytes 524288-786431/786432",
        ]
        assert b"".join(seen.body for seen in script.seen[1:]) == LARGE
        assert {seen.content_type for seen in script.seen[1:]} == {"image/png"}

    async def test_the_service_decides_where_to_go_on(self, store: GcsObjectStore, script: Script) -> None:
        """Goal: a Range in the middle of a chunk is honoured. Method: keep half of what was sent."""
        half = CHUNK_UNIT_BYTES // 2
        script.answers = [
            has_bytes(half),
            has_bytes(half + CHUNK_UNIT_BYTES),
            has_bytes(2 * CHUNK_UNIT_BYTES),
            gives_object(LARGE),
        ]
        upload = Resumable(store)
        await upload.run(session_uri(script))
        assert script.seen[0].content_range == "bytes */786432"
        assert [offset for offset, _ in upload.source.reads] == [
            half,
            half + CHUNK_UNIT_BYTES,
            2 * CHUNK_UNIT_BYTES,
        ]
        assert script.seen[-1].body == LARGE[2 * CHUNK_UNIT_BYTES :]
        assert upload.uris == []

    async def test_no_range_means_that_nothing_arrived(self, store: GcsObjectStore, script: Script) -> None:
        """Goal: an empty session is filled from the start. Method: a 308 without Range."""
        script.answers = [
            has_bytes(0),
            has_bytes(CHUNK_UNIT_BYTES),
            has_bytes(2 * CHUNK_UNIT_BYTES),
            gives_object(LARGE),
        ]
        upload = Resumable(store)
        await upload.run(session_uri(script))
        assert upload.source.reads[0][0] == 0

    @pytest.mark.parametrize("status", [400, 404, 405, 410, 422, 499])
    async def test_an_expired_session_is_replaced_before_anything_is_sent(
        self, store: GcsObjectStore, script: Script, status: int
    ) -> None:
        """Goal: a week offline costs nothing but the bytes. Method: the session's address is unknown."""
        script.answers = [
            refuses(status),
            begins_session(script),
            has_bytes(CHUNK_UNIT_BYTES),
            has_bytes(2 * CHUNK_UNIT_BYTES),
            gives_object(LARGE),
        ]
        upload = Resumable(store)
        assert (await upload.run(session_uri(script))).size == len(LARGE)
        assert len(upload.uris) == 1

    @pytest.mark.parametrize(
        ("status", "failure"),
        [*((status, Failure.TRANSIENT) for status in (400, 404, 410, 499)), (422, Failure.PERMANENT)],
    )
    async def test_a_session_that_is_lost_twice_is_tried_again_later(
        self, store: GcsObjectStore, script: Script, status: int, failure: Failure
    ) -> None:
        """Goal: no endless loop of sessions. Method: the old and the new one are gone, or refuse alike."""
        script.answers = [refuses(status), begins_session(script), refuses(status)]
        upload = Resumable(store)
        assert (await failure_of(upload.run(session_uri(script)))).failure is failure
        assert script.answers == []

    async def test_a_finished_session_is_accepted_by_its_checksum(
        self, store: GcsObjectStore, script: Script
    ) -> None:
        """Goal: a lost last answer is found again, and checked. Method: the question is answered with it."""
        script.answers = [gives_object(LARGE), gives_object(LARGE, crc32c=1)]
        upload = Resumable(store)
        assert (await upload.run(session_uri(script))).generation == 7
        assert (await failure_of(upload.run(session_uri(script)))).failure is Failure.IN_DOUBT
        assert upload.source.reads == []

    async def test_only_the_last_chunk_leaves_doubt(self, store: GcsObjectStore, script: Script) -> None:
        """Goal: an object appears with its last byte only. Method: break at the first and the last.

        Twice each: aiohttp itself repeats a PUT once where a connection that it had kept breaks.
        """
        script.answers = [begins_session(script), breaks, breaks]
        assert (await failure_of(Resumable(store).run())).failure is Failure.TRANSIENT
        assert [seen.body for seen in script.seen[1:]] == [LARGE[:CHUNK_UNIT_BYTES]] * 2
        script.answers = [has_bytes(2 * CHUNK_UNIT_BYTES), breaks, breaks]
        assert (await failure_of(Resumable(store).run(session_uri(script)))).failure is Failure.IN_DOUBT

    @pytest.mark.parametrize(
        ("answer", "failure"),
        [
            (refuses(403, "forbidden"), Failure.PERMISSION),
            (refuses(412, "conditionNotMet"), Failure.PERMANENT),
            (refuses(429), Failure.QUOTA),
            (refuses(503), Failure.TRANSIENT),
            (has_bytes(0), Failure.TRANSIENT),
            (has_bytes(2 * CHUNK_UNIT_BYTES), Failure.TRANSIENT),
            (has_bytes(4 * CHUNK_UNIT_BYTES), Failure.TRANSIENT),
            (says(308, headers={"Range": "bytes=9-10"}), Failure.IN_DOUBT),
            (
                refuses(400, "invalid", f"not {encode_crc32c(google_crc32c.value(LARGE))}"),
                Failure.TRANSIENT,
            ),
        ],
    )
    async def test_a_refused_last_chunk_is_classified(
        self, store: GcsObjectStore, script: Script, answer: Handler, failure: Failure
    ) -> None:
        """Goal: sessions follow the same table, and cannot stand still. Method: one answer each."""
        script.answers = [has_bytes(2 * CHUNK_UNIT_BYTES), answer]
        upload = Resumable(store)
        error = await failure_of(upload.run(session_uri(script)))
        assert error.failure is failure
        assert isinstance(error, ObjectConflictError) == (failure is Failure.PERMANENT)
        assert upload.uris == []

    async def test_no_session_of_a_strangers_is_used(self, store: GcsObjectStore, script: Script) -> None:
        """Goal: an answer sends content to nobody else. Method: the session's address is at another host."""
        async with serve_script() as elsewhere:
            elsewhere.answers = [gives_object(LARGE)] * 3
            script.answers = [begins_session(elsewhere)]
            upload = Resumable(store)
            error = await failure_of(upload.run())
            assert (error.failure, elsewhere.seen, upload.uris) == (Failure.TRANSIENT, [], [])
            assert "redirects" in error.cause

    async def test_a_session_without_an_address_is_not_in_doubt(
        self, store: GcsObjectStore, script: Script
    ) -> None:
        """Goal: a lost beginning leaves no object. Method: no Location; then a broken connection."""
        for answer in (says(200), breaks):
            script.answers = [answer]
            assert (await failure_of(Resumable(store).run())).failure is Failure.TRANSIENT
