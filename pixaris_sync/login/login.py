"""The login that the bucket and the tables share.

`Login` may be used by any threads at once, and `token` blocks: event loops call it in a thread. One of them
renews the token, and the others wait for it and share what comes of it, be it a failure. Nothing is renewed
before somebody asks.

Credentials are read once, and again when they were refused: whoever was told to log in again, to put a key
file in the place of another, or to make one, has done so by the next attempt, or will. Google's library is
imported when the first token is due.
"""

import copy
import json
import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import UTC
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlencode

from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.footprint import importing
from pixaris_sync.login.source import METADATA, Source, wrong_universe
from pixaris_sync.rules.addresses import DEFAULT_UNIVERSE

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

    from pixaris_sync.login.asking import Asking

#: How long the metadata server of a Google Cloud machine may take; elsewhere there is none.
METADATA_TIMEOUT_SECONDS: Final = 3

#: The share of a token's lifetime after which a new one is taken.
LIFETIME_SHARE: Final = 0.9

_LIFETIME_SECONDS_DEFAULT: Final = 3600.0
_DESCRIBES_TOKENS: Final = "https://oauth2.{}/tokeninfo"
_QUOTA_HEADER: Final = "x-goog-user-project"

#: How people call the kinds of credentials.
KINDS: Final[Mapping[str, str]] = {
    "authorized_user": "user",
    "service_account": "service account key",
    "impersonated_service_account": "impersonated service account",
    "external_account": "workload identity federation",
    "external_account_authorized_user": "workforce identity",
    METADATA: "metadata server",
}


class Identity(NamedTuple):
    """Who one is, without secrets.

    Attributes:
        kind: what kind of credentials, in words; empty where none could be read.
        principal: the account, as an e-mail address, or as the pool that it comes from; empty: not known.
        source: the file that the credentials are in, or "the metadata server"; empty where none was found.
        named: GOOGLE_APPLICATION_CREDENTIALS names the file.
        universe: the universe domain.
        quota_project: the project whose quota requests count against, where one is told.
        expires_at: when the token ends, as seconds since 1970; None where there is none.
        failure: why there is no token; None where there is one.
    """

    kind: str
    principal: str
    source: str
    named: bool
    universe: str
    quota_project: str | None
    expires_at: float | None
    failure: SyncError | None


