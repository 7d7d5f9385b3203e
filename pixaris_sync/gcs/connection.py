"""Connections, access tokens and requests to GCS.

Tokens come from the Application Default Credentials. The client's own token repeats each failed request with
growing waits, and lets its callers share one task, so that the cancellation of one caller would reach the
others. `BoundedToken` makes one request, with a time limit, under a lock; repeating is the business of
whoever decides on retries. Whoever has no credentials is told so quickly: without a credentials file the
only other source is the metadata server of a Google Cloud machine, which answers at once where it exists.

A request is sent once, with two exceptions: a 401 is answered with one fresh token, because tokens expire
while machines sleep; and aiohttp repeats a GET or PUT once where a connection breaks that was kept from
before, which harms no look-up and no session (the service drops bytes that it has).
`Connection` also knows whether a request that failed had left this machine, which tells a write that may have
been done from one that was not.
"""

import asyncio
import math
import time
import urllib.request
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import quote

import aiohttp
import anyio
from gcloud.aio.auth import Token
from gcloud.aio.auth.token import Type
from gcloud.aio.storage import Storage

from pixaris_sync.errors import ConfigurationError, Failure, SyncError
from pixaris_sync.gcs.answers import CREDENTIALS_HINT, Refusal, unanswered
from pixaris_sync.gcs.bodies import begin_transfer
from pixaris_sync.limits.bandwidth import BYTES_PER_SECOND_MIN, Pace

T = TypeVar("T")

#: Where Google's JSON API is served.
GOOGLE_API_ROOT = "https://storage.googleapis.com"

#: The slowest connection on which a body of any size still arrives within its time limit; a limit that can
#: be set is never slower.
SLOWEST_UPLINK_BYTES_PER_SECOND = BYTES_PER_SECOND_MIN

#: Enough to create, replace, read and list objects.
SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)

#: How long the metadata server of a Google Cloud machine may take; elsewhere there is none.
METADATA_TIMEOUT_SECONDS = 3

#: The share of a token's lifetime after which a new one is taken.
LIFETIME_SHARE = 0.9

#: What a request gives to the client, as `Connection.request` sees to its limit.
NO_TIME_LIMIT = aiohttp.ClientTimeout(total=None)

_OPERATION = "get an access token from"


class BoundedToken(Token):
    """The access token of a storage client.

    Args:
        session: the HTTP session to ask with; it stays the caller's.
        service_file: path of a credentials file; None for the Application Default Credentials.
        timeout_seconds: limit of one acquisition.

    Raises:
        ConfigurationError: the credentials file is missing or is none (failure CREDENTIALS).
    """

    def __init__(
        self, *, session: aiohttp.ClientSession, service_file: str | None, timeout_seconds: float
    ) -> None:
        failure: SyncError | None = None
        try:
            super().__init__(
                service_file=service_file,
                session=session,  # type: ignore[arg-type]  # its twin without asyncio
                scopes=[*SCOPES],
            )
        except Exception as error:  # noqa: BLE001 - the client raises bare Exception for files it cannot use
            failure = _unusable(error)
        if failure is not None:
            raise failure
        self._from_metadata_server = self.token_type is Type.GCE_METADATA
        self._limit_seconds = (
            METADATA_TIMEOUT_SECONDS if self._from_metadata_server else math.ceil(timeout_seconds)
        )
        self._acquired_once = False
        self._renew_at = 0.0
        self._lock = anyio.Lock()

    async def ensure_token(self) -> None:
        """Make sure that there is a token which is not about to expire.

        Raises:
            ConfigurationError: there are no credentials, or they are refused (failure CREDENTIALS).
            SyncError: the token service cannot be reached (TRANSIENT) or asks for less (QUOTA).
        """
        if self._is_good():
            return
        async with self._lock:
            # Another task may have taken one while this one waited.
            if not self._is_good():
                await self._acquire()

    def _is_good(self) -> bool:
        return self.access_token is not None and time.monotonic() < self._renew_at

    def forget(self, refused: str | None) -> None:
        """Drop the token that was refused, so that the next caller gets a fresh one.

        A token that was renewed in the meantime stays.
        """
        if self.access_token == refused:
            self.access_token = None

    async def _acquire(self) -> None:
        asked_at = time.monotonic()
        try:
            with anyio.fail_after(self._limit_seconds):
                answer = await self.refresh(timeout=self._limit_seconds)
        except Exception as error:  # noqa: BLE001 - the client raises bare Exception for files it cannot use
            failure = self._failure(error)
        else:
            self.access_token = answer.value
            self._renew_at = asked_at + answer.expires_in * LIFETIME_SHARE
            self._acquired_once = True
            return
        # Raised here, apart from the client's exception: that one can hold the request.
        raise failure

    def _failure(self, error: Exception) -> SyncError:
        subject = "the metadata server" if self._from_metadata_server else "the token service"
        if not isinstance(error, aiohttp.ClientError | TimeoutError):
            return _unusable(error)
        refusal = Refusal.from_client(error)
        passing = refusal is not None and refusal.failure in (Failure.TRANSIENT, Failure.QUOTA)
        if self._from_metadata_server and not self._acquired_once and not passing:
            return ConfigurationError(
                "find",
                "Google Cloud credentials",
                "there is no credentials file, and no metadata server that gives a token",
                hint=CREDENTIALS_HINT,
                failure=Failure.CREDENTIALS,
            )
        if refusal is None:
            return unanswered(_OPERATION, subject, error, sent=True, writes=False)
        answer = " ".join((str(refusal.status), *refusal.reasons))
        if passing:
            return SyncError(
                _OPERATION,
                subject,
                f"it answered {answer}",
                failure=refusal.failure,
                retry_after_seconds=refusal.retry_after_seconds,
            )
        return ConfigurationError(
            _OPERATION,
            subject,
            f"it refused the credentials ({answer})",
            hint=CREDENTIALS_HINT,
            failure=Failure.CREDENTIALS,
        )


