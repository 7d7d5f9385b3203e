"""What deploy/compose.yaml starts, without containers: fake-gcs-server and the sandbox's BigQuery."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from PIL import Image

from pixaris_sync.sandbox.emulators import Sandbox
from tests.integration.cloud import Cloud, new_cloud
from tests.support import backend_report
from tests.support.command_line import CommandLine
from tests.support.emulators import running_fake_gcs_server
from tests.support.installed_emulators import FAKE_GCS_SERVER, find
from tests.support.stored_runs import DATASET, PROJECT, Reader, picture, run_objects, store_run

BUCKET = "composed-bucket"
CHUNK_BYTES = 256 * 1024


@pytest.fixture
def cloud(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cloud]:
    """A bucket of fake-gcs-server, and a dataset of the sandbox."""
    emulator = find(FAKE_GCS_SERVER)
    if not emulator.program:
        backend_report.skip_backend(emulator.missing)
    with running_fake_gcs_server(emulator.program, tmp_path, bucket=BUCKET) as storage:
        made = new_cloud(sandbox, monkeypatch)
        there = {"STORAGE_EMULATOR_HOST": storage.url, "PIXARIS_SYNC_GCP_PIXARIS_BUCKET_NAME": BUCKET}
        for name, value in there.items():
            monkeypatch.setenv(name, value)
        yield replace(made, bucket=BUCKET, environment={**made.environment, **there})


def large_picture() -> Image.Image:
    """An image whose file is larger than a chunk of a resumable upload."""
    noise = Random(0)  # noqa: S311 - noise does not compress
    return Image.frombytes("RGB", (400, 400), noise.randbytes(400 * 400 * 3))


def test_the_composed_emulators_carry_the_whole_journey(
    command_line: CommandLine, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: what compose starts works together.

    Method: small and large images, files of args and dict metrics by `sync`, another run by a second one;
    Pixaris reads rows and images back; a lost ledger brings nothing twice.
    """
    limited = command_line.having(resumable_threshold_bytes=CHUNK_BYTES, chunk_bytes=CHUNK_BYTES)
    images = [(picture(1), "small.png"), (large_picture(), "large.png")]
    first = store_run(
        command_line.folder, "first", images=images, args={"flow": {"a": 1}}, metrics={"score": {"b": 2}}
    )
    assert limited.sync()["files_uploaded"] == 4
    second = store_run(command_line.folder, "second", metrics={"loss": 0.5})
    assert limited.sync()["rows_synced"] == 1

    assert pixaris.runs(PROJECT, DATASET) == sorted([first.name, second.name])
    objects = pixaris.objects()
    names = ("generated_images/small.png", "generated_images/large.png", "flow.json", "score.json")
    expected = run_objects(first, *names) | run_objects(second, "generated_images/image_0.png")
    assert objects.keys() == expected
    read = pixaris.images(first.key, tmp_path / "read")
    assert {name: image.tobytes() for name, image in read.items()} == {
        name: image.tobytes() for image, name in images
    }

    command_line.forget_ledger()
    again = limited.sync()
    assert (again["files_uploaded"], again["runs"]["synced"]) == (0, 2)
    assert pixaris.objects() == objects
    assert pixaris.runs(PROJECT, DATASET) == sorted([first.name, second.name])
