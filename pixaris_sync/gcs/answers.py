"""What GCS answers: objects, refusals and nothing at all; the last two become `SyncError`.

Sources: the JSON API's object resource, its error body (``error.errors[].reason``) and status codes, and the
client's exceptions.

| answer | becomes |
| --- | --- |
| 407, 451, or below 500 (but 408, 412, 429) without the service's own JSON | TRANSIENT: it is a proxy's |
| 401 | `ConfigurationError`, CREDENTIALS |
| 403 with a rate or quota reason, 429 | QUOTA; where it is used up for long, at rest for minutes |
| 403 for a hold or a retention policy | PERMANENT: it is about this object |
| other 403; 400 because the requester is to pay | PERMISSION, with the permission that is missing |
| 404 | `ConfigurationError`: a bucket that is not there (callers keep a missing object or session apart) |
| 408, 5xx | TRANSIENT |
| 412 | `ObjectConflictError` |
| 400 that quotes the checksum which was sent | TRANSIENT: the content was damaged on its way |
| any other | PERMANENT |
| none, nothing was sent | TRANSIENT |
| none, an unreadable one, or a redirect, after a write was sent | IN_DOUBT |
| the same, after a read was sent | TRANSIENT |

A refused checksum has the same status and reason as other bad requests; the service's answer quotes the
checksum that was sent, so that value is looked for, never the wording.

No message holds a token, a header or a session's address: the client's own texts, which do, are never used,
and the service's are taken out of their JSON field only and scrubbed.
"""

import base64
import json
import re
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple, Self, TypeVar

import aiohttp
from msgspec.structs import replace

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
    ObjectConflictError,
    SyncError,
    in_between_cause,
    open_files_hint,
    rest_seconds,
)
from pixaris_sync.limits.backoff import retry_after_seconds
from pixaris_sync.model import JsonValue, RemoteObject
from pixaris_sync.rules.permissions import PERMISSIONS, grant_hint
from pixaris_sync.text import MASK, scrub

T = TypeVar("T")

#: Of one object, whatever the account may do.
_HELD_REASONS = frozenset({"objectUnderActiveHold", "retentionPolicyNotMet"})
#: Of a request that is whole: the bucket wants to know which project pays (Requester Pays).
_PAYER_REASON = "required"
#: Whoever answers these means the same by them.
_PLAIN_STATUSES = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.PRECONDITION_FAILED, HTTPStatus.TOO_MANY_REQUESTS}
)
_REASON = re.compile(r"[A-Za-z_]{1,40}")
_PERMISSION = re.compile(r"\bstorage(?:\.[A-Za-z]+){2,}")
#: Addresses, and unbroken runs as long as tokens are.
_SECRET = re.compile(r"\S*://\S*|\S{40,}")
_MESSAGE_CHARACTERS_MAX = 200


def encode_crc32c(crc32c: int) -> str:
    """The checksum as the API writes it: base64 of its four bytes, the highest first."""
    return base64.b64encode(crc32c.to_bytes(4, "big")).decode("ascii")


def read_object(answer: JsonValue) -> RemoteObject:
    """Read an object resource.

    Raises:
        ValueError: it is none.
    """
    try:
        checksum = answer.get("crc32c")
        return RemoteObject(
            name=answer["name"],
            size=int(answer["size"]),
            crc32c=(
                None if checksum is None else int.from_bytes(base64.b64decode(checksum, validate=True), "big")
            ),
            generation=int(answer["generation"]),
            metadata=answer.get("metadata"),
        )
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError("no object resource") from error


def read_page(answer: JsonValue, entries: str, read: Callable[[JsonValue], T]) -> tuple[tuple[T, ...], str]:
    """Read a page of a listing: its entries, and the token of the next page, empty after the last.

    Args:
        answer: the page.
        entries: the field that holds what was asked for; it is absent where there is none.
        read: reads an entry.

    Raises:
        ValueError: it is none.
    """
    try:
        token = answer.get("nextPageToken", "").strip()
        return tuple(read(entry) for entry in answer.get(entries, ())), token
    except (AttributeError, TypeError) as error:
        raise ValueError("no page of a listing") from error


def compared(answer: RemoteObject, crc32c: int, size: int, operation: str, subject: str) -> RemoteObject:
    """The answer to an upload, if it tells the checksum of what was sent.

    The service has compared it too. Where the answer tells none, as that of an object under a key of its
    owner's may, the size must do.

    Raises:
        SyncError: it tells another one; whether the object or only the answer is wrong is IN_DOUBT.
    """
    if answer.crc32c is None and answer.size == size:
        return replace(answer, crc32c=crc32c)
    if answer.crc32c == crc32c:
        return answer
    raise SyncError(
        operation,
        subject,
        "the answer tells another checksum than that of the content",
        failure=Failure.IN_DOUBT,
    )


