"""The measurement of handlers, so that it does not rot."""

from pathlib import Path

import pytest
from google.cloud.storage import Client

from pixaris_sync.sandbox.emulators import write_stand_in_credentials
from tests.benchmarks.cloud import BUCKET, PROJECT, running_cloud
from tests.benchmarks.handlers import (
    BEHIND,
    OURS,
    PIXARIS,
    Call,
    Measurement,
    Timed,
    handlers_text,
    measure_handlers,
)

TINY = (
    Call("local store", "local", "store", images=2, side=16),
    Call("cloud store", "cloud", "store", images=2, side=16, objects=10),
    Call("load", "cloud", "images", images=3, objects=3),
    Call("projects", "cloud", "projects", objects=2_040, datasets=4),
)


@pytest.mark.large
def test_calls_of_all_handlers_are_timed_and_their_requests_counted(tmp_path: Path) -> None:
    """Goal: the whole measurement works. Method: one round of tiny calls, which fail on wrong answers."""
    measured = measure_handlers(tmp_path, TINY, latencies=[0], repeats=1, times=2)
    found = {each.call.title: each for each in measured}
    for title in ("local store", "cloud store"):
        assert list(found[title].timed) == [PIXARIS, OURS, BEHIND]
    assert all(timed.seconds[0] > 0 for each in found.values() for timed in each.timed.values())
    # One for its projects and one for the datasets of each, against three pages and a look at the bucket.
    assert found["projects"].timed[OURS].requests == 2
    assert found["projects"].timed[PIXARIS].requests == 4
    assert "cloud store, 0 ms" in handlers_text(measured)


def test_ratios_of_calls_are_taken_within_a_round() -> None:
    """Goal: a noisy round does not bend ratios. Method: two rounds, one three times as slow for both."""
    call = Call("load", "cloud", "images")
    timed = {PIXARIS: Timed([3.0, 9.0], [3.0, 9.0], 102), OURS: Timed([0.5, 1.5], [0.5, 1.5], 101)}
    theirs, ours = Measurement(call, 50, timed).rows()
    assert theirs == ("load, 50 ms", "Pixaris", "6000 (3000-9000)", "", "", "102")
    assert ours == ("load, 50 ms", "ours", "1000 (500-1500)", "", "6.0", "101")


def test_what_the_server_made_can_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: loading is measured on contents that can be checked.

    Method: objects are made in two datasets; Google's client, which compares checksums, loads one of each.
    """
    credentials = tmp_path / "credentials.json"
    write_stand_in_credentials(credentials)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(credentials))
    with running_cloud(None) as cloud:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", cloud.address)
        cloud.reset(0)
        cloud.seed(4, datasets=2, size=1_000)
        blobs = list(Client(project=PROJECT).bucket(BUCKET).list_blobs())
        folders = {blob.name.rpartition("/")[0] for blob in blobs}
        assert folders == {f"results/bench/set{number}/run0/generated_images" for number in range(2)}
        contents = {blob.name: blob.download_as_bytes() for blob in blobs}
        assert len(set(contents.values())) == 4
        assert {len(content) for content in contents.values()} == {1_000}
        assert cloud.counts()["gcs.download"] == 4