class Login:
    """Access tokens by the Application Default Credentials.

    Args:
        timeout_seconds: limit of one acquisition of a token.
        endpoints: private endpoints of services, which everything for them goes to; None for none.
    """

    def __init__(self, *, timeout_seconds: float, endpoints: Mapping[str, str | None] | None = None) -> None:
        self._endpoints = endpoints or {}
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._source: Source | None = None
        self._universe = ""
        self._credentials: Credentials | None = None
        self._asking: Asking | None = None
        self._token: str | None = None
        self._renew_at = 0.0
        self._failure: tuple[float, SyncError] | None = None
        self._metadata_server_seen = False

    def endpoint(self, service: str) -> str | None:
        """The private endpoint of a service, ``storage`` or ``bigquery``; None where there is none."""
        return self._endpoints.get(service)

    def api_root(self, service: str) -> str:
        """Where the API of a service is asked.

        Raises:
            SyncError: the credentials cannot be used.
        """
        return self.endpoint(service) or f"https://{service}.{self.universe}"

    @property
    def universe(self) -> str:
        """The universe domain to work in; it stays the same.

        Raises:
            SyncError: the credentials cannot be used.
        """
        # Without the lock, which is held while somebody waits for a token.
        if not self._universe:
            with self._lock:
                self._found()
        return self._universe

    @property
    def headers(self) -> Mapping[str, str]:
        """What requests carry beside the token."""
        source = self._source
        project = source.quota_project if source else None
        return {_QUOTA_HEADER: project} if project else {}

    def fresh(self) -> str | None:
        """The token, unless a new one is due. It does not block."""
        return self._token if time.monotonic() < self._renew_at else None

    def token(self, *, wanted_since: float | None = None) -> str:
        """A token that is not about to expire.

        Args:
            wanted_since: since when the caller waits (`time.monotonic`); a failure that came since then is
                its own. None: since now.

        Raises:
            ConfigurationError: there are no credentials, or they are refused (failure CREDENTIALS).
            SyncError: the token service cannot be reached (TRANSIENT) or asks for less (QUOTA).
        """
        since = time.monotonic() if wanted_since is None else wanted_since
        with self._lock:
            if token := self.fresh():
                return token
            if self._failure is not None and self._failure[0] >= since:
                # A copy: each thread adds its own traceback.
                raise copy.copy(self._failure[1])
            try:
                return self._renew()
            except SyncError as error:
                self._failure = (time.monotonic(), error)
                if error.failure is Failure.CREDENTIALS:
                    self._forget()
                raise

    def refuse(self, token: str | None) -> None:
        """A service does not take this token: the next one is got by credentials that are read anew.

        A token that was renewed in the meantime stays.
        """
        with self._lock:
            if token == self._token:
                self._forget()

    def whoami(self) -> Identity:
        """Who one is; it asks for a token, and blocks."""
        failure = None
        try:
            self.token()
        except SyncError as error:
            failure = error
        with self._lock:
            universe = self._universe or DEFAULT_UNIVERSE
            try:
                # Refused credentials were dropped; what their file says is known all the same.
                source = self._source or Source.find()
            except SyncError as error:
                return Identity("", "", "", False, universe, None, None, failure or error)  # noqa: FBT003
            credentials = None if failure else self._credentials
            return Identity(
                kind=KINDS[source.kind],
                principal=self._principal(source),
                source=str(source.file or source.subject),
                named=source.named,
                universe=universe,
                quota_project=source.quota_project,
                expires_at=_expires_at(credentials) if credentials else None,
                failure=failure,
            )

    def close(self) -> None:
        """Give connections back. Safe to call twice; a later call opens new ones."""
        # Whoever waits for a token just now ends within its time limit, and is not waited for.
        if self._lock.acquire(blocking=False):
            self._forget()
            self._lock.release()

    def _found(self) -> Source:
        """The credentials' source, looked for where none is known."""
        if self._source is None:
            found = Source.find()
            universe = found.universe
            if self._universe and universe != self._universe:
                raise wrong_universe(found.subject, universe, self._universe)
            self._source, self._universe = found, universe
        return self._source

    def _renew(self) -> str:
        source = self._found()
        # A heavy import, which a pass with nothing new never needs; once: garbage of then is never freed.
        with nullcontext() if "pixaris_sync.login.kinds" in sys.modules else importing():
            from pixaris_sync.login import asking, kinds, refusals  # noqa: PLC0415 - see above

        if self._asking is None:
            on_machine = source.kind == METADATA
            limit = METADATA_TIMEOUT_SECONDS if on_machine else self._timeout_seconds
            shows = "certificate" in (source.info.get("credential_source") or ())
            self._asking = asking.Asking(limit, shows_certificate=shows)
        if self._credentials is None:
            self._credentials = kinds.google_credentials(source)
        asked_at = time.monotonic()
        try:
            self._asking.begin()
            if source.kind == METADATA:
                self._compare_universes(self._asking, source)
            self._credentials.refresh(self._asking)  # type: ignore[no-untyped-call] # it has no annotations
        except Exception as error:  # noqa: BLE001 - google-auth lets through what its suppliers of tokens raise
            failure = refusals.translated(error, source)
            self._metadata_server_seen |= self._asking.met_metadata_server
            if source.kind == METADATA and not self._metadata_server_seen:
                failure = refusals.no_credentials(source)
        else:
            return self._keep(self._credentials, asked_at)
        # Raised here, apart from the library's exception: that one can hold secrets.
        raise failure

    def _keep(self, credentials: "Credentials", asked_at: float) -> str:
        token, expires_at = str(credentials.token), _expires_at(credentials)
        lifetime = _LIFETIME_SECONDS_DEFAULT if expires_at is None else expires_at - time.time()
        self._token, self._renew_at = token, asked_at + lifetime * LIFETIME_SHARE
        self._failure = None
        return token

    def _forget(self) -> None:
        """Drop all that was got; the universe stays."""
        asking, self._asking = self._asking, None
        self._source = self._credentials = self._token = None
        self._renew_at = 0.0
        if asking is not None:
            asking.close()

    def _compare_universes(self, asking: "Asking", source: Source) -> None:
        """Refuse a machine of another universe than the one to work in."""
        host = os.environ.get("GCE_METADATA_HOST") or "metadata.google.internal"
        url = f"http://{host}/computeMetadata/v1/universe/universe-domain"
        answer = asking(url, headers={"metadata-flavor": "Google"}, timeout=METADATA_TIMEOUT_SECONDS)
        told = answer.data.decode("utf-8", "replace").strip() if answer.status == HTTPStatus.OK else ""
        if (told or DEFAULT_UNIVERSE) != self._universe:
            raise wrong_universe(source.subject, told or DEFAULT_UNIVERSE, self._universe)

    def _principal(self, source: Source) -> str:
        for key in ("client_email", "service_account_impersonation_url", "account", "audience"):
            if said := source.info.get(key):
                return str(said).rpartition("/serviceAccounts/")[2].removesuffix(":generateAccessToken")
        on_machine = str(getattr(self._credentials, "service_account_email", None) or "")
        return self._described() if on_machine in ("", "default") else on_machine

    def _described(self) -> str:
        """The account that a user's token is of, as far as the login lets the service tell it."""
        if self._asking is None or self._token is None:
            return ""
        self._asking.begin()
        body = urlencode({"access_token": self._token}).encode("ascii")
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        try:
            answer = self._asking(_DESCRIBES_TOKENS.format(self._universe), "POST", body, headers)
            return str(json.loads(answer.data).get("email") or "")
        except Exception:  # noqa: BLE001 - whatever it is: it is not told, and nothing else comes of it
            return ""


def _expires_at(credentials: "Credentials") -> float | None:
    # The library's times are of UTC, and do not say so.
    return None if credentials.expiry is None else credentials.expiry.replace(tzinfo=UTC).timestamp()
