"""Access tokens for GCS, from the Application Default Credentials.

The client's own token repeats each failed request with growing waits, and lets its callers share one task, so
that the cancellation of one caller would reach the others. `BoundedToken` makes one request, with a time
limit, under a lock; retries are decided elsewhere. Missing credentials are told quickly: without a
credentials file the only other source is the metadata server of a Google Cloud machine, which answers at once
where it exists.

Credentials are read once, and again when they were refused: whoever was told to log in again, to put a key
file in the place of another, or to make one, has done so by the next attempt, or will.
"""

import math
import time

import aiohttp
import anyio
from gcloud.aio.auth import Token
from gcloud.aio.auth.token import Type

from pixaris_sync.errors import (
    CREDENTIALS_HINT,
    IN_BETWEEN_HINT,
    ConfigurationError,
    Failure,
    SyncError,
    in_between_cause,
    open_files_hint,
)
from pixaris_sync.gcs.answers import Refusal, unanswered

#: Enough to create, replace, read and list objects.
SCOPES = ("https://www.googleapis.com/auth/devstorage.read_write",)

#: How long the metadata server of a Google Cloud machine may take; elsewhere there is none.
METADATA_TIMEOUT_SECONDS = 3

#: The share of a token's lifetime after which a new one is taken.
LIFETIME_SHARE = 0.9

_OPERATION = "get an access token from"


class BoundedToken(Token):
    """The access token of a storage client, by the Application Default Credentials.

    Args:
        session: the HTTP session to ask with; it stays the caller's.
        timeout_seconds: limit of one acquisition.

    Raises:
        ConfigurationError: the credentials file is missing or is none (failure CREDENTIALS).
    """

    def __init__(self, *, session: aiohttp.ClientSession, timeout_seconds: float) -> None:
        self._http = session
        self._timeout_seconds = timeout_seconds
        self._renew_at = 0.0
        self._lock = anyio.Lock()
        self._metadata_server_seen = False
        self._load()

    def _load(self) -> None:
        """Read the credentials; what was acquired with others is dropped.

        Raises:
            ConfigurationError: their file is missing or is none.
        """
        self._refused = True
        failure: SyncError | None = None
        try:
            super().__init__(
                session=self._http,  # type: ignore[arg-type]  # its twin without asyncio
                scopes=[*SCOPES],
            )
        except Exception as error:  # noqa: BLE001 - the client raises bare Exception for files it cannot use
            failure = _unusable(error)
        if failure is not None:
            raise failure
        self._refused = False
        self._from_metadata_server = self.token_type is Type.GCE_METADATA
        self._limit_seconds = (
            METADATA_TIMEOUT_SECONDS if self._from_metadata_server else math.ceil(self._timeout_seconds)
        )

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
        """Drop the token that was refused, so that the next caller gets a fresh one by fresh credentials.

        A token that was renewed in the meantime stays.
        """
        if self.access_token == refused:
            self.access_token = None
            self._refused = True

    async def _acquire(self) -> None:
        if self._refused:
            self._load()
        asked_at = time.monotonic()
        try:
            with anyio.fail_after(self._limit_seconds):
                answer = await self.refresh(timeout=self._limit_seconds)
        except Exception as error:  # noqa: BLE001 - the client raises bare Exception for files it cannot use
            failure = self._failure(error)
        else:
            self.access_token = answer.value
            self._renew_at = asked_at + answer.expires_in * LIFETIME_SHARE
            self._metadata_server_seen |= self._from_metadata_server
            return
        self._refused = failure.failure is Failure.CREDENTIALS
        # Raised here, apart from the client's exception: that one can hold the request.
        raise failure

    def _failure(self, error: Exception) -> SyncError:
        subject = "the metadata server" if self._from_metadata_server else "the token service"
        if not isinstance(error, aiohttp.ClientError | TimeoutError):
            return _unusable(error)
        refusal = Refusal.from_client(error)
        passing = refusal is not None and refusal.failure in (Failure.TRANSIENT, Failure.QUOTA)
        if self._from_metadata_server and refusal is not None and refusal.in_between:
            # Nothing is in between there: it says so in plain words where the machine has no account.
            passing = False
        if self._from_metadata_server and not self._metadata_server_seen and not passing:
            return ConfigurationError(
                "find",
                "Google Cloud credentials",
                "there is no credentials file, and no metadata server that gives a token",
                hint=CREDENTIALS_HINT,
                failure=Failure.CREDENTIALS,
            )
        if refusal is None:
            return unanswered(_OPERATION, subject, error, sent=True, writes=False)
        if passing and refusal.in_between:
            cause = in_between_cause(refusal.status)
            return SyncError(_OPERATION, subject, cause, hint=IN_BETWEEN_HINT, failure=Failure.TRANSIENT)
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


def _unusable(error: Exception) -> SyncError:
    """The error for a credentials file that is missing or is none; the text of `error` may quote it."""
    if hint := open_files_hint(error):
        cause = "the credentials file cannot be opened now"
        return SyncError("use", "Google Cloud credentials", cause, hint=hint, failure=Failure.TRANSIENT)
    if isinstance(error, FileNotFoundError):
        cause = "the credentials file does not exist"
    elif isinstance(error, OSError):
        cause = f"the credentials file cannot be read ({error.strerror or type(error).__name__})"
    else:
        cause = f"the credentials file cannot be used ({type(error).__name__})"
    return ConfigurationError(
        "use", "Google Cloud credentials", cause, hint=CREDENTIALS_HINT, failure=Failure.CREDENTIALS
    )
