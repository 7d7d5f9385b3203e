"""Every kind of credentials, through TLS and a proxy that asks for a password, by the real command.

Nothing of the program is replaced: it asks Google's own hosts, and a proxy answers (`tests.support.google`).
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.integration.in_process import InProcess
from tests.support.command_line import CommandLine
from tests.support.google import (
    TARGET,
    Google,
    aws,
    external,
    impersonating,
    program_that_tells,
    robot,
    running_google,
    subject_answer,
    tls_of,
    user,
    with_tls,
    workforce,
    write_authority,
)
from tests.support.scripted_gcs import ENVIRONMENT, unused_port
from tests.support.secrets import secrets_in
from tests.support.stored_runs import Reader, store_run

_EMULATORS = ("STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST")
_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
_IMPATIENT = {"sync_attempts_limit": 1, "retry_delay_seconds_min": 0.01, "retry_delay_seconds_max": 0.01}


@dataclass
class Company:
    """A machine in a company's network, and Google behind its proxy."""

    google: Google
    machine: CommandLine
    folder: Path

    def with_login(self, content: object, **environment: str | None) -> CommandLine:
        """The command with this in its file of credentials."""
        file = self.folder / "credentials.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return self.machine.but(**{"GOOGLE_APPLICATION_CREDENTIALS": str(file), **environment})


@pytest.fixture
def company(command_line: CommandLine, tmp_path: Path) -> Iterator[Company]:
    """The test's bucket and dataset, as the company's machine reaches them."""
    folder = tmp_path / "company"
    (folder / "gcloud").mkdir(parents=True)
    emulators = dict(zip(("storage", "bigquery"), map(command_line.environment.get, _EMULATORS), strict=True))
    with running_google({name: str(url) for name, url in emulators.items()}, folder) as google:
        machine = command_line.but(
            **dict.fromkeys((*ENVIRONMENT, *_EMULATORS, *_CERTIFICATES, "NO_PROXY", "no_proxy")),
        ).but(
            HTTPS_PROXY=google.proxy,
            REQUESTS_CA_BUNDLE=str(write_authority(folder)),
            CLOUDSDK_CONFIG=str(folder / "gcloud"),
            GCE_METADATA_HOST=google.near,
            COLUMNS="80",
        )
        yield Company(google, machine.having(**_IMPATIENT), folder)


def _file(folder: Path) -> dict[str, Any]:
    (folder / "subject").write_text("secret-token-of-the-subject")
    return {"file": str(folder / "subject")}


def _program(folder: Path) -> dict[str, Any]:
    program = program_that_tells(folder, subject_answer())
    return {"executable": {"command": str(program), "timeout_millis": 5000}}


def _certificate(folder: Path) -> dict[str, Any]:
    tls_of(folder, "workload")
    pem = str(folder / "workload.pem")
    config = folder / "certificates.json"
    config.write_text(json.dumps({"cert_configs": {"workload": {"cert_path": pem, "key_path": pem}}}))
    return {"certificate": {"certificate_config_location": str(config)}}


#: Each kind: the file, and which token services it must ask.
KINDS: dict[str, tuple[Callable[[Company], Any], tuple[str, ...]]] = {
    "user": (lambda _: user(), ("/token",)),
    "service account": (lambda _: robot(), ("/token",)),
    "metadata server": (lambda _: None, ("/service-accounts/",)),
    "impersonated by a user": (lambda _: impersonating(user()), ("/token", TARGET)),
    "impersonated by a robot": (lambda _: impersonating(robot()), ("/token", TARGET)),
    "impersonated by a workload": (
        lambda company: impersonating(external(_file(company.folder))),
        ("/v1/token", TARGET),
    ),
    "workload with a file": (lambda company: external(_file(company.folder)), ("/v1/token",)),
    "workload with an address": (
        lambda company: external(
            {
                "url": f"{company.google.url}/subject",
                "format": {"type": "json", "subject_token_field_name": "value"},
            },
            acts=True,
        ),
        ("/v1/token", TARGET),
    ),
    "workload with a program": (
        lambda company: external(_program(company.folder), acts=True),
        ("/v1/token",),
    ),
    "workload of AWS": (lambda company: aws(company.google.url), ("/v1/token", TARGET)),
    "workload with a certificate": (
        lambda company: external(
            _certificate(company.folder),
            subject_token_type="urn:ietf:params:oauth:token-type:mtls",  # noqa: S106 - a kind
        ),
        ("/v1/token",),
    ),
    "workforce": (lambda _: workforce(), ("/v1/oauthtoken",)),
}
_QUICK = ("impersonated by a user", "metadata server")


