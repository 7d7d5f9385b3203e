"""The connections of the warehouse: in whose name, to nobody else, and no longer than their sender waits.

Credentials are loaded anew once they were refused: whoever was told to log in again has done so by the next
request, or will. No redirect is followed, neither with rows nor with the secrets that a token is asked for
with: neither API documents one, so it is somebody else who sends us elsewhere.

When a process dies or closes a connection, the kernel sends on what was written and is not acknowledged, and
repeats it for minutes (tcp(7), ``tcp_orphan_retries``, ``tcp_retries2``). Rows would so arrive behind those
that replaced them. Two options of the sockets prevent it:

* ``SO_LINGER``, on with no time (socket(7)): however the socket ends, by a time limit or with its process,
  the kernel throws away what it has not sent, and tells the other end by a reset.
* ``TCP_USER_TIMEOUT`` (tcp(7)), the time limit of a request: the kernel gives up what is not acknowledged in
  that time by itself, though the process was stopped or the machine slept meanwhile.

What had left this machine can still arrive: packets on their way, which live for seconds, and a whole request
that a proxy or the service's front had taken before the reset. A part of a request is none to anybody. An
answer that was read takes no harm: by then the reset only ends an idle connection.
"""

import json
import socket
import struct
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import requests
from google.auth.exceptions import GoogleAuthError
from google.auth.transport.requests import AuthorizedSession
from requests import TooManyRedirects
from urllib3.connection import HTTPConnection

from pixaris_sync import USER_AGENT
from pixaris_sync.rules.addresses import leads_elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.auth.credentials import Credentials
    from requests import Response
    from requests.adapters import HTTPAdapter


class ForeignAnswerError(requests.RequestException):
    """Something else has answered in the place of the service that gives out access tokens.

    Attributes:
        status: the HTTP status that it gave.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP status {status}")
        self.status = status


class ResettingSession(AuthorizedSession):
    """A session whose connections end with a reset, with TLS or without, through a proxy or not.

    The connection of a request that failed is closed at once: urllib3 sees to that. An answer that redirects
    is returned like any other; an address that an answer gives to an upload is asked only where the first
    request went, and at Google's.

    Args:
        load_credentials: gives what requests are signed with: now, and again once that was refused.
        timeout_seconds: the time limit of a request, which it has to be given as well.

    Raises:
        GoogleAuthError: there are no credentials, or they cannot be used.
    """

    def __init__(self, load_credentials: "Callable[[], Credentials]", timeout_seconds: float) -> None:
        super().__init__(load_credentials())  # type: ignore[no-untyped-call] # it has no annotations
        self._load_credentials = load_credentials
        self._refused: Credentials | None = None
        self._first_asked = ""
        self._socket_options = _socket_options(timeout_seconds)
        # The plain session that asks for tokens.
        asking = self._auth_request_session
        asking.headers["User-Agent"] = USER_AGENT
        # Google's library takes any page for a refusal of the credentials.
        asking.hooks["response"].append(_refuse_pages)
        asking.get_redirect_target = self.get_redirect_target  # type: ignore[method-assign]

    def request(self, method: str, url: str, **options: Any) -> "Response":  # type: ignore[override]  # noqa: ANN401 - handed on
        """Send a request, with credentials that were not refused yet.

        Raises:
            GoogleAuthError: they are refused now, or cannot be loaded.
            TooManyRedirects: `url` leads to a stranger.
        """
        self._first_asked = self._first_asked or url
        if leads_elsewhere(url, self._first_asked):
            raise TooManyRedirects
        if self.credentials is self._refused:
            self.credentials = self._load_credentials()
        # A request that takes long must not condemn what was loaded meanwhile.
        credentials = self.credentials
        try:
            answer: Response = super().request(method, url, **options)  # type: ignore[no-untyped-call] # as above
        except GoogleAuthError as error:
            if not error.retryable:
                self._refused = credentials
            raise
        if answer.status_code == HTTPStatus.UNAUTHORIZED:
            self._refused = credentials
        return answer

    def get_redirect_target(self, resp: "Response") -> None:
        """Where an answer redirects to: nowhere."""

    def get_adapter(self, url: str) -> "HTTPAdapter":
        """What makes the connections to `url`, told how they are to end.

        It is told at each request, and not once: Google's session mounts another adapter where there is a
        client certificate, and again when that is replaced.
        """
        adapter = cast("HTTPAdapter", super().get_adapter(url))
        options = self._socket_options
        adapter.poolmanager.connection_pool_kw["socket_options"] = options
        with_options = partial(type(adapter).proxy_manager_for, adapter, socket_options=options)
        adapter.proxy_manager_for = with_options  # type: ignore[method-assign] # proxies get known by requests
        return adapter


def _refuse_pages(response: requests.Response, **_: object) -> None:
    """Raise where a refusal is not in the JSON of OAuth (RFC 6749, 5.2), but for the metadata server's.

    Raises:
        ForeignAnswerError: it is the page of a proxy.
    """
    refused = HTTPStatus.BAD_REQUEST <= response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR
    if not refused or not response.url.startswith("https:"):
        return
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        body = None
    if not (isinstance(body, Mapping) and "error" in body):
        raise ForeignAnswerError(response.status_code)


def _socket_options(timeout_seconds: float) -> list[tuple[int, int, int | bytes]]:
    options = [
        *HTTPConnection.default_socket_options,
        (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)),
    ]
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        milliseconds = max(round(timeout_seconds * 1000), 1)
        options.append((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds))
    return options
