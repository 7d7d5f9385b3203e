"""Google as a machine behind a company's proxy sees it: each host with TLS, tokens for every kind of login.

The proxy asks for a name and a password, looks into connections, and answers in each host's place with a
certificate of its own making: the token services by themselves, the bucket and the tables out of emulators.
Nothing is let in without a token that was given. The same server answers plain HTTP as what is near a
machine: a metadata server, and what tells tokens of other clouds.
"""

import asyncio
import base64
import contextlib
import datetime as dt
import http.client
import json
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.support.secrets import ACCESS_TOKEN, service_account_key

ROBOT = "robot@the-project.iam.gserviceaccount.com"
TARGET = "target@the-project.iam.gserviceaccount.com"
SUBJECT_TOKEN = "secret-token-of-the-subject"  # noqa: S105 - no secret
PROXY_LOGIN = "somebody:secret-client-word"
POOL = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/pool/providers/provider"
WORKFORCE = "//iam.googleapis.com/locations/global/workforcePools/pool/providers/provider"

_DAY = dt.timedelta(days=1)
_PEM = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@cache
def _authority() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "the company's proxy")])
    return _certificate(name, name, key, key, authority=True, hosts=()), key


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
    hosts: tuple[str, ...],
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _DAY)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if authority:
        usage = dict.fromkeys(
            (
                *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
                *("encipher_only", "decipher_only", "digital_signature"),
            ),
            False,
        )
        made = made.add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
    if hosts:
        names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
        made = made.add_extension(names, critical=False)
    return made.sign(signer, hashes.SHA256())


def write_authority(folder: Path) -> Path:
    """The certificate that the proxy's certificates are signed with, as a file."""
    path = folder / "company.pem"
    path.write_bytes(_authority()[0].public_bytes(Encoding.PEM))
    return path


