"""Where the Application Default Credentials are, and whether their file holds what its kind needs.

Looked at, in this order, as Google's libraries do: the file that GOOGLE_APPLICATION_CREDENTIALS names, the
file that ``gcloud auth application-default login`` writes, the metadata server of a Google Cloud machine.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple, Self

from pixaris_sync.errors import ConfigurationError, Failure, SyncError, open_files_hint
from pixaris_sync.model import JsonValue
from pixaris_sync.rules.addresses import DEFAULT_UNIVERSE, is_guarded

VARIABLE: Final = "GOOGLE_APPLICATION_CREDENTIALS"
UNIVERSE_VARIABLE: Final = "GOOGLE_CLOUD_UNIVERSE_DOMAIN"
QUOTA_VARIABLE: Final = "GOOGLE_CLOUD_QUOTA_PROJECT"
EXECUTABLE_VARIABLE: Final = "GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES"

#: Not a type of file: tokens come from the metadata server.
METADATA: Final = "metadata"
LOGIN_COMMAND: Final = "gcloud auth application-default login"

#: What each type of file cannot do without: texts, but for those in `_OBJECTS`.
_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "authorized_user": ("client_id", "client_secret", "refresh_token"),
    "service_account": ("client_email", "private_key", "token_uri"),
    "impersonated_service_account": ("service_account_impersonation_url", "source_credentials"),
    "external_account": ("audience", "subject_token_type", "token_url", "credential_source"),
    "external_account_authorized_user": ("client_id", "client_secret", "refresh_token", "token_url"),
}
#: How one logs in again for each type that gcloud writes, beside `LOGIN_COMMAND`.
_LOGIN_FLAGS: Final = {
    "authorized_user": "",
    "external_account_authorized_user": " --login-config=FILE",
    "impersonated_service_account": " --impersonate-service-account=ACCOUNT",
}
#: What to do for other ones of the rest.
_RENEWALS: Final = {
    "service_account": "put another key of a service account into the file",
    "external_account": "mend the file, or make one with "
    "`gcloud iam workload-identity-pools create-cred-config`",
}
_OBJECTS: Final = frozenset({"source_credentials", "credential_source"})
_OTHER_CLOUD: Final = "gdch_service_account"
#: Addresses that secrets are sent to.
_TOLD_SECRETS: Final = ("token_uri", "token_url", "token_info_url", "service_account_impersonation_url")


class Source(NamedTuple):
    """Credentials as they were found.

    Attributes:
        kind: the type that their file tells, or `METADATA`.
        file: the file; None for the metadata server.
        named: `VARIABLE` names the file.
        info: what the file says; it holds secrets.
        looked_at: every place that was looked at, in words.
    """

    kind: str
    file: Path | None
    named: bool
    info: Mapping[str, JsonValue]
    looked_at: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Source({self.kind}, {self.file})"

    @property
    def subject(self) -> str:
        """How messages call it."""
        return f"the credentials file {self.file}" if self.file else "the metadata server"

    @property
    def told_universe(self) -> str:
        """The universe domain that the file tells, or that of what it is made from; may be empty."""
        info = self.info
        while "universe_domain" not in info and isinstance(info.get("source_credentials"), Mapping):
            info = info["source_credentials"]
        return str(info.get("universe_domain") or "")

    @property
    def universe(self) -> str:
        """The universe domain to work in: the environment's, else the file's, else Google's public one.

        Raises:
            ConfigurationError: environment and file tell different ones.
        """
        chosen = os.environ.get(UNIVERSE_VARIABLE, "").strip()
        told = self.told_universe or (DEFAULT_UNIVERSE if self.file else "")
        if chosen and told and chosen != told:
            raise wrong_universe(self.subject, told, chosen)
        return chosen or told or DEFAULT_UNIVERSE

    @property
    def quota_project(self) -> str | None:
        """The project whose quota requests count against, where one is told."""
        return os.environ.get(QUOTA_VARIABLE) or self.info.get("quota_project_id") or None

    def unusable(self, cause: str, hint: str = "") -> ConfigurationError:
        """The error for a file that is not what it must be."""
        return _unusable(self.subject, cause, hint or renewal(self.kind, named=self.named))

    @classmethod
    def find(cls) -> Self:
        """Look for credentials.

        Raises:
            ConfigurationError: the file cannot be used (failure CREDENTIALS).
            SyncError: it cannot be opened now (TRANSIENT).
        """
        named = os.environ.get(VARIABLE, "")
        if named:
            return cls._of_file(Path(named), named=True, looked_at=())
        looked_at: tuple[str, ...] = (f"{VARIABLE} is not set",)
        file = _gcloud_file()
        if file is not None and file.is_file():
            return cls._of_file(file, named=False, looked_at=looked_at)
        looked_at += (f"there is no {file}" if file else "this user has no home folder",)
        return cls(METADATA, None, named=False, info={}, looked_at=looked_at)

    @classmethod
    def _of_file(cls, file: Path, *, named: bool, looked_at: tuple[str, ...]) -> Self:
        hint = renewal("", named=named)
        subject = f"the credentials file {file}"
        info = _read(file, subject, hint)
        _check(info, subject, hint)
        return cls(str(info["type"]), file, named=named, info=info, looked_at=looked_at)


def renewal(kind: str, *, named: bool) -> str:
    """What to do for other credentials of a kind, or for any where the kind is not known."""
    if hint := _RENEWALS.get(kind):
        return hint
    command = f"run `{LOGIN_COMMAND}{_LOGIN_FLAGS.get(kind, '')}`"
    # What gcloud writes is not looked at while the variable is set.
    unset = f"unset {VARIABLE} and {command}" if named else command
    return f"let {VARIABLE} name a login, or {unset}" if named and kind not in _LOGIN_FLAGS else unset


def wrong_universe(subject: str, told: str, chosen: str) -> ConfigurationError:
    """The error for credentials of another universe domain than the one to work in."""
    return _unusable(
        subject,
        f"it is of the universe domain {told}, and the work is in {chosen}",
        f"set {UNIVERSE_VARIABLE}={told} and start again, or use credentials of {chosen}",
    )


def _unusable(subject: str, cause: str, hint: str) -> ConfigurationError:
    return ConfigurationError("use", subject, cause, hint=hint, failure=Failure.CREDENTIALS)


def _gcloud_file() -> Path | None:
    """Where gcloud writes its login; None where the user has no home folder."""
    if folder := os.environ.get("CLOUDSDK_CONFIG"):
        return Path(folder) / "application_default_credentials.json"
    try:
        return Path.home() / ".config/gcloud/application_default_credentials.json"
    except RuntimeError:
        return None


def _read(file: Path, subject: str, hint: str) -> Mapping[str, JsonValue]:
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        cause = f"it is not text (byte {error.start + 1})"
    except OSError as error:
        raise _unopened(error, subject, hint) from None
    else:
        cause, info = _parsed(text)
        if info is not None:
            return info
    # Apart from the parser's error, which holds the whole file.
    raise _unusable(subject, cause, hint)


def _unopened(error: OSError, subject: str, hint: str) -> SyncError:
    if busy := open_files_hint(error):
        return SyncError("use", subject, "it cannot be opened now", hint=busy, failure=Failure.TRANSIENT)
    match error:
        case FileNotFoundError():
            return _unusable(subject, "it does not exist", hint)
        case IsADirectoryError():
            return _unusable(subject, "it is a folder", hint)
        case PermissionError():
            return _unusable(subject, "it may not be read", "let the user of this process read it")
    return _unusable(subject, f"it cannot be read ({error.strerror})", hint)


def _parsed(text: str) -> tuple[str, Mapping[str, JsonValue] | None]:
    """What is wrong with a text, and the JSON object that it is if nothing is."""
    if not text.strip():
        return "it is empty", None
    try:
        info = json.loads(text)
    except json.JSONDecodeError as error:
        return f"it is not JSON (line {error.lineno}, column {error.colno})", None
    except RecursionError:
        return "it is not JSON (too many brackets)", None
    return ("", info) if isinstance(info, Mapping) else ("it holds no JSON object", None)


def _check(info: Mapping[str, JsonValue], subject: str, hint: str, *, where: str = "") -> None:
    """Refuse what its kind cannot be used without; `where` is the key of an object in the file."""
    kind, place = info.get("type"), f" in {where}" if where else ""
    if kind is None and {"installed", "web"} & info.keys():
        hint = f"unset {VARIABLE} and run `{LOGIN_COMMAND} --client-id-file=FILE` with it"
        raise _unusable(subject, "it is an OAuth client, not a login", hint)
    if kind == _OTHER_CLOUD:
        cause = f"its type {_OTHER_CLOUD} is of a Distributed Cloud, which has no BigQuery"
        raise _unusable(subject, cause, hint)
    if not isinstance(kind, str) or kind not in _KEYS:
        cause = (
            f'it lacks "type"{place}' if kind is None else f'its "type"{place} is unknown: {str(kind)[:40]!r}'
        )
        raise _unusable(subject, cause, hint)
    for key in _KEYS[kind]:
        if fault := _fault(info.get(key), key):
            raise _unusable(subject, f'its "{key}"{place} {fault}', hint)
    for key in filter(info.get, _TOLD_SECRETS):
        if not (isinstance(info[key], str) and is_guarded(info[key])):
            raise _unusable(subject, f'its "{key}"{place} is no address that begins with https://', hint)
    if kind == "impersonated_service_account":
        _check(info["source_credentials"], subject, hint, where="source_credentials")


def _fault(value: JsonValue, key: str) -> str:
    if value is None or value == "":
        return "is missing"
    if key in _OBJECTS:
        return "" if isinstance(value, Mapping) else "is no JSON object"
    return "" if isinstance(value, str) else "is no text"
