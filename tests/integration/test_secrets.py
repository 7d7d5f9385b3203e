"""Nothing secret reaches a log, an error, an output or the ledger, whatever the services answer.

The servers here hold credentials that are like real ones, and answer with everything that they know: each
error's message quotes the request's token, its address, a signed address and a private key.
"""

import json
import logging
import os
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import pytest
from aiohttp import web

from pixaris_sync.bigquery.sink import BigQueryRowSink
from pixaris_sync.cli.console import set_up_logging
from pixaris_sync.errors import SyncError
from pixaris_sync.gcs.store import CHUNK_UNIT_BYTES, GcsObjectStore
from pixaris_sync.login.login import Login
from pixaris_sync.model import Column, ColumnType, OutgoingRow
from tests.support import scripted_bigquery, scripted_gcs
from tests.support.scripted_bigquery import DATASET, DROP, PROJECT, TABLE, Answer, ScriptedBigQuery
from tests.support.scripted_gcs import Handler, Resumable, Script, breaks, stops_halfway
from tests.support.secrets import (
    ACCESS_TOKEN,
    SESSION_ID,
    SIGNED_QUERY,
    ask_no_other_host,
    private_key,
    secrets_in,
    service_account_key,
)

STATUSES = (400, 401, 403, 404, 408, 409, 410, 412, 416, 429, 500, 503)
#: Google's libraries repeat requests by themselves after others, for seconds.
FINAL_STATUSES = (200, 400, 401, 403, 404, 409, 412)
#: Enough answers for requests that are repeated.
REPEATS = 12


class Told:
    """Everything that was logged and raised, as text."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, error: BaseException) -> None:
        """Note an error in every form that it can be shown in, and those that it comes from."""
        self.texts += traceback.format_exception(error)
        chain: BaseException | None = error
        while chain is not None:
            self.texts += [str(chain), repr(chain), repr(chain.args), repr(getattr(chain, "hint", ""))]
            # What is suppressed is shown by nobody.
            chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)

    @property
    def text(self) -> str:
        return "\n".join(self.texts)


class _Records(logging.Handler):
    def __init__(self, told: Told) -> None:
        super().__init__()
        self._told = told
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._told.texts.append(self.format(record))


@contextmanager
def _logging_kept() -> Iterator[None]:
    """Let the program set up logging as it does, and take that back."""
    loggers = [logging.getLogger(name) for name in ("", "pixaris_sync")]
    before = [(logger.handlers[:], logger.level) for logger in loggers]
    loggers[0].handlers = []
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        for logger, (handlers, level) in zip(loggers, before, strict=True):
            logger.handlers = handlers
            logger.setLevel(level)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Told]:
    """What is logged at the most that the program can be told to log; nothing of it may be secret."""
    assert caplog.text == ""
    told = Told()
    with _logging_kept():
        set_up_logging("debug")
        logging.getLogger().addHandler(_Records(told))
        yield told
    leaks = [(secrets_in(text, "Bearer ya29", "BEGIN"), text) for text in told.texts]
    leaks = [leak for leak in leaks if leak[0]]
    assert not leaks, leaks[0]


# -- storage -----------------------------------------------------------------------------------------------


def quotes(status: int) -> Handler:
    """An error of Google's shape whose message says everything."""

    async def handler(request: web.Request) -> web.StreamResponse:
        signed = f"https://storage.googleapis.com/b/o?{SIGNED_QUERY}"
        message = f"{request.headers.get('Authorization')} {request.url} {signed} upload_id={SESSION_ID}"
        errors = [{"reason": "invalid", "message": message}]
        body = {"error": {"code": status, "message": message, "errors": errors}, "key": private_key()}
        headers = {"Retry-After": "1", "X-Token": ACCESS_TOKEN}
        return web.json_response(body, status=status, headers=headers)

    return handler


async def leads_to_signed_address(request: web.Request) -> web.StreamResponse:
    return web.Response(status=302, headers={"Location": f"{request.url.origin()}/signed?{SIGNED_QUERY}"})


def garbage(status: int) -> Handler:
    return scripted_gcs.says(status, f"<html>Bearer {ACCESS_TOKEN} {SIGNED_QUERY} {private_key()}".encode())


ANSWERS: dict[str, Handler] = {
    **{f"{status}": quotes(status) for status in STATUSES},
    **{f"{status} garbage": garbage(status) for status in (200, 308, 400, 403, 500)},
    "another object": scripted_gcs.says(200, {"name": SIGNED_QUERY, "size": "1", "mediaLink": SIGNED_QUERY}),
    "redirect": leads_to_signed_address,
    "break": breaks,
    "half": stops_halfway,
}
STORE_CALLS: dict[str, Callable[[GcsObjectStore], Awaitable[object]]] = {
    "check": lambda store: store.check(),
    "upload": scripted_gcs.upload,
    "begin": lambda store: Resumable(store).run(),
    "feed": lambda store: Resumable(store).run(),
    "stat": lambda store: store.stat(scripted_gcs.NAME),
    "list": scripted_gcs.list_all,
}