def tls_of(folder: Path, *hosts: str) -> ssl.SSLContext:
    """How a server shows itself as these hosts."""
    certificate, signer = _authority()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, hosts[0][:64])])
    made = _certificate(name, certificate.subject, key, signer, authority=False, hosts=hosts)
    path = folder / f"{hosts[0].replace('*', 'any')}.pem"
    path.write_bytes(made.public_bytes(Encoding.PEM) + key.private_bytes(*_PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@dataclass
class Google:
    """The running server.

    Attributes:
        emulators: what answers in the place of a host's API: the host, and an emulator's URL.
        url: where it answers what is near.
        proxy: the proxy's address, with name and password.
        asked: every request for a token: host and path, and its fields.
        used: the tokens that each host was shown.
        quota_projects: the projects that requests to APIs were to count against.
        refusals: what to answer instead of a token, by what the path contains: status and body.
        skew_seconds: how far the token services' clocks are ahead.
        strange: a host in whose place another one's certificate is shown.
        sessions_at: the hosts that pieces of large files were sent to.
    """

    emulators: Mapping[str, str]
    folder: Path
    universe: str = "googleapis.com"
    url: str = ""
    asked: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    used: dict[str, set[str]] = field(default_factory=dict)
    quota_projects: set[str | None] = field(default_factory=set)
    refusals: dict[str, tuple[int, Any]] = field(default_factory=dict)
    skew_seconds: float = 0.0
    strange: str = ""
    sessions_at: set[str] = field(default_factory=set)
    given: set[str] = field(default_factory=set)

    @property
    def near(self) -> str:
        """Host and port of what is near."""
        return urlsplit(self.url).netloc

    @property
    def proxy(self) -> str:
        """The proxy's address, with its name and password."""
        return f"http://{PROXY_LOGIN}@{self.near}"

    def give(self, what: str) -> str:
        """A new token, which requests may carry from now on."""
        token = f"{ACCESS_TOKEN}-{what}-{len(self.given)}"
        self.given.add(token)
        return token

    def answer(self, host: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[int, Any] | None:
        """What a token service answers; None for a host that is none."""
        plain = path.partition("?")[0]
        for part, refusal in self.refusals.items():
            if part in f"{host}{path}":
                return refusal
        fields: dict[str, Any] = {
            name: values[0] for name, values in parse_qs(body.decode("latin-1")).items()
        }
        if plain.endswith(":generateAccessToken"):
            fields = json.loads(body)
            # By a token that was given, and for a known account.
            good = headers.get("authorization", "").removeprefix("Bearer ") in self.given or self.jwt(headers)
            self.asked.append((f"{host}{plain}", fields))
            if not good or TARGET not in plain:
                return 403, {"error": {"code": 403, "message": "denied", "status": "PERMISSION_DENIED"}}
            ends_at = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
            return 200, {"accessToken": self.give("target"), "expireTime": f"{ends_at:%Y-%m-%dT%H:%M:%SZ}"}
        if plain in ("/token", "/v1/token", "/v1/oauthtoken"):
            self.asked.append((f"{host}{plain}", fields))
            given = {"access_token": self.give(fields["grant_type"].rpartition(":")[2]), "expires_in": 3600}
            issued = "urn:ietf:params:oauth:token-type:access_token"
            return 200, given | {"token_type": "Bearer", "issued_token_type": issued}
        if plain == "/tokeninfo":
            return 200, {"email": "somebody@example.com"}
        return None

    def jwt(self, headers: Mapping[str, str]) -> bool:
        """Whether a request is signed by a service account itself, for a scope."""
        parts = headers.get("authorization", "").removeprefix("Bearer ").split(".")
        try:
            claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=="))
        except (IndexError, ValueError):
            return False
        return claims["iss"] == ROBOT and bool(claims.get("scope"))

    def answer_near(self, path: str, headers: Mapping[str, str]) -> tuple[int, Any]:
        """What is near a machine answers: Google's metadata server, AWS's, an issuer of subject tokens."""
        plain = urlsplit(path).path
        for part, refusal in self.refusals.items():
            if part in path:
                return refusal
        if plain.startswith("/computeMetadata/") and plain.endswith("/token"):
            assert headers.get("metadata-flavor") == "Google"
            self.asked.append((plain, parse_qs(urlsplit(path).query)))
            return 200, {"access_token": self.give("metadata"), "expires_in": 3600, "token_type": "Bearer"}
        told: dict[str, Any] = {
            "/computeMetadata/v1/universe/universe-domain": self.universe.encode(),
            "/computeMetadata/v1/instance/service-accounts/default/": {"email": ROBOT, "scopes": []},
            "/aws/region": b"eu-central-1a",
            "/aws/role": b"role",
            "/aws/role/role": {
                "AccessKeyId": "key",
                "SecretAccessKey": "secret-client",
                "Token": "secret-session",
            },
            "/subject": {"value": SUBJECT_TOKEN},
        }
        return (200, told[plain]) if plain in told else (404, {})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients end their connections with resets; what is wrong shows in their outcomes."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    google: Google
    tls: ssl.SSLContext
    foreign_tls: ssl.SSLContext
    host = ""

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) + self.google.skew_seconds)

    def do_CONNECT(self) -> None:
        expected = base64.b64encode(PROXY_LOGIN.encode()).decode()
        if self.headers.get("Proxy-Authorization") != f"Basic {expected}":
            self._say(407, b"who are you", {"Proxy-Authenticate": "Basic"})
            return
        self.send_response(200)
        self.end_headers()
        self.host = self.path.partition(":")[0]
        tls = self.foreign_tls if self.host == self.google.strange else self.tls
        self.connection = tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)
        self.close_connection = False

    def finish(self) -> None:
        super().finish()
        # The server closes what it had before there was TLS.
        self.connection.close()

    def _serve(self) -> None:
        body = self._body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        if not self.host:
            self._say(*self.google.answer_near(self.path, headers), {"Metadata-Flavor": "Google"})
            return
        answer = self.google.answer(self.host, self.path, headers, body)
        if answer is not None:
            self._say(*answer)
            return
        emulator = self.google.emulators.get(self.host)
        token = headers.get("authorization", "").removeprefix("Bearer ")
        # A session's address is a key by itself.
        if "upload_id=" in self.path:
            self.google.sessions_at.add(self.host)
        else:
            self.google.used.setdefault(self.host, set()).add(token)
            self.google.quota_projects.add(headers.get("x-goog-user-project"))
            if token not in self.google.given and not self.google.jwt(headers):
                self._say(
                    401, {"error": {"code": 401, "message": "who", "errors": [{"reason": "authError"}]}}
                )
                return
        if emulator is None:
            self._say(404, {"error": {"code": 404, "message": "no such host"}})
            return
        self._forward(emulator, body)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _serve  # noqa: N815 - http.server's names

    def _forward(self, emulator: str, body: bytes) -> None:
        connection = http.client.HTTPConnection(urlsplit(emulator).netloc, timeout=60)
        own = ("host", "transfer-encoding", "content-length", "connection", "accept-encoding")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in own}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        kept = {
            name: value.replace(emulator, f"https://{self.host.replace('-x.p.', '.')}")
            for name, value in answer.getheaders()
            if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server")
        }
        connection.close()
        self._say(answer.status, content, kept)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _say(self, status: int, body: Any, headers: Mapping[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = {} if isinstance(body, bytes) else {"Content-Type": "application/json"}
        self.send_response(status)
        for name, value in {**kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running_google(
    emulators: Mapping[str, str], folder: Path, universe: str = "googleapis.com"
) -> Iterator[Google]:
    """Run it on a free loopback port.

    Args:
        emulators: what answers for ``storage`` and ``bigquery``, by URL.
        folder: where its certificates go.
        universe: the domain of its hosts.
    """
    google = Google({f"{name}.{universe}": url for name, url in emulators.items()}, folder, universe)
    tls = tls_of(folder, f"*.{universe}", "*.p.googleapis.com", "*.googleapis.com")

    parts = {"google": google, "tls": tls, "foreign_tls": tls_of(folder, "nobody.example.org")}
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), parts))
    google.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield google
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def with_tls(address: str, folder: Path) -> Iterator[str]:
    """A proxy's address behind TLS of its own, for as long as the context is open."""
    loop = asyncio.new_event_loop()
    url = urlsplit(address)

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(65536):
                sink.write(piece)
                await sink.drain()
        sink.close()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(url.hostname, url.port)
        await asyncio.gather(pump(reader, inner_writer), pump(inner_reader, writer))

    tls = tls_of(folder, "localhost")
    server = loop.run_until_complete(asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=tls))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"https://{PROXY_LOGIN}@localhost:{port}"
    finally:

        async def end() -> None:
            server.close()
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


