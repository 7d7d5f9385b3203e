"""Checks of what was found out about the cloud: values in, verdicts and remedies out.

What a service was asked is an answer, or the error that came instead of one. A service that does not answer
at all is told once, and what depends on it is not checked.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias, TypeVar

from pixaris_sync.doctor.checks import Check, failed, failed_by, not_checked, passed, warning
from pixaris_sync.errors import BILLING_HINT, Failure, SyncError
from pixaris_sync.login.login import Identity
from pixaris_sync.ports import BucketFacts, DatasetFacts
from pixaris_sync.rules.addresses import DEFAULT_UNIVERSE
from pixaris_sync.rules.permissions import (
    BUCKETS_GET,
    JOBS_CREATE,
    PERMISSIONS,
    TABLES_CREATE,
    TABLES_GET,
    TABLES_GET_DATA,
    TABLES_LIST,
    TABLES_UPDATE,
    Place,
    grant_hint,
    named_in,
)
from pixaris_sync.text import counted, span_text

T = TypeVar("T")

#: How far the clocks may be apart: from here on times in logs and tables mislead, and from there on a token
#: that this machine signs is refused (google-auth allows for ten seconds, the token service for minutes).
SKEW_WARNING_SECONDS: Final = 60
SKEW_FAILED_SECONDS: Final = 300

LOGIN, BUCKET, DATASET = "login", "bucket", "dataset"
#: How many tables are named.
_NAMES_SHOWN: Final = 3

#: What an account is asked about on the bucket.
BUCKET_PERMISSIONS: Final = tuple(
    name for name, permission in PERMISSIONS.items() if permission.place is Place.BUCKET
)
#: What is tried in the dataset: the name of the check, what is possible, and the permission for it.
TRIED: Final[Mapping[str, tuple[str, str, str]]] = {
    "try_look_up": ("tables", "tables can be looked up", TABLES_GET),
    "try_query": ("jobs", "load jobs and queries can be begun", JOBS_CREATE),
    "try_create": ("create table", "tables can be created", TABLES_CREATE),
    "try_read": ("rows", "rows can be read", TABLES_GET_DATA),
    "try_alter": ("columns", "columns can be added", TABLES_UPDATE),
}
_MINUTES: Final = "a new role takes minutes"


class NoAnswer(NamedTuple):
    """A service has not answered in time."""

    seconds: float

    @property
    def error(self) -> SyncError:
        """It as an error."""
        return SyncError("ask", "it", f"no answer in {self.seconds:g} s", failure=Failure.TRANSIENT)


#: What came of a question.
Answer: TypeAlias = T | SyncError


def judge_bucket(
    name: str,
    facts: Answer[BucketFacts],
    held: Answer[frozenset[str]],
    *,
    accept_expiring: bool = False,
    signed_in: bool = True,
) -> list[Check]:
    """Checks of the bucket called `name`: whether it is there, what may be done, how it is set up."""
    subject = f"gs://{name}"
    there = _judge_reach(BUCKET, subject, facts, signed_in=signed_in)
    if (
        isinstance(facts, SyncError)
        and facts.failure is Failure.PERMISSION
        and not isinstance(held, SyncError)
    ):
        # That it may not be looked at is told with the other permissions.
        there = passed(BUCKET, f"{subject} is there")
    checks = [there, judge_bucket_permissions(name, held, facts)]
    if not isinstance(facts, SyncError):
        checks += judge_bucket_facts(facts, accept_expiring=accept_expiring)
    return checks


def _judge_reach(
    name: str, subject: str, facts: Answer[BucketFacts] | Answer[DatasetFacts], *, signed_in: bool
) -> Check:
    """Whether something is there."""
    if not isinstance(facts, SyncError):
        return passed(name, f"{subject} is there, in {facts.location}")
    if facts.failure is Failure.CREDENTIALS and not signed_in:
        return not_checked(name, "see the login")
    fault = failed_by(name, facts)
    return failed(name, f"{subject}: {fault.found}", fault.remedy)


def judge_bucket_permissions(bucket: str, held: Answer[frozenset[str]], facts: Answer[BucketFacts]) -> Check:
    """What may be done in the bucket."""
    name = "permissions"
    if isinstance(held, SyncError):
        same = isinstance(facts, SyncError) and facts.cause == held.cause
        return not_checked(name, "see the bucket" if same else held.cause)
    lacking = [permission for permission in BUCKET_PERMISSIONS if permission not in held]
    if not isinstance(facts, SyncError) and BUCKETS_GET in lacking:
        lacking.remove(BUCKETS_GET)  # It was just used.
    if not lacking:
        return passed(name, "objects can be created, replaced, read and listed")
    grant = grant_hint(lacking, bucket)
    if vital := [permission for permission in lacking if PERMISSIONS[permission].vital]:
        return failed(
            name,
            f"the account lacks {', '.join(lacking)} on the bucket: {PERMISSIONS[vital[0]].without}",
            f"{grant}; a role under a condition on objects' names does not show here",
        )
    lost = "; ".join(f"without {permission} {PERMISSIONS[permission].without}" for permission in lacking)
    return warning(name, lost, f"that is enough to upload; for all else {grant}")


def judge_bucket_facts(facts: BucketFacts, *, accept_expiring: bool) -> list[Check]:
    """What the bucket's settings do to what is carried there; nothing where they do nothing."""
    checks = []
    if facts.deleting_rules:
        found = f"the bucket's lifecycle deletes {'; and '.join(facts.deleting_rules)}"
        checks.append(
            _expiring(
                "lifecycle",
                found,
                "limit the rule to other objects (matchesPrefix)",
                accepted=accept_expiring,
            )
        )
    if facts.retention_seconds:
        checks.append(
            warning(
                "retention",
                f"an object cannot be replaced for {span_text(facts.retention_seconds)}: a file that changes "
                "before is quarantined",
                "take the retention policy away, or leave results as they are once stored",
            )
        )
    if facts.holds_by_default:
        checks.append(
            warning(
                "holds",
                "each new object is under a hold: a file that changes is quarantined",
                "switch the bucket's default event-based hold off, or leave results as they are once stored",
            )
        )
    if facts.requester_pays:
        checks.append(
            warning(
                "requester pays",
                "readers and writers of the bucket are to pay, which only accounts of its project can do",
                "switch Requester Pays of the bucket off",
            )
        )
    if facts.key:
        checks.append(
            passed(
                "bucket key",
                f"{facts.key}: listings tell no checksums under it, so files that are there are looked up "
                "one by one",
            )
        )
    return checks