class Refusal(NamedTuple):
    """An answer with an error status.

    Attributes:
        status: the HTTP status.
        own: its body is a JSON error, as the service and OAuth give them.
        reasons: the machine-readable reasons of the body, none where it is no JSON error.
        message: the body's message in one line, scrubbed and cut; may be empty.
        permission: the IAM permission that the message names, or empty.
        quotes_checksum: the message quotes the checksum that was sent.
        retry_after_seconds: how long the service asked to wait, if it did.
    """

    status: int
    own: bool
    reasons: tuple[str, ...]
    message: str
    permission: str
    quotes_checksum: bool
    retry_after_seconds: float | None

    @classmethod
    def from_client(cls, error: Exception, *, checksum: str = "", emulated: bool = False) -> Self | None:
        """Read the client's exception; None where it tells of no answer, or of one that is not HTTP.

        The client puts ``<reason phrase>: <body>`` into the exception's message. An answer that cannot be
        parsed is such an exception too, with an invented status and the parser's error as its cause.

        Args:
            error: what the client raised.
            checksum: the base64 crc32c that was sent, if one was.
            emulated: an emulator was asked: some of them refuse without a word.
        """
        if not isinstance(error, aiohttp.ClientResponseError):
            return None
        if error.status < HTTPStatus.BAD_REQUEST or error.__cause__ is not None:
            return None
        _, _, body = error.message.partition(": ")
        read = _read_error_body(body)
        message, reasons = read or ("", [])
        permission = _PERMISSION.search(message)
        return cls(
            status=error.status,
            own=read is not None or (emulated and not body),
            reasons=tuple(reason for reason in reasons if _REASON.fullmatch(reason)),
            message=_scrub(message),
            permission=permission.group() if permission else "",
            quotes_checksum=bool(checksum) and checksum in message,
            retry_after_seconds=retry_after_seconds(
                "" if error.headers is None else error.headers.get("Retry-After", ""), time.time()
            ),
        )

    @property
    def in_between(self) -> bool:
        """Whether something else has answered in the service's place: a proxy, a firewall, a login page."""
        if self.status in FOREIGN_STATUSES:
            return True
        mute = not self.own and self.status not in _PLAIN_STATUSES
        return mute and self.status < HTTPStatus.INTERNAL_SERVER_ERROR

    @property
    def failure(self) -> Failure:
        """What it means for the next attempt."""
        match self.status:
            case status if self.in_between or (status == HTTPStatus.BAD_REQUEST and self.quotes_checksum):
                return Failure.TRANSIENT
            case HTTPStatus.UNAUTHORIZED:
                return Failure.CREDENTIALS
            case HTTPStatus.FORBIDDEN:
                return self._failure_of_forbidden()
            case HTTPStatus.TOO_MANY_REQUESTS:
                return Failure.QUOTA
            case HTTPStatus.BAD_REQUEST:
                return Failure.PERMISSION if _PAYER_REASON in self.reasons else Failure.PERMANENT
            case status:
                passing = status == HTTPStatus.REQUEST_TIMEOUT or status >= HTTPStatus.INTERNAL_SERVER_ERROR
                return Failure.TRANSIENT if passing else Failure.PERMANENT

    def _failure_of_forbidden(self) -> Failure:
        if _HELD_REASONS.intersection(self.reasons):
            return Failure.PERMANENT
        asked_for_less = (RATE_REASONS | QUOTA_REASONS).intersection(self.reasons)
        return Failure.QUOTA if asked_for_less else Failure.PERMISSION

    def error(self, operation: str, subject: str, *, bucket: str) -> SyncError:
        """The error to raise for an `operation` on a `subject` in `bucket`."""
        kind, hint = SyncError, ""
        cause = f"the service answered {self._summary()}"
        match self.status:
            case _ if self.in_between:
                cause, hint = in_between_cause(self.status), IN_BETWEEN_HINT
            case HTTPStatus.UNAUTHORIZED:
                kind, hint = ConfigurationError, CREDENTIALS_HINT
                cause = "the service does not accept the credentials"
            case HTTPStatus.FORBIDDEN if denial := self._denial_of_project():
                cause, hint = denial
            case HTTPStatus.FORBIDDEN if self.failure is Failure.PERMANENT:
                hint = "wait for the end of the hold or retention, then run `pixaris-sync retry`"
            case HTTPStatus.BAD_REQUEST if self.failure is Failure.PERMISSION:
                hint = f"switch Requester Pays of bucket {bucket} off; then it goes on by itself"
            case HTTPStatus.FORBIDDEN if self.failure is Failure.PERMISSION:
                missing = self.permission or "a permission that the answer does not name"
                cause = f"the account lacks {missing} ({self._summary()})"
                hint = self._grant_hint(bucket)
            case HTTPStatus.NOT_FOUND:
                kind, cause = ConfigurationError, f"there is no bucket {bucket}"
                hint = "create the bucket, or correct the setting gcp_pixaris_bucket_name"
            case HTTPStatus.PRECONDITION_FAILED:
                kind, cause = ObjectConflictError, "the object's generation is not the expected one"
            case HTTPStatus.BAD_REQUEST if self.quotes_checksum:
                cause = "what arrived does not have the checksum that was sent with it"
                hint = "it is sent again; if this goes on, the file changes or the network damages data"
        return kind(
            operation,
            subject,
            cause,
            hint=hint,
            failure=self.failure,
            retry_after_seconds=rest_seconds(self.reasons, self.retry_after_seconds),
        )

    def _grant_hint(self, bucket: str) -> str:
        if self.permission in PERMISSIONS:
            return grant_hint([self.permission], bucket)
        return f"grant {self.permission or 'it'} on bucket {bucket}, e.g. with Storage Object User"

    def _denial_of_project(self) -> tuple[str, str] | None:
        """Cause and hint where it is a project's fault, and no role's."""
        if BILLING_REASONS.intersection(self.reasons):
            return f"nobody pays for the bucket ({self._summary()})", BILLING_HINT
        if QUOTA_PROJECT_REASON in self.reasons:
            return f"the account may not use the quota project ({self._summary()})", QUOTA_PROJECT_HINT
        return None

    def _summary(self) -> str:
        """Status, reasons and message in one line."""
        head = " ".join((str(self.status), *self.reasons))
        return f"{head}: {self.message}" if self.message else head