def _arrives(machine: CommandLine, pixaris: Reader, command: str = "sync") -> None:
    """A run that is stored is synced."""
    stored = store_run(machine.folder)
    outcome = machine.run(command)
    assert outcome.code == 0, str(outcome)
    assert pixaris.runs() == [stored.name]


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind in _QUICK else pytest.mark.large) for kind in KINDS]
)
def test_each_kind_of_credentials_serves_both_halves(company: Company, pixaris: Reader, kind: str) -> None:
    """Goal: all that google-auth takes works for bucket and tables. Method: sync a run; whom it asked."""
    make, asked = KINDS[kind]
    content = make(company)
    machine = company.machine if content is None else company.with_login(content)
    _arrives(machine.but(GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES="1"), pixaris)
    used = company.google.used
    # One token, got once, for both; and one for the look before the first work.
    assert used["storage.googleapis.com"] == used["bigquery.googleapis.com"]
    assert len(used["storage.googleapis.com"]) == 2
    for part in asked:
        assert len([path for path, _ in company.google.asked if part in path]) == 2, (
            part,
            company.google.asked,
        )


def _login_by_doctor(machine: CommandLine) -> dict[str, Any]:
    """What doctor says of who one is."""
    found = machine.run("doctor", "--json").document["checks"]
    [check] = [one for one in found if one["check"] == "login"]
    assert isinstance(check, dict)
    return check


@pytest.mark.large
@pytest.mark.parametrize("kind", KINDS)
def test_doctor_says_whose_each_kind_of_credentials_is(company: Company, kind: str) -> None:
    """Goal: one sees who one is before the first run. Method: doctor, with each kind."""
    content = KINDS[kind][0](company)
    machine = company.machine if content is None else company.with_login(content)
    check = _login_by_doctor(machine.but(GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES="1"))
    assert check["verdict"] == "ok", check
    assert secrets_in(str(check)) == []


@pytest.mark.large
@pytest.mark.parametrize("fault", ["another cloud", "cut", "no account", "an expired login", "no role"])
def test_doctor_refuses_a_login_with_the_reason(company: Company, fault: str) -> None:
    """Goal: what no half can use is told before the first run. Method: files and answers; exit code 4."""
    if fault in BAD_FILES:
        content, cause, remedy = BAD_FILES[fault]
    else:
        content, path, company.google.refusals[path], (cause, remedy, *_) = REFUSALS[fault]
    made = content() if callable(content) else content
    machine = company.with_login(json.loads(json.dumps(made).replace("{near}", company.google.url)))
    assert machine.run("doctor").code == 4
    check = _login_by_doctor(machine)
    assert check["verdict"] == "failed", check
    assert cause in check["found"]
    assert remedy in check["remedy"] or remedy in check["found"]


# -- what is wrong, and what helps -------------------------------------------------------------------------


def _without(content: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != key}


def _damaged_key() -> dict[str, Any]:
    return robot(private_key="-----BEGIN PRIVATE KEY-----\nTHIS IS NONE\n-----END PRIVATE KEY-----\n")


