"""Verdicts of values, without any service."""

from datetime import date
from typing import Any

import pytest

from pixaris_sync.doctor.checks import REACH_HINT, Check, Verdict, failed_by
from pixaris_sync.doctor.judgements import (
    BUCKET_PERMISSIONS,
    TRIED,
    NoAnswer,
    judge_bucket,
    judge_clock,
    judge_dataset,
    judge_locations,
    judge_login,
    judge_streaming,
)
from pixaris_sync.errors import BILLING_HINT, ConfigurationError, Failure, SyncError
from pixaris_sync.gcs.inspection import read_facts
from pixaris_sync.login.login import Identity
from pixaris_sync.ports import BucketFacts, DatasetFacts
from pixaris_sync.rules.permissions import OBJECTS_CREATE, TABLES_GET, TABLES_LIST

ALL = frozenset(BUCKET_PERMISSIONS)
GOOD = dict.fromkeys(TRIED, True)
TODAY = date(2026, 11, 27)
DENIED = SyncError("ask", "it", "the account lacks something", failure=Failure.PERMISSION)


def _verdicts(checks: list[Check]) -> dict[str, Verdict]:
    return {check.name: check.verdict for check in checks}


def _every_fault_has_a_remedy(checks: list[Check]) -> bool:
    return all(check.remedy for check in checks if check.verdict in (Verdict.FAILED, Verdict.WARNING))


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ({"age": 30}, "objects older than 30 days"),
        ({"age": 1, "matchesPrefix": ["results/shop"]}, "objects below results/shop, older than 1 day"),
        ({"age": 0, "matchesPrefix": ["res"]}, "objects below res, older than 0 days"),
        ({"matchesSuffix": [".png"], "createdBefore": "2027-01-01"}, "ending with .png"),
        ({}, "objects"),
        ({"age": 30, "matchesPrefix": ["logs/"]}, None),
        ({"age": 30, "isLive": False}, None),
        ({"numNewerVersions": 3}, None),
        ({"daysSinceNoncurrentTime": 3}, None),
        ({"daysSinceCustomTime": 3}, None),
        ({"createdBefore": "2020-01-01"}, None),
    ],
)
def test_a_lifecycle_rule_counts_where_it_meets_results(condition: dict[str, Any], words: str | None) -> None:
    """Goal: no false alarm, and none missed. Method: each condition of the API by itself."""
    rule = {"action": {"type": "Delete"}, "condition": condition}
    facts = read_facts({"location": "EU", "lifecycle": {"rule": [rule]}}, TODAY)
    assert len(facts.deleting_rules) == (words is not None)
    assert words is None or words in facts.deleting_rules[0]


def test_other_actions_of_a_lifecycle_are_no_fault() -> None:
    """Goal: a cheaper storage class deletes nothing. Method: the other two actions."""
    rules = [
        {"action": {"type": name}, "condition": {"age": 1}}
        for name in ("SetStorageClass", "AbortIncompleteMultipartUpload")
    ]
    assert read_facts({"lifecycle": {"rule": rules}}, TODAY).deleting_rules == ()


def test_what_is_no_bucket_resource_is_refused() -> None:
    """Goal: a proxy's JSON is no set-up. Method: other shapes."""
    answers: list[Any] = [[], "text", {"lifecycle": {"rule": [1]}}]
    for answer in answers:
        with pytest.raises(ValueError, match=r"no bucket resource|invalid"):
            read_facts(answer, TODAY)


def test_a_good_bucket_and_dataset_have_no_fault() -> None:
    """Goal: quiet where all is well. Method: everything as it should be; keys are told and are no fault."""
    checks = judge_bucket("b", BucketFacts("EU", key="k"), ALL)
    checks += judge_dataset("p.d", DatasetFacts("EU", key="k"), GOOD, streaming=True)
    assert set(_verdicts(checks).values()) == {Verdict.OK}


def test_a_write_only_account_is_enough() -> None:
    """Goal: what is lost is told, and is no fault. Method: 403 for the bucket, and leave to create alone."""
    checks = judge_bucket("b", DENIED, frozenset({OBJECTS_CREATE}))
    assert _verdicts(checks) == {"bucket": Verdict.OK, "permissions": Verdict.WARNING}
    assert all(name in checks[1].found for name in ALL - {OBJECTS_CREATE})


def test_a_bucket_that_nobody_has_is_told_once() -> None:
    """Goal: one fault, one failed check. Method: the same error for both questions."""
    missing = ConfigurationError("ask", "b", "there is no bucket b", hint="create the bucket")
    assert _verdicts(judge_bucket("b", missing, missing)) == {
        "bucket": Verdict.FAILED,
        "permissions": Verdict.NOT_CHECKED,
    }


def test_what_expires_can_be_accepted() -> None:
    """Goal: who means it goes on. Method: each kind of end, with and without the setting."""
    bucket, dataset = BucketFacts("EU", deleting_rules=("objects",)), DatasetFacts("EU", table_seconds=3600)
    for accepted, verdict in ((False, Verdict.FAILED), (True, Verdict.WARNING)):
        checks = judge_bucket("b", bucket, ALL, accept_expiring=accepted)
        checks += judge_dataset(
            "p.d", dataset, GOOD, streaming=True, expiring=["t"] * 5, accept_expiring=accepted
        )
        verdicts = _verdicts(checks)
        assert {verdicts[name] for name in ("lifecycle", "expiration", "table expiration")} == {verdict}
        assert _every_fault_has_a_remedy(checks)


