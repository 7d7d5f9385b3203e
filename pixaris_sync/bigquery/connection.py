"""The connections of the warehouse: in whose name, to nobody else, and no longer than their sender waits.

No redirect is followed: the API documents none, so it is somebody else who sends us elsewhere. A 401 is
answered with one fresh token, because tokens expire while machines sleep.

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

import socket
import struct
import threading
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from google.auth.credentials import AnonymousCredentials, Credentials
from google.auth.transport.requests import AuthorizedSession, Request
from requests import TooManyRedirects
from urllib3.connection import HTTPConnection

from pixaris_sync.login import certificates
from pixaris_sync.login.login import Login
from pixaris_sync.rules.addresses import at, leads_elsewhere

if TYPE_CHECKING:
    from requests import PreparedRequest, Response
    from requests.adapters import HTTPAdapter


class LoginCredentials(Credentials):
    """The login as Google's client asks for it; what each thread sent with is remembered, to be refused."""

    def __init__(self, login: Login) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # it has no annotations
        self._login = login
        self._universe_domain = login.universe
        self._sent = threading.local()

    def before_request(self, request: object, method: str, url: str, headers: dict[str, str]) -> None:  # noqa: ARG002 - as called
        """Sign a request; raises as `Login.token` does."""
        self._sent.token = self._login.token()
        headers["authorization"] = f"Bearer {self._sent.token}"
        headers.update(self._login.headers)

    def refresh(self, request: object) -> None:  # noqa: ARG002 - as called
        """The service has refused the token of this thread's last request."""
        self._login.refuse(self._sent.token)


class ResettingSession(AuthorizedSession):
    """A session whose connections end with a reset, with TLS or without, through a proxy or not.

    The connection of a request that failed is closed at once: urllib3 sees to that. An answer that redirects
    is returned like any other; an address that an answer gives to an upload is asked only where the first
    request went, and at Google's.

    Args:
        login: whose requests they are; None for an emulator.
        timeout_seconds: the time limit of a request, which it has to be given as well.

    Raises:
        ConfigurationError: the credentials or the certificates cannot be used.
    """

    def __init__(self, login: Login | None, timeout_seconds: float) -> None:
        credentials = AnonymousCredentials() if login is None else LoginCredentials(login)  # type: ignore[no-untyped-call] # as above
        super().__init__(  # type: ignore[no-untyped-call] # as above
            credentials,
            max_refresh_attempts=1,
            # The login gets tokens by a session of its own.
            auth_request=Request(),
        )
        self._login = login
        # Where everything goes to, be it told another address by an answer.
        self._root = None if login is None else login.endpoint("bigquery")
        self._first_asked = ""
        self._socket_options = _socket_options(timeout_seconds)
        self._trust: dict[str, Any] = {}
        self._of_environment: dict[str, dict[str, Any]] = {}
        # ~/.netrc is not asked for a login in the place of ours.
        self.auth = _as_it_is
        if login is not None:
            self._trust = {"ssl_context": certificates.context()}
            self.verify = certificates.bundle() or True

    def request(self, method: str, url: str, **options: Any) -> "Response":  # type: ignore[override]  # noqa: ANN401 - handed on
        """Send a request; raises as `Login.token` does.

        Raises:
            TooManyRedirects: `url` leads to a stranger.
        """
        self._first_asked = self._first_asked or url
        universe = {} if self._login is None else {"universe": self._login.universe}
        if leads_elsewhere(url, self._first_asked, **universe):
            raise TooManyRedirects
        if self._root is not None:
            url = at(self._root, url)
        answer: Response = super().request(method, url, **options)  # type: ignore[no-untyped-call] # as above
        if answer.status_code == HTTPStatus.UNAUTHORIZED and self._login is not None:
            self.credentials.refresh(self._auth_request)
        return answer

    def merge_environment_settings(self, url: str, *given: Any) -> dict[str, Any]:  # noqa: ANN401 - handed on
        """What the variables say of requests to `url`'s host, which are all made alike.

        They are looked at once, as requests goes through all of them several times for each request.
        """
        host = urlsplit(url).netloc
        if host not in self._of_environment:
            self._of_environment[host] = super().merge_environment_settings(url, *given)
        return {**self._of_environment[host]}

    def get_redirect_target(self, resp: "Response") -> None:
        """Where an answer redirects to: nowhere."""

    def get_adapter(self, url: str) -> "HTTPAdapter":
        """What makes the connections to `url`, told how they are to end.

        It is told at each request, and not once: Google's session mounts another adapter where there is a
        client certificate, and again when that is replaced.
        """
        adapter = cast("HTTPAdapter", super().get_adapter(url))
        options: dict[str, Any] = {"socket_options": self._socket_options}
        # One that shows a certificate has a context of its own.
        keywords = adapter.poolmanager.connection_pool_kw
        keywords.update({**self._trust, **keywords, **options})
        if trust := keywords.get("ssl_context"):
            options |= {"ssl_context": trust, "proxy_ssl_context": self._trust.get("ssl_context")}
        with_options = partial(type(adapter).proxy_manager_for, adapter, **options)
        adapter.proxy_manager_for = with_options  # type: ignore[method-assign] # proxies get known by requests
        return adapter


def _as_it_is(request: "PreparedRequest") -> "PreparedRequest":
    return request


def _socket_options(timeout_seconds: float) -> list[tuple[int, int, int | bytes]]:
    options = [
        *HTTPConnection.default_socket_options,
        (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)),
    ]
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        milliseconds = max(round(timeout_seconds * 1000), 1)
        options.append((socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds))
    return options
