"""What google-auth gets tokens with, for each kind of credentials; and whom they stand for.

Importing this module imports Google's library: `login` does so when the first token is due.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from google.auth import (
    aws,
    compute_engine,
    external_account_authorized_user,
    identity_pool,
    impersonated_credentials,
    pluggable,
)
from google.auth.exceptions import GoogleAuthError
from google.oauth2 import credentials as user_credentials
from google.oauth2 import service_account

from pixaris_sync.login.source import EXECUTABLE_VARIABLE, METADATA, Source
from pixaris_sync.model import JsonValue

if TYPE_CHECKING:
    from google.auth.credentials import Credentials

#: Enough for objects and for rows; users have chosen theirs when they logged in.
SCOPES: Final = (
    "https://www.googleapis.com/auth/bigquery",
    "https://www.googleapis.com/auth/devstorage.read_write",
)
_AWS: Final = "urn:ietf:params:aws:token-type:aws4_request"
_IMPERSONATED: Final = re.compile(r"/serviceAccounts/([^/:]+):generateAccessToken$")

_Info = Mapping[str, JsonValue]


def google_credentials(source: Source) -> "Credentials":
    """What gets tokens for credentials.

    Raises:
        ConfigurationError: their file cannot be used.
    """
    if source.kind == METADATA:
        return compute_engine.Credentials(scopes=SCOPES)  # type: ignore[no-untyped-call] # as all of them
    try:
        return _made(source, source.info)
    except (GoogleAuthError, ValueError, TypeError, AttributeError) as error:
        # The text may quote the file.
        cause = _fault(source.info, error)
    raise source.unusable(cause)


def _made(source: Source, info: _Info) -> "Credentials":
    user: Any = user_credentials.Credentials
    robot: Any = service_account.Credentials
    worker: Any = external_account_authorized_user.Credentials
    make: dict[str, Callable[[], Any]] = {
        "authorized_user": lambda: user.from_authorized_user_info(info),
        "service_account": lambda: robot.from_service_account_info(info, scopes=SCOPES),
        "external_account": lambda: _external(source, info),
        "external_account_authorized_user": lambda: worker.from_info(info),
        "impersonated_service_account": lambda: _impersonated(source, info),
    }
    made: Credentials = make[info["type"]]()
    return made


def _external(source: Source, info: _Info) -> Any:  # noqa: ANN401 - of several classes
    if info["subject_token_type"] == _AWS:
        kind: Any = aws.Credentials
    elif "executable" in info["credential_source"]:
        kind = pluggable.Credentials
        if os.environ.get(EXECUTABLE_VARIABLE) != "1":
            hint = f"if you trust that file, set {EXECUTABLE_VARIABLE}=1"
            raise source.unusable("it names a program to run, which is not allowed", hint)
    else:
        kind = identity_pool.Credentials
    return kind.from_info(info, scopes=SCOPES)


def _impersonated(source: Source, info: _Info) -> Any:  # noqa: ANN401 - as above
    address = info["service_account_impersonation_url"]
    target = _IMPERSONATED.search(address)
    if target is None:
        raise source.unusable('its "service_account_impersonation_url" names no account')
    return impersonated_credentials.Credentials(  # type: ignore[no-untyped-call] # as above
        source_credentials=_made(source, info["source_credentials"]),
        target_principal=target[1],
        target_scopes=list(SCOPES),
        delegates=info.get("delegates"),
        iam_endpoint_override=address,
    )


def _fault(info: _Info, error: Exception) -> str:
    if info["type"] == "service_account" or "private_key" in (info.get("source_credentials") or ()):
        return 'its "private_key" is damaged'
    if info["type"] == "external_account":
        return f'its "credential_source" cannot be used ({type(error).__name__})'
    return f"it cannot be used ({type(error).__name__})"
