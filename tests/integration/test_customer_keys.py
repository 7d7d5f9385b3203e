"""A bucket under a key of its customer's, whose listings tell no checksums."""

import pytest
from google.cloud.storage import Bucket

from tests.integration.cloud import NO_RETRY, TIMEOUT_SECONDS
from tests.support.command_line import CommandLine
from tests.support.stored_runs import Reader, picture, run_objects, store_run

_KEY = "projects/a-project/locations/eu/keyRings/ring/cryptoKeys/key"


@pytest.mark.large
def test_a_bucket_under_a_customers_key_is_verified_and_found_again(
    command_line: CommandLine, bucket: Bucket, pixaris: Reader
) -> None:
    """Goal: what a listing does not tell is no difference, wherever listings are used.

    Method: sync, lose the ledger, look at the plan, sync again, verify; then repair, where one object is gone
    and another has another content.
    """
    command_line = command_line.having(doubt_settle_seconds=0.1, table_settle_seconds=0)
    bucket.default_kms_key_name = _KEY
    bucket.patch(retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
    args = {"flow": {"b": 2}, "mask": picture(9)}
    runs = [store_run(command_line.folder, "first", images=2, metrics={"details": {"a": 1}}, args=args)]
    runs.append(store_run(command_line.folder, "second"))
    command_line.sync()
    stored = pixaris.objects()
    assert len(stored) == 6
    assert {checksum for checksum, _ in stored.values()} == {None}

    command_line.forget_ledger()
    plan = command_line.run("backfill", "--dry-run", "--json").document
    assert (plan["files"], plan["files_found"], plan["rows"], plan["not_carried"]) == (0, 6, 0, [])
    document = command_line.sync()
    assert (document["files_uploaded"], document["files_found"]) == (0, 6)
    assert (document["runs"]["synced"], document["problems"]) == (2, [])
    assert pixaris.objects() == stored
    assert pixaris.runs() == sorted(run.name for run in runs)
    outcome = command_line.run("verify")
    assert outcome.stdout.strip() == "10 same, 0 missing, 0 extra, 0 differs, 0 error", str(outcome)
    assert outcome.code == 0

    [gone] = run_objects(runs[1], "generated_images/image_0.png")
    bucket.blob(gone).delete(retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
    [changed] = run_objects(runs[0], "mask.png")
    another = bytes(len(pixaris.content(changed)))
    bucket.blob(changed).upload_from_string(another, retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
    repair = command_line.sync("--repair")["repair"]
    assert (repair["objects"], repair["rows"]) == (1, 0)
    assert [(left["sign"], left["subject"]) for left in repair["left"]] == [("*", changed)]
    assert gone in pixaris.objects()
    assert pixaris.content(changed) == another