async def gives_token(_: web.Request) -> web.StreamResponse:
    return web.json_response({"access_token": ACCESS_TOKEN, "expires_in": 3600})


@pytest.fixture
async def script(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Script]:
    """A scripted server that gives out tokens like real ones, and an environment without credentials."""
    assert anyio_backend == "asyncio"
    for name in scripted_gcs.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    async with scripted_gcs.serve_script() as served:
        served.token_answers = [gives_token] * 50
        yield served


@asynccontextmanager
async def robots_store(script: Script, folder: Path) -> AsyncIterator[GcsObjectStore]:
    """A store with a service account's key, that takes the scripted server for Google."""
    key_file = folder / "key.json"
    key_file.write_text(json.dumps(service_account_key(f"{script.url}/token")))
    store = GcsObjectStore(
        "bucket",
        connections_limit=2,
        timeout_seconds=10,
        chunk_bytes=CHUNK_UNIT_BYTES,
        login=Login(timeout_seconds=10, endpoints={"storage": script.url}),
    )
    with patch.dict(os.environ, GOOGLE_APPLICATION_CREDENTIALS=str(key_file)):
        try:
            yield store
        finally:
            await store.close()


@pytest.mark.anyio
@pytest.mark.parametrize("call", STORE_CALLS)
async def test_no_answer_of_storage_makes_an_error_that_tells(
    call: str, script: Script, tmp_path: Path, told: Told
) -> None:
    """Goal: errors and logs of uploads are clean. Method: every call, every answer, real-looking secrets."""
    failures = 0
    for answer in ANSWERS.values():
        script.answers = [answer] * REPEATS
        if call == "feed":
            script.answers.insert(0, _begins_session(script))
        async with robots_store(script, tmp_path) as store:
            try:
                await STORE_CALLS[call](store)
            except SyncError as error:
                failures += 1
                told.note(error)
    assert failures > len(ANSWERS) / 2
    assert any(seen.authorization == f"Bearer {ACCESS_TOKEN}" for seen in script.seen)


def _begins_session(script: Script) -> Handler:
    address = f"{script.url}/upload/storage/v1/b/bucket/o?uploadType=resumable&upload_id={SESSION_ID}"
    return scripted_gcs.says(200, headers={"Location": address})


@pytest.mark.anyio
async def test_no_answer_of_the_token_service_makes_an_error_that_tells(
    script: Script, tmp_path: Path, told: Told
) -> None:
    """Goal: what it says of credentials is clean. Method: each answer when a token is asked for."""
    for answer in ANSWERS.values():
        script.token_answers = [answer] * REPEATS
        async with robots_store(script, tmp_path) as store:
            with pytest.raises(SyncError) as caught:
                await store.check()
            told.note(caught.value)


@pytest.mark.anyio
@pytest.mark.parametrize("damage", ["cut", "text", "another key"])
async def test_a_key_file_that_cannot_be_used_is_not_quoted(
    script: Script, tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """Goal: a broken key file stays in its file. Method: break it in several ways; both clients read it."""
    content = service_account_key(f"{script.url}/token")
    content["private_key"] = (
        content["private_key"].replace("\n", "\nX", 1) if damage == "another key" else private_key()
    )
    text = json.dumps(content)
    key_file = tmp_path / "broken.json"
    key_file.write_text(text[:-20] if damage == "cut" else private_key() if damage == "text" else text)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file))
    store = GcsObjectStore(
        "bucket",
        connections_limit=1,
        timeout_seconds=5,
        chunk_bytes=CHUNK_UNIT_BYTES,
        login=Login(timeout_seconds=5, endpoints={"storage": script.url}),
    )
    sink = a_sink()
    for port in (store, sink):
        with pytest.raises(SyncError) as caught:
            await port.check()
        told.note(caught.value)
        await port.close()


# -- warehouse ---------------------------------------------------------------------------------------------