def _expiring(name: str, found: str, remedy: str, *, accepted: bool) -> Check:
    if accepted:
        return warning(name, f"{found} (accepted by accept_expiring_destination)", remedy)
    return failed(name, found, f"{remedy}; or set accept_expiring_destination, if that is meant")


def judge_dataset(
    name: str,
    facts: Answer[DatasetFacts],
    tried: Mapping[str, Answer[bool]],
    *,
    streaming: Answer[bool],
    expiring: Answer[Sequence[str]] = (),
    accept_expiring: bool = False,
    signed_in: bool = True,
) -> list[Check]:
    """Checks of the dataset called `name`: whether it is there, what may be done, how it is set up."""
    checks = [_judge_reach(DATASET, name, facts, signed_in=signed_in)]
    told: dict[str, Answer[object]] = {DATASET: facts}
    for question, answer in tried.items():
        checks.append(_judge_tried(question, answer, told))
        told[TRIED[question][0]] = answer
    checks.append(judge_streaming(streaming, told))
    if not isinstance(facts, SyncError):
        checks += judge_dataset_facts(facts, accept_expiring=accept_expiring)
    if isinstance(expiring, SyncError):
        if expiring.failure is Failure.PERMISSION and _told_by(expiring, told) is None:
            found = f"{PERMISSIONS[TABLES_LIST].without}: {expiring.cause}"
            checks.append(warning("table expiration", found, _grant(expiring, TABLES_LIST)))
    elif expiring:
        shown = ", ".join(expiring[:_NAMES_SHOWN])
        more = f" and {len(expiring) - _NAMES_SHOWN} more" if len(expiring) > _NAMES_SHOWN else ""
        found = f"{counted(len(expiring), 'table')} of results will be deleted at a set time: {shown}{more}"
        remedy = "take the tables' expiration away: `bq update --expiration 0 PROJECT:DATASET.TABLE`"
        checks.append(_expiring("table expiration", found, remedy, accepted=accept_expiring))
    return checks


def _judge_tried(question: str, answer: Answer[bool], told: Mapping[str, Answer[object]]) -> Check:
    """What came of a request that was to be judged; `told`: answers that other checks tell."""
    name, possible, permission = TRIED[question]
    if answer is True:
        return passed(name, possible)
    if answer is False:
        return not_checked(name, "this service would do what it is only asked to judge")
    if other := _told_by(answer, told):
        return not_checked(name, f"see the {other}")
    if answer.failure is not Failure.PERMISSION:
        return not_checked(name, answer.cause)
    return failed(name, answer.cause, _grant(answer, permission))


def _told_by(answer: SyncError, told: Mapping[str, Answer[object]]) -> str | None:
    """The check that tells of the same refusal, or of the same permission."""

    def same(one: SyncError) -> bool:
        named = named_in(one.cause)
        return one.cause == answer.cause or bool(named and named == named_in(answer.cause))

    return next((other for other, one in told.items() if isinstance(one, SyncError) and same(one)), None)


