"""What BigQuery's client raises, translated into `SyncError`.

Decided by class, status code and ``reason``, never by text, but for one answer that has no reason of its own:
`_CONCURRENT`. Texts are taken from the service's error objects
only: the client's own messages carry URLs, and those of uploads are keys to an upload session.

Importing this module imports Google's client libraries: only `calls` does.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import requests
from google.api_core.exceptions import GoogleAPICallError, GoogleAPIError
from google.auth.exceptions import GoogleAuthError
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from pixaris_sync.bigquery.wire import error_text, one_line
from pixaris_sync.errors import (
    BILLING_HINT,
    BILLING_REASONS,
    CERTIFICATE_HINT,
    CREDENTIALS_HINT,
    FOREIGN_STATUSES,
    IN_BETWEEN_HINT,
    QUOTA_PROJECT_HINT,
    QUOTA_PROJECT_REASON,
    QUOTA_REASONS,
    RATE_REASONS,
    ConfigurationError,
    Failure,
    SyncError,
    TableNotFoundError,
    in_between_cause,
    open_files_hint,
    rest_seconds,
)
from pixaris_sync.limits.backoff import retry_after_seconds
from pixaris_sync.rules.permissions import grant_hint, named_in

# Reasons of https://cloud.google.com/bigquery/docs/error-messages. They stand above the status code, because
# one and the same reason comes with several: 403 and 429, 400 and 503.
_SERVICE_REASONS = frozenset(
    {
        "aborted",
        "backendError",
        "badGateway",
        "internalError",
        "jobBackendError",
        "jobInternalError",
        "tableUnavailable",
        "timeout",
    }
)

#: "Could not serialize access to table T due to concurrent update" and "Transaction is aborted due to
#: concurrent update against table T" come with the reason of a wrong statement, ``invalidQuery``, and a later
#: attempt is taken: https://cloud.google.com/bigquery/docs/troubleshoot-queries.
_CONCURRENT = "due to concurrent update"

_STATUS_FAILURES: Mapping[int, Failure] = {
    HTTPStatus.UNAUTHORIZED: Failure.CREDENTIALS,
    HTTPStatus.FORBIDDEN: Failure.PERMISSION,
    HTTPStatus.REQUEST_TIMEOUT: Failure.TRANSIENT,
    # Another writer changed the table at the same time.
    HTTPStatus.CONFLICT: Failure.TRANSIENT,
    HTTPStatus.PRECONDITION_FAILED: Failure.TRANSIENT,
    HTTPStatus.TOO_MANY_REQUESTS: Failure.QUOTA,
}

#: Whoever answers these means the same by them.
_PLAIN_STATUSES = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS})

_REDIRECTED = "the answer redirects to another address, which is not followed"
#: For an answer that names no permission.
_ROLES_HINT = "grant the roles BigQuery Data Editor on the dataset and BigQuery Job User on the project"

# ValueError, KeyError and AttributeError are what the client raises on an answer that is no JSON, or JSON of
# another shape: proxies send such.
_CLIENT_ERRORS = (
    GoogleAPIError,
    GoogleAuthError,
    requests.RequestException,
    OSError,
    ValueError,
    KeyError,
    AttributeError,
    TypeError,
)


@contextmanager
def translated(operation: str, subject: str, *, repeatable: bool, needs: str = "") -> Iterator[None]:
    """Raise what the client raises within as `SyncError`.

    Args:
        operation: what is tried.
        subject: what it is tried on.
        repeatable: doing it twice is like doing it once, so that a lost answer is TRANSIENT; else it is
            IN_DOUBT.
        needs: the permission that is missing where the service refuses and does not name it.
    """
    try:
        yield
    except SyncError:
        raise
    except _CLIENT_ERRORS as error:
        # The client's exception names URLs, of upload sessions and of proxies with passwords: not even a
        # traceback may show it.
        raise translate(error, operation, subject, repeatable=repeatable, needs=needs) from None


@contextmanager
def in_doubt() -> Iterator[None]:
    """Whatever fails within leaves it open whether something else was done: make it IN_DOUBT."""
    try:
        yield
    except SyncError as error:
        raise SyncError(
            error.operation, error.subject, error.cause, hint=error.hint, failure=Failure.IN_DOUBT
        ) from error


def translate(
    error: Exception, operation: str, subject: str, *, repeatable: bool, needs: str = ""
) -> SyncError:
    """The `SyncError` for what the client raised; arguments as of `translated`."""
    if isinstance(error, GoogleAPICallError):
        return _from_answer(error, operation, subject, repeatable=repeatable, needs=needs)
    kind = type(error).__name__
    if isinstance(error, GoogleAuthError):
        cause = f"the client certificate cannot be shown ({kind})"
        hint = "mend it, or set GOOGLE_API_USE_CLIENT_CERTIFICATE=false"
        return ConfigurationError(operation, subject, cause, hint=hint, failure=Failure.CREDENTIALS)
    unknown = Failure.TRANSIENT if repeatable else Failure.IN_DOUBT
    if isinstance(
        error, (requests.exceptions.JSONDecodeError, ValueError, KeyError, AttributeError, TypeError)
    ):
        cause = f"the answer is not one that BigQuery gives ({kind})"
        return SyncError(operation, subject, cause, failure=unknown, hint=IN_BETWEEN_HINT)
    if isinstance(error, requests.TooManyRedirects):
        return SyncError(operation, subject, _REDIRECTED, failure=unknown, hint=IN_BETWEEN_HINT)
    hint = open_files_hint(error)
    if _never_connected(error):
        return SyncError(operation, subject, f"no connection ({kind})", hint=hint, failure=Failure.TRANSIENT)
    late = isinstance(error, (requests.Timeout, TimeoutError))
    cause = "no answer in time" if late else "the connection broke"
    if isinstance(error, requests.exceptions.SSLError):
        cause, hint = "no secure connection can be made", CERTIFICATE_HINT
    return SyncError(operation, subject, f"{cause} ({kind})", hint=hint, failure=unknown)


def failure_of_reason(reason: str, cause: str = "") -> Failure | None:
    """What an ``ErrorProto`` says by itself about the next attempt; None where it says nothing.

    Args:
        reason: its reason.
        cause: its message, or what was made of it.
    """
    if reason in RATE_REASONS or reason in QUOTA_REASONS:
        return Failure.QUOTA
    if reason in _SERVICE_REASONS or (reason == "invalidQuery" and _CONCURRENT in cause):
        return Failure.TRANSIENT
    return None


def job_cause(error_result: Mapping[str, Any], errors: Sequence[Mapping[str, Any]] | None) -> str:
    """Why a job failed: the errors it collected; its result, which only counts them, where there are none."""
    texts = dict.fromkeys(
        error_text(error) for error in errors or () if error.get("message") != error_result.get("message")
    )
    return one_line("; ".join(texts) or error_text(error_result))


def permission_hint(missing: str) -> str:
    """What to do where an account lacks a permission; `missing`: its name, or empty where nobody names it."""
    return grant_hint([missing]) if missing else _ROLES_HINT


def _from_answer(
    error: GoogleAPICallError, operation: str, subject: str, *, repeatable: bool, needs: str
) -> SyncError:
    code = int(error.code or 0)
    details = [detail for detail in error.errors or () if isinstance(detail, Mapping)]
    cause = one_line("; ".join(map(error_text, details))) or _status_text(code)
    reasons = [detail.get("reason") or "" for detail in [*details, *_details(error)]]
    in_between = _is_in_between(error, code)
    if in_between:
        failure, cause = Failure.TRANSIENT, in_between_cause(code)
    else:
        failure = _failure_of_answer(code, reasons, cause)
    if failure is Failure.TRANSIENT and not repeatable:
        # Google cannot tell after its own errors whether the rows were taken or the job was begun:
        # https://cloud.google.com/bigquery/docs/error-messages, backendError.
        failure = Failure.IN_DOUBT
    hint = CREDENTIALS_HINT if failure is Failure.CREDENTIALS else ""
    if in_between:
        hint = IN_BETWEEN_HINT
    elif BILLING_REASONS.intersection(reasons):
        hint = BILLING_HINT
    elif QUOTA_PROJECT_REASON in reasons:
        cause, hint = f"the account may not use the quota project ({cause})", QUOTA_PROJECT_HINT
    elif failure is Failure.PERMISSION:
        named = named_in(cause)
        hint = permission_hint(named or needs)
        if needs and not named:
            cause = f"{cause.rstrip('.')} (it needs {needs})"
    kind = SyncError
    if _redirects(code):
        cause, hint = _REDIRECTED, IN_BETWEEN_HINT
    if code == HTTPStatus.NOT_FOUND and not in_between:
        kind, failure = TableNotFoundError, Failure.TRANSIENT
    header = "" if error.response is None else error.response.headers.get("Retry-After", "")
    retry_after = rest_seconds(reasons, retry_after_seconds(header, time.time()))
    return kind(operation, subject, cause, hint=hint, failure=failure, retry_after_seconds=retry_after)


def _details(error: GoogleAPICallError) -> list[Mapping[str, Any]]:
    """What the service adds to its errors (``google.rpc.ErrorInfo``)."""
    return [detail for detail in error.details or () if isinstance(detail, Mapping)]


def _is_in_between(error: GoogleAPICallError, code: int) -> bool:
    """Whether something else has answered in the service's place: a proxy, a firewall, a login page."""
    if code in FOREIGN_STATUSES:
        return True
    if error.response is None or code >= HTTPStatus.INTERNAL_SERVER_ERROR or code in _PLAIN_STATUSES:
        return False
    try:
        body = json.loads(error.response.content)
    except (ValueError, RecursionError, AttributeError, TypeError):
        return True
    return not (isinstance(body, Mapping) and isinstance(body.get("error"), Mapping))


def _failure_of_answer(code: int, reasons: Sequence[str], cause: str) -> Failure:
    for reason in reasons:
        if failure := failure_of_reason(reason, cause):
            return failure
    if code >= HTTPStatus.INTERNAL_SERVER_ERROR or _redirects(code):
        return Failure.TRANSIENT
    return _STATUS_FAILURES.get(code, Failure.PERMANENT)


def _redirects(code: int) -> bool:
    return HTTPStatus.MULTIPLE_CHOICES <= code < HTTPStatus.BAD_REQUEST


def _never_connected(error: BaseException) -> bool:
    """Whether no connection came about, so that nothing can have been sent."""
    seen: list[object] = [error]
    for cause in seen:
        if isinstance(cause, (requests.ConnectTimeout, NewConnectionError, ConnectTimeoutError)):
            return True
        inner = [getattr(cause, "reason", None), *getattr(cause, "args", ())]
        seen += [one for one in inner if isinstance(one, BaseException) and one not in seen]
    return False


def _status_text(code: int) -> str:
    try:
        return f"HTTP status {code} ({HTTPStatus(code).phrase})"
    except ValueError:
        return f"HTTP status {code}" if code else "no answer"
