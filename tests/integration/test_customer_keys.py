"""A bucket under a key of its customer's, whose listings tell no checksums."""

from google.cloud.storage import Bucket

from tests.integration.cloud import NO_RETRY, TIMEOUT_SECONDS
from tests.support.command_line import CommandLine
from tests.support.stored_runs import Reader, picture, run_objects, store_run

_KEY = "projects/a-project/locations/eu/keyRings/ring/cryptoKeys/key"


def test_a_bucket_under_a_customers_key_is_verified_and_found_again(
    command_line: CommandLine, bucket: Bucket, pixaris: Reader
) -> None:
    """Goal: what a listing does not tell is no difference, wherever listings are used.

    Method: sync, verify, lose the ledger, look at the plan, sync again, verify; remove an object and repair;
    then another content stands in a file's place.
    """
    bucket.default_kms_key_name = _KEY
    bucket.patch(retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
    args = {"flow": {"b": 2}, "mask": picture(9)}
    runs = [store_run(command_line.folder, "first", images=2, metrics={"details": {"a": 1}}, args=args)]
    runs.append(store_run(command_line.folder, "second"))
    command_line.sync()
    stored = pixaris.objects()
    assert len(stored) == 6
    assert {checksum for checksum, _ in stored.values()} == {None}
    assert _verified(command_line) == "10 same, 0 missing, 0 extra, 0 differs, 0 error"

    command_line.forget_ledger()
    plan = command_line.run("backfill", "--dry-run", "--json").document
    assert (plan["files"], plan["files_found"], plan["rows"], plan["not_carried"]) == (0, 6, 0, [])
    document = command_line.sync()
    assert (document["files_uploaded"], document["files_found"]) == (0, 6)
    assert (document["runs"]["synced"], document["problems"]) == (2, [])
    assert pixaris.objects() == stored
    assert pixaris.runs() == sorted(run.name for run in runs)
    assert _verified(command_line) == "10 same, 0 missing, 0 extra, 0 differs, 0 error"

    [name] = run_objects(runs[1], "generated_images/image_0.png")
    bucket.blob(name).delete(retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
    assert command_line.sync("--repair")["repair"] == {"objects": 1, "rows": 0, "left": []}
    size = len(pixaris.content(name))
    bucket.blob(name).upload_from_string(bytes(size), retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
    outcome = command_line.run("verify")
    assert outcome.code == 1
    assert outcome.stdout.startswith(f"* {name}: crc32c ")


def _verified(command_line: CommandLine) -> str:
    outcome = command_line.run("verify")
    assert outcome.code == 0, str(outcome)
    return outcome.stdout.strip()