def _unusable(error: Exception) -> ConfigurationError:
    """The error for a credentials file that is missing or is none; the text of `error` may quote it."""
    if isinstance(error, FileNotFoundError):
        cause = "the credentials file does not exist"
    elif isinstance(error, OSError):
        cause = f"the credentials file cannot be read ({error.strerror or type(error).__name__})"
    else:
        cause = f"the credentials file cannot be used ({type(error).__name__})"
    return ConfigurationError(
        "use", "Google Cloud credentials", cause, hint=CREDENTIALS_HINT, failure=Failure.CREDENTIALS
    )


class Connection:
    """The way to one bucket: requests under limits, with a token where one is needed.

    Connections are opened by the first request, in the running event loop; `close` gives them back.

    Args:
        bucket: the bucket's name.
        emulator_host: address of an emulator, with or without a scheme; no token is asked for.
        api_root: where the API is served otherwise.
        service_file: path of a credentials file; None for the Application Default Credentials.
        connections_limit: the most connections to open.
        timeout_seconds: limit of one request without its body; waiting for a free connection counts.
        pace: what uploads hold to; None for nothing.
    """

    def __init__(
        self,
        bucket: str,
        *,
        emulator_host: str | None,
        api_root: str,
        service_file: str | None,
        connections_limit: int,
        timeout_seconds: float,
        pace: Pace | None = None,
    ) -> None:
        root = emulator_host or api_root
        self.bucket = bucket
        self.bucket_in_path = quote(bucket, safe="")
        self._emulated = bool(emulator_host)
        self._api_root = (root if "://" in root else f"http://{root}").rstrip("/")
        self._service_file = service_file
        self._connections_limit = connections_limit
        self._timeout_seconds = timeout_seconds
        self._pace = pace
        self._session: aiohttp.ClientSession | None = None
        self._storage: Storage | None = None
        self._token: BoundedToken | None = None

    @property
    def bucket_url(self) -> str:
        """Where the bucket is read."""
        return f"{self._api_root}/storage/v1/b/{self.bucket_in_path}"

    @property
    def upload_url(self) -> str:
        """Where uploads to the bucket begin."""
        return f"{self._api_root}/upload/storage/v1/b/{self.bucket_in_path}/o"

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

    async def close(self) -> None:
        """Give connections back. Safe to call twice; a later request opens new ones."""
        session, self._session, self._storage, self._token = self._session, None, None, None
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
        waits for its turn first, and may take as long as the slowest uplink needs for them on top.

        Raises:
            SyncError: there is no readable answer, or no token.
        """
        storage, tokens, renewed = self._open(), self._token, False
        limit_seconds = self._timeout_seconds + paced_bytes / SLOWEST_UPLINK_BYTES_PER_SECOND
        while True:
            # Before its time limit begins, and before the token, which might be too old by then.
            pace = await self._pace.next_body(paced_bytes) if self._pace and paced_bytes else None
            token = await tokens.get() if tokens else None
            transfer = begin_transfer(pace)
            try:
                # A third of the price of anyio's, and this is done for each small file.
                async with asyncio.timeout(limit_seconds):
                    return await send(storage)
            except (aiohttp.ClientError, OSError, ValueError) as error:
                answer = Refusal.from_client(error, checksum=checksum) or unanswered(
                    operation, subject, error, sent=transfer.begun or not writes, writes=writes
                )
            # From here on apart from the client's exception: that one holds the request.
            if isinstance(answer, SyncError):
                raise answer
            if answer.status != HTTPStatus.UNAUTHORIZED or tokens is None or renewed:
                return answer
            tokens.forget(token)
            renewed = True

    def _open(self) -> Storage:
        """The client, with its connections; made in the running loop by whoever comes first."""
        if self._storage is not None:
            return self._storage
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._connections_limit),
                cookie_jar=aiohttp.DummyCookieJar(),
                # Costs two thread hops a request, so only where a proxy is set. An emulator is near.
                trust_env=not self._emulated and bool(urllib.request.getproxies()),
            )
        if not self._emulated:
            # Reads the credentials file, if there is one, on the spot: it is small.
            self._token = BoundedToken(
                session=self._session,
                service_file=self._service_file,
                timeout_seconds=self._timeout_seconds,
            )
        self._storage = Storage(
            session=self._session,  # type: ignore[arg-type]  # its twin without asyncio
            token=self._token,
            api_root=self._api_root,
            api_is_dev=self._emulated,
        )
        return self._storage
