"""Questions about a bucket that change nothing in it, for who wants to know whether it is set up well.

Sources: the JSON API's bucket resource, ``buckets.get``, ``buckets.testIamPermissions`` (which needs no
permission), and the conditions of lifecycle rules.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

from gcloud.aio.storage import Storage
from yarl import URL

from pixaris_sync.gcs.answers import Refusal
from pixaris_sync.gcs.connection import NO_TIME_LIMIT
from pixaris_sync.gcs.store import GcsObjectStore
from pixaris_sync.ports import BucketFacts
from pixaris_sync.rules.contract import RESULTS
from pixaris_sync.text import counted

T = TypeVar("T")

_OPERATION: Final = "look at"
#: Below this stands all that is carried.
_PREFIX: Final = f"{RESULTS}/"
_FIELDS: Final = "location,retentionPolicy,defaultEventBasedHold,billing,encryption,lifecycle"
#: Conditions that no object of ours meets while it is its bucket's newest: they are about older versions, and
#: about a time that writers may set and we do not.
_NEVER_MET: Final = (
    *("numNewerVersions", "daysSinceNoncurrentTime", "noncurrentTimeBefore"),
    *("customTimeBefore", "daysSinceCustomTime"),
)


class GcsBucketInspection(GcsObjectStore):
    """A bucket as a `BucketInspection`; arguments as of `GcsObjectStore`."""

    async def facts(self) -> BucketFacts:
        """See `BucketInspection.facts`."""
        return await self._ask("", {"fields": _FIELDS}, read_facts)

    async def held_permissions(self, permissions: Collection[str]) -> frozenset[str]:
        """See `BucketInspection.held_permissions`."""
        return await self._ask("/iam/testPermissions", {"permissions": [*permissions]}, _read_permissions)

    async def service_time(self) -> float | None:
        """See `BucketInspection.service_time`."""
        told = await self._calls.connection.date()
        try:
            return parsedate_to_datetime(told).timestamp()
        except ValueError:
            return None

    async def _ask(self, path: str, query: Mapping[str, Any], read: Callable[[Any], T]) -> T:
        connection = self._calls.connection
        subject = f"bucket {connection.bucket}"
        address = URL(f"{connection.bucket_url}{path}", encoded=True).with_query(query)

        async def send(storage: Storage) -> T:
            response = await storage.session.get(
                address,  # type: ignore[arg-type]  # handed on to the session, which takes it
                headers=await connection.authorization(),
                params=None,
                timeout=NO_TIME_LIMIT,
            )
            return read(await response.json())

        answer = await connection.request(_OPERATION, subject, send)
        if isinstance(answer, Refusal):
            raise answer.error(_OPERATION, subject, bucket=connection.bucket)
        return answer


def read_facts(answer: Any, today: date | None = None) -> BucketFacts:  # noqa: ANN401 - JSON of a service
    """Read a bucket resource.

    Args:
        answer: the resource.
        today: in UTC; the clock's unless given.

    Raises:
        ValueError: it is none.
    """
    try:
        rules = (answer.get("lifecycle") or {}).get("rule") or ()
        return BucketFacts(
            location=str(answer.get("location", "")),
            retention_seconds=int((answer.get("retentionPolicy") or {}).get("retentionPeriod", 0)),
            holds_by_default=bool(answer.get("defaultEventBasedHold")),
            requester_pays=bool((answer.get("billing") or {}).get("requesterPays")),
            key=str((answer.get("encryption") or {}).get("defaultKmsKeyName", "")),
            deleting_rules=tuple(
                _in_words(rule["condition"])
                for rule in rules
                if rule["action"]["type"] == "Delete"
                and _meets_ours(rule["condition"], today or datetime.now(UTC).date())
            ),
        )
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError("no bucket resource") from error


def _meets_ours(condition: Mapping[str, Any], today: date) -> bool:
    """Whether an object that is carried there now, and is not replaced, comes under a rule some day."""
    if condition.get("isLive") is False or any(condition.get(name) for name in _NEVER_MET):
        return False
    if "createdBefore" in condition and date.fromisoformat(condition["createdBefore"]) <= today:
        return False
    prefixes: Sequence[str] = condition.get("matchesPrefix") or [_PREFIX]
    return any(prefix.startswith(_PREFIX) or _PREFIX.startswith(prefix) for prefix in prefixes)


def _in_words(condition: Mapping[str, Any]) -> str:
    parts = []
    if condition.get("matchesPrefix"):
        parts.append(f"below {' and '.join(condition['matchesPrefix'])}")
    if condition.get("matchesSuffix"):
        parts.append(f"ending with {' or '.join(condition['matchesSuffix'])}")
    if "age" in condition:
        parts.append(f"older than {counted(int(condition['age']), 'day')}")
    if "createdBefore" in condition:
        parts.append(f"created before {condition['createdBefore']}")
    return f"objects {', '.join(parts)}" if parts else "objects"


def _read_permissions(answer: Any) -> frozenset[str]:  # noqa: ANN401 - JSON of a service
    try:
        return frozenset(answer.get("permissions") or ())
    except (AttributeError, TypeError) as error:
        raise ValueError("no list of permissions") from error
