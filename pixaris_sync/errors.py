"""The one root error, and the kinds of failure it can be.

A foreign exception is translated into a `SyncError` once, by the adapter that owns the client. The code that
catches a `SyncError` decides by its class and its `failure`, never by its text.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

#: The hint for every missing, expired or revoked credential.
CREDENTIALS_HINT: Final = (
    "unset GOOGLE_APPLICATION_CREDENTIALS and run `gcloud auth application-default login`, or let it name "
    "other credentials"
)
#: The hint for every answer that the service itself did not give.
IN_BETWEEN_HINT: Final = (
    "let the proxy or firewall pass requests to *.googleapis.com, or log in to it; then it goes on by itself"
)
#: The hint where requests may not count against the project that the login names.
QUOTA_PROJECT_HINT: Final = (
    "grant Service Usage Consumer on that project to the account, or name another one in "
    "GOOGLE_CLOUD_QUOTA_PROJECT"
)
#: What refuses so.
QUOTA_PROJECT_REASON: Final = "USER_PROJECT_DENIED"
#: The hint where the other end's certificate is not trusted.
CERTIFICATE_HINT: Final = (
    "where a proxy looks into connections, let REQUESTS_CA_BUNDLE or SSL_CERT_FILE name a file that holds "
    "its certificate"
)
#: HTTP statuses that Google's services never answer: a proxy wants a login, or the law forbids.
FOREIGN_STATUSES: Final = frozenset({407, 451})
#: The hint for every answer that says that nobody pays.
BILLING_HINT: Final = "switch billing of the Google Cloud project on; then it goes on by itself"
#: What refuses whoever asks: no role helps.
BILLING_REASONS: Final = frozenset(
    {"accountDisabled", "billingDisabled", "billingNotEnabled", "BILLING_DISABLED"}
)


#: What both services answer where they are asked for too much at a time, whatever the status: a moment later
#: they take it. The last one stands in the details (``google.rpc.ErrorInfo``).
RATE_REASONS: Final = frozenset(
    {"jobRateLimitExceeded", "rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED"}
)
#: The same where what may be used in a longer time, as the load jobs of a table in a day, is used up.
QUOTA_REASONS: Final = frozenset({"blocked", "dailyLimitExceeded", "quotaExceeded"})
#: "You should wait 10 minutes or longer": Google on these, in "Troubleshoot quota and limit errors" of
#: BigQuery. What is used up comes back bit by bit over the day.
QUOTA_RESTS_SECONDS: Final = 600.0


def rest_seconds(reasons: Iterable[str], asked: float | None) -> float | None:
    """How long to leave alone what refused for these reasons, where the answer asked to wait so long."""
    return max(asked or 0.0, QUOTA_RESTS_SECONDS) if QUOTA_REASONS.intersection(reasons) else asked


def in_between_cause(status: int) -> str:
    """The cause where something answered in the service's place."""
    return f"a proxy or firewall in between answered {status}, not the service"


#: The hint where no more files may be open.
OPEN_FILES_HINT: Final = (
    "let it open more files: `ulimit -n 1024` before it is started, LimitNOFILE=1024 in a service's unit"
)
#: What the system calls that, be it for a process or for the machine (EMFILE, ENFILE). Libraries pass it on
#: as text alone.
_TOO_MANY_FILES: Final = "Too many open files"


class Failure(StrEnum):
    """What a failure means for the next attempt."""

    #: Nothing was done and a later attempt may succeed: 408, 5xx, no network.
    TRANSIENT = "transient"
    #: Nothing was done, the service asks for less: 429, exhausted quota.
    QUOTA = "quota"
    #: It may have been done: the answer was lost. Look before trying again.
    IN_DOUBT = "in_doubt"
    #: Nothing was done: the service knows who we are and says no: 403. Mostly to everything alike, and not
    #: for ever: roles take minutes to be in force, accounts and billing are switched off and on again.
    PERMISSION = "permission"
    #: The credentials are missing, expired or revoked. Everything is affected.
    CREDENTIALS = "credentials"
    #: Trying again cannot help until somebody changes something.
    PERMANENT = "permanent"

    @property
    def retryable(self) -> bool:
        """Whether the same attempt may succeed later without anything being changed here."""
        return self in (Failure.TRANSIENT, Failure.QUOTA, Failure.IN_DOUBT, Failure.PERMISSION)


