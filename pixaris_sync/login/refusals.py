"""What a refusal of credentials means, and what helps: refusals of token services, and of google-auth itself.

Decided by the codes of OAuth (RFC 6749, 5.2) and token exchange (RFC 8693), by reasons of Google's APIs, by
what was asked and by classes, never by texts. Texts of services are shown, scrubbed and cut; of google-auth's
only those that quote no program's output.
"""

import subprocess
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

from google.auth.exceptions import GoogleAuthError, TransportError

from pixaris_sync.errors import ConfigurationError, Failure, SyncError
from pixaris_sync.login.asking import OPERATION, RefusedError, name_of
from pixaris_sync.login.source import LOGIN_COMMAND, METADATA, Source, renewal
from pixaris_sync.model import JsonValue
from pixaris_sync.text import scrub

#: Token services take assertions that are made within this time.
_CLOCK_SECONDS_MAX: Final = 300
_TEXT_CHARACTERS_MAX: Final = 160
_REAUTHENTICATION: Final = frozenset({"invalid_rapt", "rapt_required"})
_IMPERSONATION: Final = ":generateAccessToken"

#: What the codes say of each kind of credentials; "" of any.
_CAUSES: Final[Mapping[tuple[str, str], str]] = {
    ("authorized_user", "invalid_grant"): "the login has expired or was revoked",
    ("external_account_authorized_user", "invalid_grant"): "the login has expired or was revoked",
    ("service_account", "invalid_grant"): "the account or its key was deleted, disabled or has expired",
    ("external_account", "invalid_grant"): "the pool does not take the subject token",
    ("external_account", "invalid_target"): 'there is no such pool or provider as "audience" names',
    ("external_account", "unauthorized_client"): "the pool's conditions refuse the subject",
    ("", "invalid_client"): "the OAuth client of the login is unknown or was deleted",
    ("", "deleted_client"): "the OAuth client of the login was deleted",
    ("", "disabled_client"): "the OAuth client of the login is disabled",
    ("", "unauthorized_client"): "the account may not get tokens so",
    ("", "admin_policy_enforced"): "the organisation's administrator does not allow it",
    ("", "account_disabled"): "the account is disabled",
}


def translated(error: Exception, source: Source) -> SyncError:
    """What an attempt to get a token ended with, told about the credentials that it was made with."""
    if isinstance(error, SyncError):
        return error
    if isinstance(error, RefusedError):
        return _refused(error, source)
    if source.kind == METADATA:
        cause = "this machine has no service account, or one without scopes"
        hint = "attach a service account with the scope cloud-platform to the machine"
        return _denied(source.subject, cause, hint)
    if isinstance(error, TransportError):
        return SyncError(OPERATION, "the token service", _text(error), failure=Failure.TRANSIENT)
    # What is left is about what stands in for a token: a file, a program, a certificate.
    return source.unusable(f"what it names gives no token: {_inner_cause(error)}")


def no_credentials(source: Source) -> SyncError:
    """The error where nothing was found anywhere."""
    cause = f"there are none: {', '.join(source.looked_at)}, and no metadata server gives tokens"
    hint = f"run `{LOGIN_COMMAND}`, or let GOOGLE_APPLICATION_CREDENTIALS name a file of credentials"
    return ConfigurationError(
        "find", "Google Cloud credentials", cause, hint=hint, failure=Failure.CREDENTIALS
    )


def _refused(error: RefusedError, source: Source) -> SyncError:
    subject = name_of(error.address)
    if _IMPERSONATION in error.address:
        return _impersonation_refused(error, source, subject)
    code, more = _code_and_text(error.body)
    said = f"({' '.join(filter(None, (str(error.status), code)))}{': ' if more else ''}{more})"
    named = source.named
    kind = source.kind
    if kind == "impersonated_service_account":
        kind = str(source.info["source_credentials"]["type"])
    if code == "invalid_grant" and abs(error.clock_ahead_seconds) > _CLOCK_SECONDS_MAX:
        minutes = round(abs(error.clock_ahead_seconds) / 60)
        way = "ahead of" if error.clock_ahead_seconds > 0 else "behind"
        cause = f"this machine's clock is {minutes} min {way} that of the service {said}"
        return _denied(subject, cause, "set the clock, e.g. with `timedatectl set-ntp true`")
    if error.body.get("error_subtype") in _REAUTHENTICATION:
        cause = f"the login must be renewed by its owner {said}"
        return _denied(subject, cause, renewal(source.kind, named=named))
    cause = _CAUSES.get((kind, code)) or _CAUSES.get(("", code)) or "it refuses the credentials"
    return _denied(subject, f"{cause} {said} ({source.file})", renewal(source.kind, named=named))


def _impersonation_refused(error: RefusedError, source: Source, subject: str) -> SyncError:
    target = urlsplit(error.address).path.rpartition("/")[2].removesuffix(_IMPERSONATION)
    details = error.body.get("error")
    details = details if isinstance(details, Mapping) else {}
    reasons = [entry.get("reason") for entry in details.get("details") or () if isinstance(entry, Mapping)]
    said = f"({error.status})"
    if "SERVICE_DISABLED" in reasons:
        cause = f"the API that gives tokens of other accounts is switched off {said}"
        return _denied(subject, cause, "run `gcloud services enable iamcredentials.googleapis.com`")
    if error.status == HTTPStatus.NOT_FOUND:
        hint = f"correct the account's name in {source.file}"
        return _denied(subject, f"there is no account {target} {said}", hint)
    role = "roles/iam.serviceAccountTokenCreator"
    cause = f"the credentials may not act as {target}: they lack {role} on it {said}"
    hint = f"grant Service Account Token Creator on {target} to the account of {source.file}"
    return _denied(subject, cause, hint)


def _code_and_text(body: Mapping[str, JsonValue]) -> tuple[str, str]:
    details = body.get("error")
    if isinstance(details, Mapping):
        return str(details.get("status") or ""), _cut(str(details.get("message") or ""))
    code = details if isinstance(details, str) else ""
    return _cut(code), _cut(str(body.get("error_description") or ""))


def _inner_cause(error: Exception) -> str:
    match error:
        case subprocess.TimeoutExpired():
            return f"the program has not ended within {error.timeout:g} s"
        case OSError():
            return f"{error.filename}: {error.strerror}" if error.filename else type(error).__name__
        case GoogleAuthError():
            return _text(error)
        case _:
            return f"what it says cannot be read ({type(error).__name__})"


def _text(error: Exception) -> str:
    """The first argument alone: others are whole answers. A program's output begins with "Error:"."""
    said = str(error.args[0]) if error.args else type(error).__name__
    return _cut(said.partition(" Error:")[0])


def _cut(text: str) -> str:
    line = " ".join(scrub(text).split())
    return line if len(line) <= _TEXT_CHARACTERS_MAX else f"{line[:_TEXT_CHARACTERS_MAX]}..."


def _denied(subject: str, cause: str, hint: str) -> SyncError:
    return ConfigurationError(OPERATION, subject, cause, hint=hint, failure=Failure.CREDENTIALS)
