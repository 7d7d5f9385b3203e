"""The layer in front of the emulator's application: one request at a time, streaming inserts, job ids."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

from bqemulator.api.routes import upload as upload_routes
from bqemulator.domain.errors import (
    AlreadyExistsError,
    DomainError,
    ResourceRef,
    ValidationError,
    resource_already_exists,
)

from pixaris_sync.sandbox.bigquery_repairs import requested_job_id
from pixaris_sync.sandbox.bigquery_writes import InsertIds, insert_all

if TYPE_CHECKING:
    from bqemulator.api.dependencies import AppContext

#: How many rows the first answer of a query holds at most.
_FIRST_PAGE_ROWS = 1_000_000

_OK, _BAD_REQUEST = 200, 400
#: Google's documented reasons and their HTTP statuses; every other reason of a failed statement is 400.
_STATUS_OF_REASON = {"notFound": 404, "accessDenied": 403, "duplicate": 409}

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_INSERT_ALL = re.compile(r"/bigquery/v2/projects/([^/]+)/datasets/([^/]+)/tables/([^/]+)/insertAll")
_QUERY = re.compile(r"/bigquery/v2/projects/[^/]+/queries")
_RESULTS = re.compile(r"/bigquery/v2/projects/[^/]+/queries/[^/]+")
_JOBS = re.compile(r"(?P<upload>/upload)?/bigquery/v2/projects/(?P<project>[^/]+)/jobs")


class Front:
    """An ASGI application that mends requests to the emulator's application.

    Seen: requests run in several threads over one DuckDB connection, which keeps one result at a time, so
    that they can read each other's rows; they are served one after the other here. ``insertAll`` is answered
    by `bigquery_writes`. A job id that was used before runs again; here it answers 409 ``duplicate``, for an
    upload both when it begins and when its last byte arrives.

    Google's client asks for no rows at first (``maxResults=0``) and then fetches a frame's rows from the
    BigQuery Storage API, which it cannot be pointed at an emulator for. Here the first answer holds the rows,
    whereupon the client stays with REST.

    ``jobs.query`` answers 200 for a statement that failed, with the failure in a field that Google's client
    does not look at. Here the failure is the answer, under its HTTP status.
    """

    def __init__(self, app: App, context: "AppContext") -> None:
        self._app = app
        self._context = context
        self._one_at_a_time = asyncio.Lock()
        self._insert_ids = InsertIds()
        self._jobs_of_uploads: dict[str, str] = {}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection event; everything but HTTP is passed on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await _read_body(receive)
        async with self._one_at_a_time:
            try:
                await self._serve(scope, body, send)
            except DomainError as error:
                await _send_json(send, error.http_status, error.to_bigquery_error())

    async def _serve(self, scope: Message, body: bytes, send: Send) -> None:
        if scope["method"] == "POST" and (match := _INSERT_ALL.fullmatch(scope["path"])):
            project, dataset, table = match.groups()
            parsed = _parse(body)
            answer = await insert_all(self._context, (project, dataset, table), parsed, self._insert_ids)
            await _send_json(send, _OK, answer)
        elif scope["method"] in ("POST", "PUT") and (match := _JOBS.fullmatch(scope["path"])):
            await self._serve_job(scope, body, send, project=match["project"], upload=bool(match["upload"]))
        elif scope["method"] == "POST" and _QUERY.fullmatch(scope["path"]):
            await self._serve_query(scope, body, send)
        elif scope["method"] == "GET" and _RESULTS.fullmatch(scope["path"]):
            await self._app(_with_rows(scope), _replay(body), send)
        else:
            await self._app(scope, _replay(body), send)

    async def _serve_query(self, scope: Message, body: bytes, send: Send) -> None:
        """Pass a statement on, and answer its failure as one."""
        answers: list[Message] = []

        async def keep(message: Message) -> None:
            answers.append(message)

        await self._app(scope, _replay(body), keep)
        content = _parse(b"".join(message.get("body", b"") for message in answers))
        if answers[0]["status"] == _OK and content.get("errors"):
            first = content["errors"][0]
            status = _STATUS_OF_REASON.get(first.get("reason"), _BAD_REQUEST)
            failure = {"code": status, "message": first.get("message", ""), "errors": content["errors"]}
            await _send_json(send, status, {"error": failure})
            return
        for message in answers:
            await send(message)

    async def _serve_job(
        self, scope: Message, body: bytes, send: Send, *, project: str, upload: bool
    ) -> None:
        """Pass a job on under the id that it asks for, unless the id is used up."""
        query = parse_qs(scope["query_string"].decode())
        session = query.get("upload_id", [""])[0]
        multipart = upload and query.get("uploadType") == ["multipart"]
        if session:
            job_id = self._jobs_of_uploads.get(session)
        else:
            envelope = _read_multipart(scope, body) if multipart else _parse(body)
            job_id = (envelope.get("jobReference") or {}).get("jobId")
        if job_id is not None and self._context.catalog.get_job(project, job_id) is not None:
            raise _duplicate(project, job_id)

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start" and job_id is not None:
                headers = {name.lower(): value for name, value in message["headers"]}
                if b"x-guploader-uploadid" in headers:
                    self._jobs_of_uploads[headers[b"x-guploader-uploadid"].decode()] = job_id
            await send(message)

        token = requested_job_id.set(job_id)
        try:
            await self._app(scope, _replay(body), send_and_note)
        finally:
            requested_job_id.reset(token)


def _with_rows(scope: Message) -> Message:
    query = parse_qs(scope["query_string"].decode())
    if query.get("maxResults") != ["0"]:
        return scope
    query["maxResults"] = [str(_FIRST_PAGE_ROWS)]
    return {**scope, "query_string": urlencode(query, doseq=True).encode()}


def _duplicate(project: str, job_id: str) -> AlreadyExistsError:
    return resource_already_exists(ResourceRef("job", project, resource_id=job_id))


def _parse(body: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(body)
    except ValueError:
        raise ValidationError("Request body is not valid JSON") from None
    if not isinstance(parsed, dict):
        raise ValidationError("Request body is no JSON object")
    return parsed


def _read_multipart(scope: Message, body: bytes) -> dict[str, Any]:
    headers = {name.lower(): value for name, value in scope["headers"]}
    content_type = headers.get(b"content-type", b"").decode("latin-1")
    envelope: dict[str, Any]
    envelope, _ = upload_routes._parse_multipart_related(content_type, body)  # noqa: SLF001 - a repair of the pinned version
    return envelope


async def _read_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if message["type"] != "http.request" or not message.get("more_body", False):
            return bytes(body)


def _replay(body: bytes) -> Receive:
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        # The application asks again only to learn of a disconnection; the answer decides when it ends.
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    return receive


async def _send_json(send: Send, status: int, content: object) -> None:
    body = json.dumps(content).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