# -- credentials of every kind -----------------------------------------------------------------------------


def user(**more: str) -> dict[str, Any]:
    """A user's login, as gcloud writes it."""
    return {
        "type": "authorized_user",
        "client_id": "client",
        "client_secret": "GOCSPX-secret-client",
        "refresh_token": "1//secret-refresh",
        "account": "",
        **more,
    }


def robot(**more: str) -> dict[str, Any]:
    """A service account's key."""
    return {**service_account_key("https://oauth2.googleapis.com/token"), **more}


def _acting(name: str = TARGET) -> str:
    root = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts"
    return f"{root}/{name}:generateAccessToken"


def impersonating(source: dict[str, Any], target: str = TARGET) -> dict[str, Any]:
    """One account that acts as another."""
    return {
        "type": "impersonated_service_account",
        "service_account_impersonation_url": _acting(target),
        "source_credentials": source,
        "delegates": [],
    }


def external(source: dict[str, Any], *, acts: bool = False, **more: Any) -> dict[str, Any]:
    """Workload identity federation; `acts`: as a service account."""
    return {
        "type": "external_account",
        "audience": POOL,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "credential_source": source,
        **({"service_account_impersonation_url": _acting()} if acts else {}),
        **more,
    }


def aws(near: str) -> dict[str, Any]:
    """Workload identity federation from a machine of AWS."""
    source = {
        "environment_id": "aws1",
        "region_url": f"{near}/aws/region",
        "url": f"{near}/aws/role",
        "regional_cred_verification_url": "https://sts.{region}.amazonaws.com"
        "?Action=GetCallerIdentity&Version=2011-06-15",
    }
    kind = "urn:ietf:params:aws:token-type:aws4_request"
    return external(source, acts=True, subject_token_type=kind)


def workforce() -> dict[str, Any]:
    """A login through a company's own identity provider."""
    return {
        "type": "external_account_authorized_user",
        "audience": WORKFORCE,
        "client_id": "client",
        "client_secret": "secret-client",
        "refresh_token": "1//secret-refresh",
        "token_url": "https://sts.googleapis.com/v1/oauthtoken",
        "token_info_url": "https://sts.googleapis.com/v1/introspect",
    }


def program_that_tells(folder: Path, answer: Mapping[str, Any], code: int = 0) -> Path:
    """A program that says this, and ends so."""
    told = folder / "answer.json"
    told.write_text(json.dumps(answer))
    program = folder / "program"
    program.write_text(f"#!/bin/sh\ncat {told}\nexit {code}\n")
    program.chmod(0o700)
    return program


def subject_answer() -> dict[str, Any]:
    """What a program says that has a subject token."""
    return {
        "version": 1,
        "success": True,
        "token_type": "urn:ietf:params:oauth:token-type:jwt",
        "id_token": SUBJECT_TOKEN,
        "expiration_time": int(time.time()) + 3600,
    }