#: What is in the file, and what is said of it: the cause, and a part of the hint.
BAD_FILES: dict[str, tuple[object, str, str]] = {
    "empty": ("", "it is empty", "let GOOGLE_APPLICATION_CREDENTIALS name a login"),
    "cut": ('{\n "type": "authorized_user",\n "cl', "it is not JSON (line 3, column 2)", "unset GOOGLE_"),
    "a list": ("[]", "it holds no JSON object", "unset GOOGLE_"),
    "no type": ({}, 'it lacks "type"', "unset GOOGLE_"),
    "an OAuth client": ({"installed": {}}, "it is an OAuth client, not a login", "--client-id-file=FILE"),
    "an unknown type": ({"type": "unheard_of"}, "its \"type\" is unknown: 'unheard_of'", "unset GOOGLE_"),
    "another cloud": (
        {"type": "gdch_service_account"},
        "its type gdch_service_account is of a Distributed Cloud",
        "unset",
    ),
    "no refresh token": (
        _without(user(), "refresh_token"),
        'its "refresh_token" is missing',
        "unset GOOGLE_",
    ),
    "no account": (
        lambda: _without(robot(), "client_email"),
        'its "client_email" is missing',
        "unset GOOGLE_",
    ),
    "a damaged key": (_damaged_key, 'its "private_key" is damaged', "put another key of a service account"),
    "a damaged key inside": (
        lambda: impersonating(_damaged_key()),
        'its "private_key" is damaged',
        "--impersonate-service-account=ACCOUNT",
    ),
    "a source without a secret": (
        impersonating(_without(user(), "client_secret")),
        'its "client_secret" in source_credentials is missing',
        "unset GOOGLE_",
    ),
    "a token service in the clear": (
        lambda: robot(token_uri="http://oauth2.example.com/token"),  # noqa: S106 - an address
        'its "token_uri" is no address that begins with https://',
        "unset GOOGLE_",
    ),
    "no account to act as": (
        {**impersonating(user()), "service_account_impersonation_url": "https://example.com/"},
        'its "service_account_impersonation_url" names no account',
        "--impersonate-service-account=ACCOUNT",
    ),
    "a program": (
        external({"executable": {"command": "/bin/true"}}),
        "it names a program to run, which is not allowed",
        "set GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1",
    ),
    "no source": (external({}), 'its "credential_source" cannot be used', "create-cred-config"),
    "no subject token": (
        external({"file": "/nowhere/subject"}),
        "what it names gives no token: File '/nowhere/subject' was not found.",
        "create-cred-config",
    ),
    "another universe": (
        user(universe_domain="example.com"),
        "it is of the universe domain example.com, and the work is in googleapis.com",
        "set GOOGLE_CLOUD_UNIVERSE_DOMAIN=example.com",
    ),
}


