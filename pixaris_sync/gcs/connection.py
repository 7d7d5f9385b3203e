"""Connections and requests to GCS.

A request is sent once, with two exceptions: a 401 is answered with one fresh token, because tokens expire
while machines sleep; and aiohttp repeats a GET or PUT once where a connection breaks that was kept from
before, which harms no look-up and no session (the service drops bytes that it has).

No redirect is followed, neither with content nor with the secrets that a token is asked for with, and what
redirects is not believed, be it to the same host: the API redirects downloads of browsers alone ("HTTP status
and error codes for JSON", 302 to 307), and its 308, which ends a chunk of a session, has no address to go to.

`Connection` also knows whether a request that failed had left this machine, which tells a write that may have
been done from one that was not.

A request's time limit is one of standing still: see `standstill`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import aiohttp
import anyio.to_thread
import msgspec
from gcloud.aio.storage import Storage

from pixaris_sync import USER_AGENT
from pixaris_sync.errors import SyncError
from pixaris_sync.gcs.answers import RedirectedError, Refusal, unanswered
from pixaris_sync.gcs.bodies import TracedRequest, begin_transfer
from pixaris_sync.gcs.standstill import Standstill
from pixaris_sync.gcs.tokens import SharedToken
from pixaris_sync.limits.bandwidth import Pace
from pixaris_sync.login import certificates
from pixaris_sync.login.login import Login
from pixaris_sync.model import JsonValue
from pixaris_sync.rules.addresses import at, leads_elsewhere

if TYPE_CHECKING:
    import ssl

    from aiohttp.connector import Connection as ClientConnection

T = TypeVar("T")

#: What a request gives to the client, as `Connection.request` sees to its limit.
NO_TIME_LIMIT = aiohttp.ClientTimeout(total=None)


class Connection:
    """The way to one bucket: requests under limits, with a token where one is needed.

    Connections are opened by the first request, in the running event loop; `close` gives them back.

    Args:
        bucket: the bucket's name.
        login: whose requests they are; None for an emulator, which no token is asked for.
        api_root: where the API is served.
        connections_limit: the most connections to open.
        timeout_seconds: how long nothing may move on the way of a request, in either direction; waiting for a
            free connection counts.
        pace: what uploads hold to; None for nothing.
    """

    def __init__(
        self,
        bucket: str,
        *,
        login: Login | None,
        api_root: str,
        connections_limit: int,
        timeout_seconds: float,
        pace: Pace | None = None,
    ) -> None:
        self.bucket = bucket
        self.bucket_in_path = quote(bucket, safe="")
        self._login = login
        self._emulated = login is None
        self._api_root = (api_root if "://" in api_root else f"http://{api_root}").rstrip("/")
        self._connections_limit = connections_limit
        self._timeout_seconds = timeout_seconds
        self._pace = pace
        self._session: aiohttp.ClientSession | None = None
        self._opened: tuple[Storage, Standstill] | None = None
        self._token: SharedToken | None = None

    @property
    def bucket_url(self) -> str:
        """Where the bucket is read."""
        return f"{self._api_root}/storage/v1/b/{self.bucket_in_path}"

    @property
    def upload_url(self) -> str:
        """Where uploads to the bucket begin."""
        return f"{self._api_root}/upload/storage/v1/b/{self.bucket_in_path}/o"

    def session_address(self, told: str) -> str:
        """Where a session goes on that the service tells the address of.

        Raises:
            RedirectedError: it is a stranger's.
        """
        universe = {} if self._login is None else {"universe": self._login.universe}
        if leads_elsewhere(told, self._api_root, **universe):
            raise RedirectedError
        private = self._login is not None and self._login.endpoint("storage") is not None
        return at(self._api_root, told) if private else told

    def subject(self, name: str) -> str:
        """How messages call an object."""
        return f"gs://{self.bucket}/{name}"

    async def authorization(self) -> dict[str, str]:
        """The header that a request made by hand needs."""
        return {} if self._token is None else {"Authorization": f"Bearer {await self._token.get()}"}

    async def next_object(self) -> None:
        """Wait until the bucket can take one more object; emulators take as many as come."""
        if self._pace is not None and not self._emulated:
            await self._pace.next_object()

    async def date(self) -> str:
        """The service's clock as it tells it with any answer, a refusal too: no token is needed, or sent.

        It is the ``Date`` header (RFC 9110, 6.6.1); empty where the answer has none.

        Raises:
            SyncError: there is no answer.
        """
        if self._session is None:
            self._session = self._connected()
        try:
            async with (
                asyncio.timeout(self._timeout_seconds),
                self._session.get(self.bucket_url, timeout=NO_TIME_LIMIT) as answer,
            ):
                return answer.headers.get("Date", "")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure = unanswered("reach", f"bucket {self.bucket}", error, sent=True, writes=False)
        # Raised here, apart from the client's exception: that one holds the request.
        raise failure

    async def close(self) -> None:
        """Give connections back. Safe to call twice; a later request opens new ones."""
        session, opened = self._session, self._opened
        self._session = self._opened = self._token = None
        if opened is not None:
            opened[1].close()
        if session is not None:
            await session.close()

    async def request(
        self,
        operation: str,
        subject: str,
        send: Callable[[Storage], Awaitable[T]],
        *,
        writes: bool = False,
        checksum: str = "",
        paced_bytes: int = 0,
    ) -> T | Refusal:
        """Send a request, with a fresh token once if the service does not accept the one it got.

        Returns what `send` returns, or how the service refused. `send` leaves the time limit to this
        (`NO_TIME_LIMIT`), and raises ValueError for an answer that it cannot read. A request of `paced_bytes`
        waits for its turn first.

        Raises:
            SyncError: there is no readable answer, or no token.
        """
        (storage, standstill), tokens, renewed = self._open(), self._token, False
        while True:
            # Before its time limit begins, and before the token, which might be too old by then.
            pace = await self._pace.next_body(paced_bytes) if self._pace and paced_bytes else None
            token = await tokens.get() if tokens else None
            transfer = begin_transfer(pace)
            try:
                # A third of the price of anyio's, and this is done for each small file.
                async with asyncio.timeout(None) as limit:
                    watched = standstill.begin(limit, transfer, paced_bytes)
                    try:
                        return await send(storage)
                    finally:
                        standstill.end(watched)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                refusal = Refusal.from_client(error, checksum=checksum, emulated=self._emulated)
                answer = refusal or unanswered(
                    operation, subject, error, sent=transfer.begun or not writes, writes=writes
                )
            # From here on apart from the client's exception: that one holds the request.
            if isinstance(answer, SyncError):
                raise answer
            if answer.status != HTTPStatus.UNAUTHORIZED or self._login is None or renewed:
                return answer
            # The login's lock may be held for as long as somebody gets a token.
            await anyio.to_thread.run_sync(self._login.refuse, token)
            renewed = True

    def _open(self) -> tuple[Storage, Standstill]:
        """The client with its connections and limits, which the first request makes in the running loop."""
        if self._opened is not None:
            return self._opened
        if self._session is None:
            self._session = self._connected()
        token = SharedToken(self._login, self._session)
        self._token = None if self._emulated else token
        storage = Storage(
            session=self._session,  # type: ignore[arg-type]  # its twin without asyncio
            # Without one, the client would look for credentials even for an emulator.
            token=token,
            api_root=self._api_root,
            api_is_dev=self._emulated,
        )
        self._opened = storage, Standstill(self._timeout_seconds)
        return self._opened

    def _connected(self) -> aiohttp.ClientSession:
        proxy: str | None = None
        trust: ssl.SSLContext | bool = True
        if self._login is not None or self._api_root.startswith("https:"):
            # Not for an emulator, which is near.
            trust = certificates.context()
            # Looked up once: aiohttp does so at each request, in a thread.
            proxy = certificates.proxy_for(self._api_root) if self._login else None
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections_limit, ssl=trust),
            request_class=TracedRequest,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": USER_AGENT},
            response_class=_Answer,
            proxy=proxy,
        )


class _Answer(aiohttp.ClientResponse):
    """An answer that sends nobody elsewhere, and is read in a third of the time.

    It looks at itself: a middleware of the client would cost three calls more for each small file.
    """

    async def start(self, connection: "ClientConnection") -> aiohttp.ClientResponse:
        """See `aiohttp.ClientResponse`; the client closes what this refuses."""
        await super().start(connection)
        ends_chunk = self.status == HTTPStatus.PERMANENT_REDIRECT and "Location" not in self.headers
        if HTTPStatus.MULTIPLE_CHOICES <= self.status < HTTPStatus.BAD_REQUEST and not ends_chunk:
            raise RedirectedError
        return self

    async def json(self, **_: object) -> JsonValue:
        """The content, whatever type it says it has; what arrived with its head is taken without waiting.

        Raises:
            ValueError: it is no JSON.
        """
        content = self.content.read_nowait() if self.content.is_eof() else await self.read()
        return msgspec.json.decode(content)