def test_silence_is_told_once_for_each_service() -> None:
    """Goal: the rest is not checked. Method: no answer to anything."""
    silent = NoAnswer(5).error
    checks = judge_dataset("p.d", silent, dict.fromkeys(TRIED, silent), streaming=silent, expiring=silent)
    verdicts = _verdicts(checks)
    assert verdicts.pop("dataset") is Verdict.FAILED
    assert set(verdicts.values()) == {Verdict.NOT_CHECKED}
    assert checks[0].remedy == REACH_HINT
    assert "no answer in 5 s" in checks[0].found


@pytest.mark.parametrize(
    ("cause", "verdict"),
    [
        ("Streaming insert is not allowed in the free tier", Verdict.WARNING),
        ("Permission bigquery.tables.updateData denied on table t", Verdict.FAILED),
    ],
)
def test_streaming_that_billing_refuses_is_no_fault(cause: str, verdict: Verdict) -> None:
    """Goal: load jobs do. Method: both refusals, which have one reason."""
    refused = SyncError("stream", "it", cause, failure=Failure.PERMISSION)
    check = judge_streaming(refused, {})
    assert (check.verdict, bool(check.remedy)) == (verdict, True)


def test_one_permission_that_several_requests_need_is_told_once() -> None:
    """Goal: one fault, one failed check. Method: refusals of three requests in other words each."""
    lacking = {
        name: SyncError("ask", "it", f"{TABLES_GET} denied on {name}", failure=Failure.PERMISSION)
        for name in ("try_look_up", "try_alter", "stream")
    }
    streaming = lacking.pop("stream")
    checks = judge_dataset("p.d", DatasetFacts("EU"), {**GOOD, **lacking}, streaming=streaming)
    assert [check.name for check in checks if check.verdict is Verdict.FAILED] == ["tables"]
    assert _verdicts(checks)["columns"] is _verdicts(checks)["streaming"] is Verdict.NOT_CHECKED


def test_tables_that_may_not_be_listed_are_a_warning() -> None:
    """Goal: nothing that was not seen is called well. Method: a refusal; and no answer, which is no fault."""
    denied = SyncError("list", "it", f"{TABLES_LIST} denied", failure=Failure.PERMISSION)
    [told] = [
        check
        for check in judge_dataset("p.d", DatasetFacts("EU"), GOOD, streaming=True, expiring=denied)
        if check.verdict is not Verdict.OK
    ]
    assert (told.name, told.verdict) == ("table expiration", Verdict.WARNING)
    assert f"grant {TABLES_LIST} on the dataset" in told.remedy
    silent = judge_dataset("p.d", DatasetFacts("EU"), GOOD, streaming=True, expiring=NoAnswer(5).error)
    assert set(_verdicts(silent).values()) == {Verdict.OK}


def test_billing_that_is_off_is_told_as_that() -> None:
    """Goal: no role is asked for where none helps. Method: the hint of billing."""
    refused = SyncError("ask", "it", "billing is off", hint=BILLING_HINT, failure=Failure.PERMISSION)
    checks = judge_dataset("p.d", DatasetFacts("EU"), {**GOOD, "try_query": refused}, streaming=True)
    assert {check.remedy for check in checks if check.verdict is Verdict.FAILED} == {BILLING_HINT}


@pytest.mark.parametrize(
    ("skew", "verdict", "words"),
    [
        (0.4, Verdict.OK, "agree"),
        (-60, Verdict.OK, "agree"),
        (61, Verdict.WARNING, "1 min 1 s ahead of"),
        (-301, Verdict.FAILED, "5 min 1 s behind"),
        (None, Verdict.NOT_CHECKED, "does not tell"),
        (NoAnswer(5).error, Verdict.NOT_CHECKED, "no answer in 5 s"),
    ],
)
def test_a_clock_is_judged_by_how_far_it_is_off(
    skew: float | SyncError | None, verdict: Verdict, words: str
) -> None:
    """Goal: tokens that will be refused are foreseen. Method: both sides of each bound."""
    check = judge_clock(skew)
    assert (check.verdict, words in check.found) == (verdict, True)


def test_two_locations_are_told_and_are_no_fault() -> None:
    """Goal: who must keep data in one place sees it. Method: the same, other ones, and an unknown one."""
    assert judge_locations(BucketFacts("eu"), DatasetFacts("EU")) == []
    [told] = judge_locations(BucketFacts("EU"), DatasetFacts("US"))
    assert told.verdict is Verdict.OK
    assert judge_locations(DENIED, DatasetFacts("US")) == []


def test_a_login_is_told_with_its_source_or_with_what_is_wrong() -> None:
    """Goal: whose permissions these are. Method: a good one, one that is refused, and no answer."""
    good = Identity("user", "a@b.c", "/home/a/adc.json", False, "googleapis.com", "quota", None, None)  # noqa: FBT003
    assert judge_login(good).found == "a@b.c (user, from /home/a/adc.json; quota of project quota)"
    refusal = ConfigurationError("use", "/key.json", "it is no JSON", hint="put a key there")
    bad = Identity("", "", "", False, "googleapis.com", None, None, refusal)  # noqa: FBT003
    assert (judge_login(bad).found, judge_login(bad).remedy) == (
        "/key.json: it is no JSON",
        "put a key there",
    )
    assert judge_login(None).verdict is Verdict.NOT_CHECKED


def test_every_failure_has_a_remedy() -> None:
    """Goal: no line without a way on. Method: errors of each kind without a hint of their own."""
    for failure in Failure:
        assert failed_by("x", SyncError("ask", "it", "no", failure=failure)).remedy