class SyncError(Exception):
    """An operation on a subject failed.

    Attributes:
        operation: what was tried, as a verb phrase: ``"upload object"``.
        subject: what it was tried on: a path, object, table or setting.
        cause: what went wrong, in one line, without secrets.
        hint: what to do next, in one line; may be empty.
        failure: what this means for the next attempt.
        retry_after_seconds: how long the service asked to wait, if it did.
    """

    def __init__(
        self,
        operation: str,
        subject: str,
        cause: str,
        *,
        hint: str = "",
        failure: Failure = Failure.PERMANENT,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(operation, subject, cause)
        self.operation = operation
        self.subject = subject
        self.cause = cause
        self.hint = hint
        self.failure = failure
        self.retry_after_seconds = retry_after_seconds

    @property
    def stops_everything(self) -> bool:
        """Whether it is about all of the work, not about one file, row or table."""
        return self.failure is Failure.CREDENTIALS

    def __str__(self) -> str:
        return f"cannot {self.operation} {self.subject}: {self.cause}"


class ConfigurationError(SyncError):
    """Settings, folders, credentials, bucket or dataset are missing or unusable: no work can start."""

    @property
    def stops_everything(self) -> bool:
        """See `SyncError.stops_everything`."""
        return True


class SettingsError(ConfigurationError):
    """Several things are wrong with the settings.

    Attributes:
        faults: each of them, with its own hint.
    """

    def __init__(self, faults: Sequence[ConfigurationError]) -> None:
        super().__init__(
            "use settings",
            ", ".join(dict.fromkeys(fault.subject for fault in faults)),
            "; ".join(f"{fault.subject}: {fault.cause}" for fault in faults),
            hint="; ".join(dict.fromkeys(fault.hint for fault in faults)),
        )
        self.faults = tuple(faults)


class NameRefusedError(SyncError):
    """A project, dataset, run or file has a name that GCS, BigQuery or Pixaris cannot take."""


class FolderOwnedError(SyncError):
    """Another process owns this results folder; the cause says which."""


class LedgerError(SyncError):
    """The ledger cannot be opened, read or written."""


class LedgerDamagedError(LedgerError):
    """The ledger's content is damaged; it can be rebuilt from the local folder and the cloud."""


class LedgerEmptyError(LedgerError):
    """The ledger was begun and nothing was ever written to it: as good as none."""


class LocalFileError(SyncError):
    """A local file or folder of a run is missing, damaged, unreadable or leaves the run's folder."""


class DamagedImageError(LocalFileError):
    """An image is not whole; one that is still being written may be in a moment."""


class ObjectConflictError(SyncError):
    """A generation precondition failed (412): the object is not in the state the caller expected."""


class ObjectGoneError(SyncError):
    """The object was deleted or replaced since it was listed or looked up."""


class ResultsUnreadableError(SyncError, RuntimeError):
    """The results of a dataset cannot be read from BigQuery; a RuntimeError, as Pixaris raises."""


class UnexpectedError(SyncError):
    """Something happened that nobody thought of; the hint names a report for the developers."""


class TableNotFoundError(SyncError):
    """The table does not exist, or not yet everywhere in the service."""


class JobFailedError(SyncError):
    """A load job ended with an error: nothing was loaded, and its id is used up."""


class UnknownColumnError(SyncError):
    """The service does not know a column of a row, or not yet everywhere."""


def open_files_hint(error: BaseException) -> str:
    """What to do where an error, or what it was raised from, is about too many open files; else ""."""
    cause: BaseException | None = error
    while cause is not None:
        if _TOO_MANY_FILES in str(cause):
            return OPEN_FILES_HINT
        cause = cause.__cause__ or cause.__context__
    return ""