def _grant(answer: SyncError, permission: str) -> str:
    """What to do after a refusal; `permission`: what is missing where the service does not name it."""
    if answer.hint == BILLING_HINT:
        return answer.hint
    return f"{grant_hint([named_in(answer.cause) or permission])}; {_MINUTES}"


def judge_streaming(answer: Answer[bool], told: Mapping[str, Answer[object]]) -> Check:
    """Whether rows may be streamed, or go by load jobs alone; `told`: answers that other checks tell.

    The services' refusals of projects without billing have no reason of their own, but only others name the
    permission, which loading needs as well.
    """
    name = "streaming"
    if not isinstance(answer, SyncError):
        return passed(name, "rows can be streamed")
    if other := _told_by(answer, told):
        return not_checked(name, f"see the {other}")
    if answer.failure is Failure.PERMISSION and (permission := named_in(answer.cause)):
        return failed(name, answer.cause, _grant(answer, permission))
    if answer.failure is Failure.PERMISSION and not isinstance(told.get(DATASET), SyncError):
        found = f"{answer.cause}: rows go by load jobs, and come some seconds later"
        return warning(name, found, "switch billing of the Google Cloud project on, or leave it so")
    return not_checked(name, answer.cause)


def judge_dataset_facts(facts: DatasetFacts, *, accept_expiring: bool) -> list[Check]:
    """What the dataset's settings do to what is carried there; nothing where they do nothing."""
    checks = []
    if facts.read_only:
        checks.append(
            failed(
                "kind of dataset",
                "it shows tables of elsewhere, and none can be made in it",
                "name a dataset of your own as gcp_bq_experiment_dataset",
            )
        )
    if facts.table_seconds is not None:
        found = f"each new table, with all its rows, is deleted after {span_text(facts.table_seconds)}"
        remedy = (
            "take the dataset's default table expiration away: `bq update --default_table_expiration 0 "
            "PROJECT:DATASET` (a project without billing cannot: switch billing on)"
        )
        checks.append(_expiring("expiration", found, remedy, accepted=accept_expiring))
    if facts.partition_seconds is not None:
        checks.append(
            warning(
                "partitions",
                f"rows of partitioned tables are deleted after {span_text(facts.partition_seconds)}; those "
                "that are made here are not partitioned",
                "leave tables as they are made here, or take the default partition expiration away",
            )
        )
    if facts.key:
        checks.append(passed("dataset key", f"{facts.key}: BigQuery's account needs it, this one does not"))
    return checks


def judge_locations(bucket: Answer[BucketFacts], dataset: Answer[DatasetFacts]) -> list[Check]:
    """Whether bucket and dataset are in one place; nothing where that is not known."""
    if isinstance(bucket, SyncError) or isinstance(dataset, SyncError):
        return []
    one, other = bucket.location.upper(), dataset.location.upper()
    if one == other:
        return []
    found = (
        f"the bucket is in {one}, the dataset in {other}: that works, as rows are not loaded from the "
        "bucket; see to it that both may hold your data"
    )
    return [passed("locations", found)]


def judge_login(found: Identity | None) -> Check:
    """In whose name the services are asked; None: that could not be asked in time."""
    if found is None:
        return not_checked(LOGIN, "no answer from the service that gives out access tokens")
    source = f"{found.source}, named by GOOGLE_APPLICATION_CREDENTIALS" if found.named else found.source
    kind = ", from ".join(filter(None, (found.kind, source)))
    if found.failure is not None:
        fault = failed_by(LOGIN, found.failure)
        what = f"{found.failure.subject}: {fault.found}"
        return failed(LOGIN, f"{what}{f' ({kind})' if kind else ''}", fault.remedy)
    quota = f"; quota of project {found.quota_project}" if found.quota_project else ""
    universe = f"; universe {found.universe}" if found.universe != DEFAULT_UNIVERSE else ""
    who = found.principal or "an account that does not tell its name"
    return passed(LOGIN, f"{who} ({kind}{quota}{universe})")


def judge_clock(skew_seconds: Answer[float | None]) -> Check:
    """How far this machine's clock is ahead of the service's."""
    name = "clock"
    if isinstance(skew_seconds, SyncError):
        refused = skew_seconds.failure is Failure.CREDENTIALS
        return not_checked(name, "see the login" if refused else skew_seconds.cause)
    if skew_seconds is None:
        return not_checked(name, "the service does not tell its time")
    apart = abs(skew_seconds)
    if apart <= SKEW_WARNING_SECONDS:
        return passed(name, "this machine and the service agree")
    found = f"this machine is {span_text(apart)} {'ahead of' if skew_seconds > 0 else 'behind'} the service"
    remedy = "let the clock be set by the network: `timedatectl set-ntp true`"
    if apart <= SKEW_FAILED_SECONDS:
        return warning(name, found, remedy)
    return failed(name, f"{found}: tokens that it signs are refused", remedy)