ROWS = [OutgoingRow("id", {"experiment_run_name": "run"})]
COLUMNS = [Column("a", ColumnType.STRING)]
SINK_CALLS: dict[str, Callable[[BigQueryRowSink], Awaitable[object]]] = {
    "check": lambda sink: sink.check(),
    "describe": lambda sink: sink.describe(TABLE),
    "create_table": lambda sink: sink.create_table(TABLE, COLUMNS),
    "add_columns": lambda sink: sink.add_columns(TABLE, COLUMNS),
    "widen_columns": lambda sink: sink.widen_columns(TABLE, ["a"]),
    "stream": lambda sink: sink.stream(TABLE, ROWS),
    "load": lambda sink: sink.load(TABLE, ROWS, job_id="job"),
    "upload": lambda sink: sink.load(TABLE, ROWS, job_id="job"),
    "count_rows": lambda sink: sink.count_rows(TABLE, ["run"]),
    "running_loads": lambda sink: sink.running_loads(TABLE),
    "read_rows": lambda sink: sink.read_rows(TABLE, ["run"]),
    "read_table": lambda sink: sink.read_table(TABLE),
    "is_filtered": lambda sink: sink.is_filtered(TABLE),
}


def a_sink() -> BigQueryRowSink:
    """A sink that works with credentials and does not wait long for jobs without an end."""
    login = Login(timeout_seconds=5, endpoints={"bigquery": os.environ.get("BIGQUERY_EMULATOR_HOST")})
    return BigQueryRowSink(
        DATASET,
        PROJECT,
        emulator_host=None,
        login=login,
        timeout_seconds=5,
        job_timeout_seconds=0.2,
        threads_limit=1,
    )


def sink_answers() -> list[Answer]:
    message = (
        f"Bearer {ACCESS_TOKEN} and {ACCESS_TOKEN}, "
        f"https://bigquery.googleapis.com/upload?upload_id={SESSION_ID} "
        f"https://storage.googleapis.com/b/o?{SIGNED_QUERY}\n{private_key()}"
    )
    inserted = {"insertErrors": [{"index": 0, "errors": [{"reason": "invalid", "message": message}]}]}
    html = f"<html>{message}".encode()
    return [
        *(scripted_bigquery.error(status, "invalid", message, Retry_After="1") for status in STATUSES),
        *(Answer(status, html) for status in (200, 400, 403, 500)),
        Answer(200, {}),
        Answer(200, inserted),
        scripted_bigquery.load_job("job", "DONE", ("invalid", message), ("invalid", f"also {message}")),
        DROP,
    ]


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedBigQuery]:
    """A scripted BigQuery that the client takes for the real one, and a service account's key for it."""
    ask_no_other_host(partial(monkeypatch.setattr, raising=False))
    for name in scripted_gcs.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    with scripted_bigquery.scripted_bigquery() as server:
        key_file = tmp_path / "key.json"
        key_file.write_text(json.dumps(service_account_key(f"{server.url}/token")))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key_file))
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", server.url)
        yield server


@pytest.mark.anyio
@pytest.mark.parametrize(
    "call",
    [
        pytest.param(call, marks=() if call in ("stream", "load", "running_loads") else pytest.mark.large)
        for call in SINK_CALLS
    ],
)
async def test_no_answer_of_bigquery_makes_an_error_that_tells(
    call: str, warehouse: ScriptedBigQuery, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: errors, refusals and logs of rows are clean. Method: every call, every answer."""
    # Load jobs go through sessions, as those of several megabytes do.
    monkeypatch.setattr("google.cloud.bigquery.client._MAX_MULTIPART_SIZE", 1)
    failures = 0
    answers = sink_answers()
    if call == "upload":
        answers = [answer for answer in answers if answer.status in FINAL_STATUSES and answer is not DROP]
    for answer in answers:
        sink = a_sink()
        warehouse.forget_script()
        warehouse.dataset = answer if call == "check" else Answer(body=scripted_bigquery.DATASET_RESOURCE)
        if call == "upload":
            warehouse.script_session()
        warehouse.script(*[answer] * REPEATS)
        try:
            told.texts.append(repr(await SINK_CALLS[call](sink)))
        except SyncError as error:
            failures += 1
            told.note(error)
        await sink.close()
    assert failures > len(answers) / 2
    assert any(asked.headers["Authorization"] == f"Bearer {ACCESS_TOKEN}" for asked in warehouse.asked)


@pytest.mark.anyio
async def test_no_answer_of_bigquerys_token_service_makes_an_error_that_tells(
    warehouse: ScriptedBigQuery, told: Told
) -> None:
    """Goal: what the token service says is clean, also in shapes that no service has. Method: each answer."""
    odd = [Answer(400, {"access_token": ACCESS_TOKEN, "key": private_key()}), Answer(400, [ACCESS_TOKEN])]
    final = [answer for answer in sink_answers() if answer.status in FINAL_STATUSES and answer is not DROP]
    for answer in [*final, *odd]:
        warehouse.token = answer
        sink = a_sink()
        with pytest.raises(SyncError) as caught:
            await sink.check()
        told.note(caught.value)
        await sink.close()