@pytest.fixture
def at_company(company: Company, in_process: InProcess) -> Company:
    """This process is on the company's machine."""
    monkeypatch = in_process.monkeypatch
    for name in (*_EMULATORS, *ENVIRONMENT, *_CERTIFICATES, "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in company.machine.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "googleapis.com")
    store_run(company.machine.folder)
    return company


def _told(at_company: Company, in_process: InProcess, content: object = None) -> str:
    """What `sync` says, which ends with 4, without a secret."""
    if content is not None:
        made = content() if callable(content) else content
        in_process.monkeypatch.setenv(
            "GOOGLE_APPLICATION_CREDENTIALS",
            at_company.with_login(made).environment["GOOGLE_APPLICATION_CREDENTIALS"],
        )
    code, told = in_process.run("sync", "--json")
    assert code == 4, told
    assert [line.partition(":")[0] for line in told.splitlines()] == ["error", "hint"]
    assert secrets_in(told, "THIS IS NONE") == []
    return told


@pytest.mark.parametrize("fault", BAD_FILES)
def test_each_fault_of_a_file_is_named_with_the_file(
    at_company: Company, in_process: InProcess, fault: str
) -> None:
    """Goal: nobody guesses what is wrong. Method: wrong files, one by one; `sync` ends with 4."""
    content, cause, hint = BAD_FILES[fault]
    told = _told(at_company, in_process, content)
    error, advice = told.splitlines()
    assert f"cannot use the credentials file {at_company.folder}/credentials.json: {cause}" in error
    assert hint in advice
    assert at_company.google.used == {}


@pytest.mark.large
@pytest.mark.parametrize("place", ["missing", "folder", "unreadable"])
def test_a_file_that_cannot_be_opened_is_named(company: Company, place: str) -> None:
    """Goal: the same of files that are none. Method: no file, a folder, one of somebody else's."""
    file = company.folder / "login.json"
    if place == "folder":
        file.mkdir()
    elif place == "unreadable":
        file.touch(mode=0)
    machine = company.machine.but(GOOGLE_APPLICATION_CREDENTIALS=str(file))
    outcome = machine.start("sync", powerless=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    _, told = outcome.communicate(timeout=60)
    cause = {"missing": "it does not exist", "folder": "it is a folder", "unreadable": "it may not be read"}
    assert outcome.returncode == 4
    assert f"cannot use the credentials file {file}: {cause[place]}" in told


#: How token services refuse: the login, whom they refuse, their answer, and what is said.
REFUSALS: dict[str, tuple[object, str, tuple[int, Any], tuple[str, ...]]] = {
    "an expired login": (
        user(),
        "/token",
        (400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}),
        ("the login has expired or was revoked", "unset GOOGLE_APPLICATION_CREDENTIALS and run `gcloud auth"),
    ),
    "reauthentication": (
        user(),
        "/token",
        (400, {"error": "invalid_grant", "error_subtype": "invalid_rapt"}),
        ("the login must be renewed by its owner", "run `gcloud auth application-default login`"),
    ),
    "a deleted account": (
        robot,
        "/token",
        (400, {"error": "invalid_grant", "error_description": "Invalid grant: account not found"}),
        ("deleted, disabled or has expired", "Invalid grant: account not found", "put another key"),
    ),
    "a deleted client": (
        user(),
        "/token",
        (401, {"error": "deleted_client"}),
        ("the OAuth client of the login was deleted",),
    ),
    "no role": (
        impersonating(user(), target="other@example.com"),
        "nothing",
        (0, None),
        (
            "may not act as other@example.com: they lack roles/iam.serviceAccountTokenCreator",
            "grant Service Account Token Creator on other@example.com",
        ),
    ),
    "an API that is off": (
        impersonating(user()),
        ":generateAccessToken",
        (403, {"error": {"code": 403, "details": [{"reason": "SERVICE_DISABLED"}]}}),
        ("is switched off", "gcloud services enable iamcredentials.googleapis.com"),
    ),
    "no pool": (
        external({"url": "{near}/subject"}),
        "/v1/token",
        (400, {"error": "invalid_target", "error_description": "The target service indicated is invalid."}),
        ("there is no such pool or provider", "create-cred-config"),
    ),
    "a lapsed workforce login": (
        workforce(),
        "/v1/oauthtoken",
        (400, {"error": "invalid_grant"}),
        ("the login has expired or was revoked", "--login-config=FILE"),
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_each_refusal_of_a_token_service_says_what_helps(
    at_company: Company, in_process: InProcess, refusal: str
) -> None:
    """Goal: the hint leads somewhere. Method: answers of token services, for the login that gets them."""
    content, path, answer, said = REFUSALS[refusal]
    if not callable(content):
        content = json.dumps(content).replace("{near}", at_company.google.url)
    if answer[0]:
        at_company.google.refusals[path] = answer
    told = _told(at_company, in_process, content)
    assert all(part in told for part in said), told


def test_a_clock_that_is_wrong_is_told_from_a_wrong_key(at_company: Company, in_process: InProcess) -> None:
    """Goal: nobody makes a new key for it. Method: a token service an hour ahead refuses a signed request."""
    at_company.google.skew_seconds = 3600
    at_company.google.refusals["/token"] = (400, {"error": "invalid_grant"})
    told = _told(at_company, in_process, robot)
    assert "this machine's clock is 60 min behind that of the service" in told
    assert "timedatectl set-ntp true" in told


def test_without_any_login_every_place_is_told(at_company: Company, in_process: InProcess) -> None:
    """Goal: one sees where it was looked. Method: no variable, no file of gcloud's, nobody at the address."""
    in_process.monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{unused_port()}")
    told = _told(at_company, in_process)
    assert "GOOGLE_APPLICATION_CREDENTIALS is not set" in told
    assert f"there is no {at_company.folder}/gcloud/application_default_credentials.json" in told
    assert "no metadata server gives tokens" in told


def test_a_hint_that_is_followed_succeeds(company: Company, pixaris: Reader) -> None:
    """Goal: whoever does what is said is done. Method: a named file is damaged; the variable is unset."""
    stored = store_run(company.machine.folder)
    damaged = company.with_login("{")
    assert "unset GOOGLE_APPLICATION_CREDENTIALS and run `gcloud" in damaged.run("sync").stderr
    # What gcloud does.
    (company.folder / "gcloud/application_default_credentials.json").write_text(json.dumps(user()))
    assert company.machine.sync()["exit_code"] == 0
    assert pixaris.runs() == [stored.name]


# -- certificates, proxies, endpoints ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "variable",
    [
        "SSL_CERT_FILE",
        pytest.param("CURL_CA_BUNDLE", marks=pytest.mark.large),
        pytest.param("SSL_CERT_DIR", marks=pytest.mark.large),
    ],
)
def test_one_variable_names_the_certificates_for_everything(
    company: Company, pixaris: Reader, variable: str
) -> None:
    """Goal: bucket, tables and tokens trust alike. Method: one variable alone."""
    place = company.folder / "company.pem"
    if variable == "SSL_CERT_DIR":
        place = company.folder / "trusted"
        place.mkdir()
        (company.folder / "company.pem").rename(place / "company.pem")
        subprocess.run(["openssl", "rehash", place], check=True)  # noqa: S607 - the system's own
    machine = company.with_login(user(), REQUESTS_CA_BUNDLE=None, **{variable: str(place)})
    _arrives(machine, pixaris)


@pytest.mark.parametrize(
    ("variable", "make", "cause"),
    [
        ("REQUESTS_CA_BUNDLE", lambda _: None, "it does not exist"),
        ("SSL_CERT_FILE", lambda path: path.write_text("nothing"), "it holds no certificates in PEM form"),
        ("SSL_CERT_DIR", lambda path: path.mkdir(), "the folder holds no certificates"),
        ("SSL_CERT_DIR", lambda path: path.touch(), "it is no folder"),
    ],
)
def test_certificates_that_cannot_be_used_are_named_with_their_variable(
    at_company: Company, in_process: InProcess, variable: str, make: Callable[[Path], object], cause: str
) -> None:
    """Goal: nobody looks for it in the login. Method: a variable that names nothing, or something else."""
    path = at_company.folder / "other"
    make(path)
    in_process.monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    in_process.monkeypatch.setenv(variable, str(path))
    assert f"cannot use the certificates {path} ({variable}): {cause}" in _told(
        at_company, in_process, user()
    )


@pytest.mark.large
@pytest.mark.parametrize("half", ["storage", "bigquery", "oauth2"])
def test_a_certificate_that_is_not_trusted_is_no_riddle(company: Company, half: str) -> None:
    """Goal: the hint names the variable. Method: the proxy shows strangers' certificates for one host."""
    company.google.strange = f"{half}.googleapis.com"
    store_run(company.machine.folder)
    outcome = company.with_login(user()).run("sync")
    assert outcome.code != 0
    assert "let REQUESTS_CA_BUNDLE or SSL_CERT_FILE name a file that holds its certificate" in str(outcome)


@pytest.mark.large
def test_a_proxy_may_speak_tls_itself(company: Company, pixaris: Reader) -> None:
    """Goal: its password is not read on the way either. Method: the proxy behind a certificate of its own."""
    with with_tls(company.google.proxy, company.folder) as proxy:
        _arrives(company.with_login(user(), HTTPS_PROXY=proxy), pixaris)
    assert company.google.used.keys() == {"storage.googleapis.com", "bigquery.googleapis.com"}


@pytest.mark.large
def test_a_proxy_that_wants_another_password_is_told(company: Company) -> None:
    """Goal: it is not taken for the service, and tells no password. Method: another one in its address."""
    store_run(company.machine.folder)
    wrong = company.google.proxy.replace("somebody:", "nobody:")
    outcome = company.with_login(user(), HTTPS_PROXY=wrong).run("sync")
    assert outcome.code != 0
    assert "proxy" in str(outcome)
    assert secrets_in(str(outcome)) == []
    assert company.google.used == {}


@pytest.mark.parametrize("command", ["sync", pytest.param("backfill", marks=pytest.mark.large)])
def test_private_endpoints_get_everything(company: Company, pixaris: Reader, command: str) -> None:
    """Goal: nothing goes to Google's public hosts. Method: only private ones are there, and name the others.

    Every image goes through a session, whose address is a public one.
    """
    google = company.google
    google.emulators = {
        f"{host.partition('.')[0]}-x.p.googleapis.com": emulator
        for host, emulator in google.emulators.items()
    }
    machine = company.with_login(user()).having(
        storage_endpoint="https://storage-x.p.googleapis.com/",
        bigquery_endpoint="https://bigquery-x.p.googleapis.com",
        inflight_bytes_limit=1024**2,
        resumable_threshold_bytes=256 * 1024,
        chunk_bytes=256 * 1024,
    )
    image = Image.effect_noise((1024, 1024), 100)
    stored = store_run(machine.folder, images=[(image, "a.png")])
    outcome = machine.run(command)
    assert outcome.code == 0, str(outcome)
    assert pixaris.runs() == [stored.name]
    assert google.used.keys() == {"storage-x.p.googleapis.com", "bigquery-x.p.googleapis.com"}
    assert google.sessions_at == {"storage-x.p.googleapis.com"}


def test_another_universe_is_reached_in_whole(company: Company, pixaris: Reader) -> None:
    """Goal: both halves go where the credentials are from. Method: a key that signs for itself."""
    emulators = dict(zip(("storage", "bigquery"), company.google.emulators.values(), strict=True))
    with running_google(emulators, company.folder, "example.com") as other:
        machine = company.with_login(robot(universe_domain="example.com"), HTTPS_PROXY=other.proxy)
        _arrives(machine, pixaris)
        assert other.used.keys() == {"storage.example.com", "bigquery.example.com"}
        # It signed for itself.
        assert other.asked == []


@pytest.mark.large
@pytest.mark.parametrize("half", ["bigquery", "storage"])
def test_a_quota_project_that_may_not_be_used_is_named(company: Company, half: str) -> None:
    """Goal: nobody looks for a role on the bucket. Method: the service denies the project."""
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "USER_PROJECT_DENIED"}]
    denied = {"code": 403, "message": "denied", "errors": [{"reason": "forbidden"}], "details": details}
    company.google.refusals = {f"{half}.googleapis.com": (403, {"error": denied})}
    store_run(company.machine.folder)
    outcome = company.with_login(user(quota_project_id="payer")).run("sync")
    assert outcome.code == 4, str(outcome)
    told = " ".join(str(outcome).split())
    assert "the account may not use the quota project" in told
    assert "grant Service Usage Consumer on that project to the account" in told


@pytest.mark.large
def test_both_halves_count_against_the_quota_project(company: Company, pixaris: Reader) -> None:
    """Goal: as Google's clients do. Method: a login that names a project; the variable goes before it."""
    _arrives(company.with_login(user(quota_project_id="payer")), pixaris)
    assert company.google.quota_projects == {"payer"}