class RedirectedError(aiohttp.ClientError):
    """The answer sends us elsewhere."""


def unanswered(operation: str, subject: str, error: Exception, *, sent: bool, writes: bool) -> SyncError:
    """The error for a request without a readable answer.

    Args:
        operation: what was tried.
        subject: what it was tried on.
        error: the client's exception, a ValueError for an answer that cannot be read, or `RedirectedError`.
        sent: the request was on its way, wholly or in part, when it failed.
        writes: the request would have changed an object.
    """
    hint = ""
    match error:
        case RedirectedError():
            cause = "the answer redirects to another address, which is not followed"
            hint = IN_BETWEEN_HINT
        case TimeoutError():
            cause = "no answer within the time limit" if sent else "no connection within the time limit"
        case aiohttp.ClientConnectorDNSError():
            cause = "the service's name cannot be resolved"
        case aiohttp.ClientSSLError():
            cause, hint = "no secure connection can be made", CERTIFICATE_HINT
        case aiohttp.ClientConnectorError():
            cause = f"no connection can be made ({error.strerror or type(error).__name__})"
        case aiohttp.ClientResponseError():
            cause = "the answer cannot be read"
        case aiohttp.ClientError() | OSError():
            cause = f"the connection broke ({type(error).__name__})"
        case _:
            cause = "the answer cannot be read"
    failure = Failure.IN_DOUBT if sent and writes else Failure.TRANSIENT
    return SyncError(operation, subject, cause, hint=hint or open_files_hint(error), failure=failure)


def _read_error_body(body: str) -> tuple[str, list[str]] | None:
    """Message and reasons of a JSON error body, Google's kind or OAuth's (RFC 6749, 5.2); None: no such."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    details = answer.get("error") if isinstance(answer, Mapping) else None
    if isinstance(details, str):
        return "", [details]
    if not isinstance(details, Mapping):
        return None
    message = details.get("message")
    reasons = [
        entry["reason"]
        for entries in (details.get("errors"), details.get("details"))
        for entry in (entries if isinstance(entries, list) else ())
        if isinstance(entry, Mapping) and isinstance(entry.get("reason"), str)
    ]
    return message if isinstance(message, str) else "", reasons


def _scrub(message: str) -> str:
    line = _SECRET.sub(MASK, " ".join(scrub(message).split()))
    return line if len(line) <= _MESSAGE_CHARACTERS_MAX else f"{line[:_MESSAGE_CHARACTERS_MAX]}..."
