"""What a check is."""

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

from pixaris_sync.errors import ConfigurationError, Failure, SyncError
from pixaris_sync.model import Destination

#: What to do where a service did not answer as it should, and its answer does not say.
REACH_HINT = (
    "check the network, the proxy and its certificates (REQUESTS_CA_BUNDLE, SSL_CERT_FILE), and this "
    "machine's clock; an outage passes by itself"
)


class Verdict(StrEnum):
    """What a check found."""

    OK = "ok"
    #: It works, and somebody should know what it costs.
    WARNING = "warning"
    #: Somebody must mend it.
    FAILED = "failed"
    #: It could not be found out.
    NOT_CHECKED = "not checked"


class Check(NamedTuple):
    """One thing that was looked at.

    Attributes:
        name: what, in a word or two.
        verdict: how it is.
        found: what was found, in one line, without secrets.
        remedy: what to do; empty where nothing is to be done.
    """

    name: str
    verdict: Verdict
    found: str
    remedy: str = ""

    @property
    def document(self) -> dict[str, str]:
        """It as JSON."""
        return {"check": self.name, "verdict": self.verdict, "found": self.found, "remedy": self.remedy}


def passed(name: str, found: str) -> Check:
    """All is well."""
    return Check(name, Verdict.OK, found)


def warning(name: str, found: str, remedy: str) -> Check:
    """It works, at a price."""
    return Check(name, Verdict.WARNING, found, remedy)


def failed(name: str, found: str, remedy: str) -> Check:
    """It must be mended."""
    return Check(name, Verdict.FAILED, found, remedy)


def not_checked(name: str, found: str) -> Check:
    """It could not be found out, because of what `found` says."""
    return Check(name, Verdict.NOT_CHECKED, found)


def failed_by(name: str, error: SyncError) -> Check:
    """What an error says, as a check: its cause and its hint."""
    away = error.failure in (Failure.TRANSIENT, Failure.QUOTA, Failure.IN_DOUBT)
    return failed(name, error.cause, error.hint or (REACH_HINT if away else "act on what the service says"))


def as_error(check: Check, goal: Destination) -> ConfigurationError:
    """A failed check of a destination as the error that ends a command."""
    subject = f"bucket {goal.bucket} and dataset {goal.bq_dataset}"
    return ConfigurationError("use", subject, check.found, hint=check.remedy)


def must_be_mended(checks: Iterable[Check]) -> bool:
    """Whether one of them failed."""
    return any(check.verdict is Verdict.FAILED for check in checks)
