"""The requests for tokens, as google-auth makes them: with limits, without redirects, judged at once.

Google's library repeats requests by itself, with growing waits, after answers and exceptions that it knows.
What must not be repeated is so raised here as errors that it does not know: when to try again is decided
elsewhere.
"""

import json
import ssl
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from google.auth import transport
from msgspec import Struct
from requests.adapters import HTTPAdapter

from pixaris_sync import USER_AGENT
from pixaris_sync.errors import (
    CERTIFICATE_HINT,
    FOREIGN_STATUSES,
    IN_BETWEEN_HINT,
    Failure,
    SyncError,
    in_between_cause,
    open_files_hint,
)
from pixaris_sync.limits.backoff import retry_after_seconds
from pixaris_sync.login import certificates
from pixaris_sync.model import JsonValue
from pixaris_sync.rules.addresses import is_near

OPERATION = "get an access token from"
_PASSING_ERRORS: Final = frozenset({"internal_failure", "server_error", "temporarily_unavailable"})
_METADATA_HEADER: Final = "metadata-flavor"


class Answer(Struct, frozen=True):
    """An answer as google-auth reads one."""

    status: int
    headers: Mapping[str, str]
    data: bytes


class RefusedError(Exception):
    """A token service has said no.

    Attributes:
        address: who.
        status: the HTTP status.
        body: its JSON, where it has one.
        clock_ahead_seconds: how far this machine's clock is ahead of the service's, as far as is known.
    """

    def __init__(
        self, address: str, status: int, body: Mapping[str, JsonValue], clock_ahead_seconds: float
    ) -> None:
        super().__init__(status)
        self.address = address
        self.status = status
        self.body = body
        self.clock_ahead_seconds = clock_ahead_seconds


class _Trusting(HTTPAdapter):
    """Connections by a context of ours, through a proxy or not."""

    def __init__(self, trust: ssl.SSLContext) -> None:
        self._trust = trust
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - handed on
        super().init_poolmanager(*arguments, ssl_context=self._trust, **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:  # noqa: ANN401 - handed on
        trust = {"ssl_context": self._trust, "proxy_ssl_context": self._trust}
        return super().proxy_manager_for(proxy, **trust, **options)


class Asking(transport.Request):
    """Sends google-auth's requests, each time within the limit of the acquisition that it belongs to.

    Args:
        limit_seconds: how long one acquisition may take, whatever number of requests it needs.
        shows_certificate: a certificate of the workload's is shown, to token services alone.

    Attributes:
        met_metadata_server: one of Google's own has answered.

    Raises:
        ConfigurationError: the certificates cannot be used.
    """

    def __init__(self, limit_seconds: float, *, shows_certificate: bool = False) -> None:
        self._limit_seconds = limit_seconds
        self._ends_at = 0.0
        self.met_metadata_server = False
        self._session = requests.Session()
        # ~/.netrc is not asked for a login in the place of ours.
        self._session.auth = _as_it_is
        self._session.headers["User-Agent"] = USER_AGENT
        trust = certificates.new_context() if shows_certificate else certificates.context()
        self._session.mount("https://", _Trusting(trust))
        self._session.verify = certificates.bundle() or True

    def begin(self) -> None:
        """An acquisition begins now."""
        self._ends_at = time.monotonic() + self._limit_seconds

    def close(self) -> None:
        """Give connections back."""
        self._session.close()

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **options: Any,  # noqa: ANN401 - handed on
    ) -> Answer:
        """Send a request.

        Raises:
            RefusedError: a token service says no.
            SyncError: there is no answer that says anything of the credentials (TRANSIENT, QUOTA).
        """
        left = self._ends_at - time.monotonic()
        subject = name_of(url)
        if left <= 0:
            raise _unanswered(subject, "no answer within the time limit")
        if is_near(urlsplit(url).hostname or ""):
            options["proxies"] = dict.fromkeys(("http", "https", "all"))
        try:
            answer = self._session.request(
                method,
                url,
                data=body,
                headers=headers,
                timeout=min(timeout or left, left),
                allow_redirects=False,
                **options,
            )
        except (requests.RequestException, OSError) as error:
            failure = _broken(subject, error)
        else:
            self.met_metadata_server |= _METADATA_HEADER in answer.headers
            return _judged(answer, subject, asks_for_token=method == "POST")
        # Apart from the exception, which holds the request and its secrets.
        raise failure


def name_of(address: str) -> str:
    """How messages call whoever answers at an address."""
    return f"the token service {urlsplit(address).hostname or 'without a name'}"


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _judged(answer: requests.Response, subject: str, *, asks_for_token: bool) -> Answer:
    status = answer.status_code
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        cause = "the answer redirects to another address, which is not followed"
        raise _unanswered(subject, cause, IN_BETWEEN_HINT)
    if status in FOREIGN_STATUSES:
        raise _unanswered(subject, in_between_cause(status), IN_BETWEEN_HINT)
    passing = status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT
    if passing or status == HTTPStatus.TOO_MANY_REQUESTS:
        raise SyncError(
            OPERATION,
            subject,
            f"it answered {status}",
            failure=Failure.TRANSIENT if passing else Failure.QUOTA,
            retry_after_seconds=retry_after_seconds(answer.headers.get("Retry-After", ""), time.time()),
        )
    if asks_for_token:
        body = _object(answer.content)
        if status < HTTPStatus.MULTIPLE_CHOICES and body is None:
            raise _unanswered(subject, "the answer cannot be read", IN_BETWEEN_HINT)
        if status >= HTTPStatus.BAD_REQUEST:
            if body is None or "error" not in body:
                raise _unanswered(subject, in_between_cause(status), IN_BETWEEN_HINT)
            if str(body["error"]) in _PASSING_ERRORS:
                raise _unanswered(subject, f"it answered {status} {body['error']}")
            raise RefusedError(answer.url, status, body, _clock_ahead_seconds(answer))
    return Answer(status, answer.headers, answer.content)


def _object(content: bytes) -> Mapping[str, JsonValue] | None:
    try:
        read = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, Mapping) else None


def _clock_ahead_seconds(answer: requests.Response) -> float:
    try:
        return time.time() - parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return 0.0


def _broken(subject: str, error: Exception) -> SyncError:
    hint = open_files_hint(error)
    match error:
        case requests.exceptions.SSLError():
            cause, hint = "no secure connection can be made", CERTIFICATE_HINT
        case requests.exceptions.ProxyError():
            cause, hint = "the proxy makes no connection to it", hint or IN_BETWEEN_HINT
        case requests.Timeout() | TimeoutError():
            cause = "no answer within the time limit"
        case requests.ConnectionError():
            cause = "no connection can be made, or it broke"
        case _:
            cause = f"the request cannot be made ({type(error).__name__})"
    return _unanswered(subject, cause, hint)


def _unanswered(subject: str, cause: str, hint: str = "") -> SyncError:
    return SyncError(OPERATION, subject, cause, hint=hint, failure=Failure.TRANSIENT)
