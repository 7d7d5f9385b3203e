"""The benchmark itself, so that it does not rot: a tiny set, carried and told in every form."""

import errno
import json
import os
import time
import urllib.error
import urllib.request
import xml.etree.ElementTree as ET
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
from PIL import Image

from tests.benchmarks import training
from tests.benchmarks.cloud import BUCKET, Cloud, Inventory, running_cloud
from tests.benchmarks.command_line import main
from tests.benchmarks.comparison import Comparison, IncompleteError
from tests.benchmarks.contenders import OURS, Contender
from tests.benchmarks.many import measure_scale
from tests.benchmarks.results import Case, Run, machine_text, standings, table
from tests.benchmarks.server.bodies import Collected, Content, Dechunked, Related
from tests.benchmarks.server.objects import inventory_digest
from tests.benchmarks.sets import run_set
from tests.benchmarks.watch_latency import watch_latency

RAW = "gcloud-aio/64"


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    """The benchmark's server."""
    with running_cloud(None) as running:
        running.reset(0)
        yield running


@pytest.mark.large
def test_a_tiny_set_is_carried_and_told_as_table_json_and_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: the whole benchmark works, and all its forms tell the same.

    Method: the tiny set, pixaris-sync and one other, in processes of their own; the benchmark itself fails
    when objects, checksums or rows are not what they should be.
    """
    told, drawn = tmp_path / "out.json", tmp_path / "out.svg"
    arguments = ["--cache", str(tmp_path), "--sets", "tiny", "--contenders", f"{OURS},{RAW}"]
    arguments += ["--settings", "free"]
    assert main([*arguments, "--repeats", "1", "--json", str(told), "--svg", str(drawn)]) == 0

    document = json.loads(told.read_text())
    runs = {run["contender"]: run for run in document["runs"]}
    assert set(runs) == {OURS, RAW}
    assert runs[RAW]["requests_per_file"] == 1
    assert runs[OURS]["counts"]["gcs.upload.multipart"] == 12
    assert all(run["wall_seconds"] > 0 and run["cpu_seconds"] > 0 for run in runs.values())
    assert all(run["peak_bytes"] > 10_000_000 for run in runs.values())

    printed = capsys.readouterr().out
    texts = "".join(ET.parse(drawn).getroot().itertext())  # noqa: S314 - written above
    for name, run in runs.items():
        assert name in printed
        assert f"| {run['wall_seconds']:.2f} " in printed
        assert f"{run['wall_seconds']:.2f} s" in texts
    assert document["standings"][0]["contenders"][0]["contender"] == OURS

    [ratio] = document["ratios"]
    expected = runs[OURS]["cpu_seconds"] / runs[RAW]["cpu_seconds"]
    assert (ratio["contender"], ratio["cpu"]["median"]) == (OURS, expected)
    assert f"| tiny, 0 ms | free    | {ratio['wall']['median']:.2f} | {expected:.2f} |" in printed
    assert printed.startswith(f"Measured on {machine_text(document['machine'])}.")


def test_a_contender_that_carries_nothing_is_found_out(tmp_path: Path) -> None:
    """Goal: no number for work that was not done. Method: a contender that does nothing, and ends well."""
    idler = Contender("idler", lambda _: ("true",))
    with pytest.raises(IncompleteError, match="0 objects"):
        Comparison([Case("tiny", 0)], [idler], 1, tmp_path).run()


def test_sets_hold_whole_images_of_exact_sizes_and_their_digest_is_true(tmp_path: Path) -> None:
    """Goal: what is carried is what is claimed. Method: every file is opened, and checksummed anew."""
    runs = run_set("tiny", tmp_path, bucket=BUCKET)
    checksums = {}
    for path, name in runs.files():
        content = path.read_bytes()
        assert len(content) == runs.shape.image_bytes
        with Image.open(path) as image:
            image.load()
        checksums[f"{BUCKET}/{name}"] = google_crc32c.value(content)
    assert len(checksums) == len(set(checksums.values())) == runs.shape.files
    assert runs.digest == inventory_digest(checksums)
    assert len(list(runs.runs())) == runs.shape.runs


def test_latency_is_added_to_every_answer(cloud: Cloud) -> None:
    """Goal: latency is real, for both services. Method: a look at a bucket and at a dataset, timed."""
    cloud.set_latency(50)
    for path in ("storage/v1/b/a-bucket", "bigquery/v2/projects/p/datasets/d"):
        begun = time.monotonic()
        with urllib.request.urlopen(f"{cloud.address}/{path}") as answer:  # noqa: S310 - started by this test
            assert answer.status == 200
        assert time.monotonic() - begun >= 0.05
    assert cloud.counts() == {"gcs.bucket": 1, "bq.datasets.get": 1}


def test_a_put_of_the_xml_api_stores_an_object(cloud: Cloud) -> None:
    """Goal: obstore is measured at true uploads. Method: PUTs as it sends them, once with a condition."""
    address = f"{cloud.address}/{BUCKET.replace('-', '%2D')}/results%2Fset%200%2Fimage%5F1%2Epng"
    content = bytes(range(256)) * 40
    with _put(address, content, {}) as answer:
        assert answer.headers["ETag"].strip('"') == answer.headers["x-goog-generation"]
    with pytest.raises(urllib.error.HTTPError, match="412"):
        _put(address, content, {"x-goog-if-generation-match": "0"})
    expected = inventory_digest({f"{BUCKET}/results/set 0/image_1.png": google_crc32c.value(content)})
    assert cloud.inventory() == Inventory(1, expected, 0)
    assert cloud.counts() == {"gcs.upload.put": 2}
    assert cloud.stored().refused == 1


def _put(address: str, content: bytes, headers: dict[str, str]) -> Any:
    request = urllib.request.Request(address, content, headers, method="PUT")  # noqa: S310 - the test's server
    return urllib.request.urlopen(request)  # noqa: S310 - the test's server


@pytest.mark.large
def test_the_way_from_tracking_line_to_row_is_timed(tmp_path: Path) -> None:
    """Goal: the measurement of `watch` does not rot. Method: two runs beside an idle daemon."""
    found = watch_latency(tmp_path, runs=2, backfill_copies=0, flags="", table_settle_seconds=0)
    assert len(found.seconds) == 2
    assert all(0 < seconds < 30 for seconds in found.seconds)
    assert "alone: 2 runs, median" in found.text()


@pytest.mark.large
def test_passes_over_many_files_are_measured(tmp_path: Path) -> None:
    """Goal: the measurement of large folders does not rot. Method: two runs of linked files, twice."""
    found = measure_scale(tmp_path, files=40, idle_seconds=0, flags="")
    assert found.files == 40
    assert json.loads(found.first.output)["files_uploaded"] == 40
    assert json.loads(found.second.output)["files_uploaded"] == 0
    assert found.ledger_bytes > 0
    assert "nothing new" in found.text()


@pytest.mark.large
def test_a_loop_is_timed_beside_a_backfill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the measurement of a training job's loss does not rot. Method: one short round of it."""
    monkeypatch.setattr(training, "_RUN_UP_SECONDS", 0.2)
    found = training.measure_slowdown(
        tmp_path, what="tiny", latency_ms=0, loop_seconds=0.3, repeats=1, flags=""
    )
    times = (found.alone, found.beside, found.full_alone, found.full_beside)
    assert [len(one) for one in times] == [1] * 4
    assert found.text().count("times as long") == 2


@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_multipart_bodies_are_read_however_they_are_cut(newline: bytes, step: int) -> None:
    """Goal: true checksums. Method: one body with either line end, fed in pieces of several sizes."""
    content = zlib.compress(b"x" * 5_000) + b"\r\n--boundar--" + bytes(range(256)) * 4 + newline
    head = [b"--boundary", b"Content-Type: application/json", b"", b'{"name": "n"}']
    parts = [*head, b"--boundary", b"Content-Type: image/png", b"", content, b"--boundary--", b""]
    body = newline.join(parts)
    sink = Content(with_md5=False)
    related = Related(b"boundary", sink)
    for begin in range(0, len(body), step):
        related.feed(body[begin : begin + step])
    related.end()
    assert json.loads(related.metadata) == {"name": "n"}
    assert related.content_type == "image/png"
    assert (sink.size, sink.crc32c) == (len(content), google_crc32c.value(content))


@pytest.mark.parametrize("step", [1, 2, 5, 10_000])
def test_chunked_bodies_are_read_however_they_are_cut(step: int) -> None:
    """Goal: bodies of unknown length arrive whole. Method: three chunks, fed in pieces of several sizes."""
    body = b"5\r\nhello\r\n1\r\n \r\n6;x=y\r\nworld!\r\n0\r\n\r\n"
    sink = Collected()
    dechunked = Dechunked(sink)
    rest = None
    for begin in range(0, len(body), step):
        assert rest is None
        rest = dechunked.feed(body[begin : begin + step])
    assert rest == b""
    assert sink.data == b"hello world!"


def test_ratios_are_taken_within_a_round() -> None:
    """Goal: a noisy round does not bend ratios. Method: two rounds, one three times as slow for both."""
    case = Case("A", 50)
    runs = [
        Run(case, name, repeat, wall * slow, 1.0, 1_000_000, 1.0, share)
        for repeat, slow in enumerate((1.0, 3.0))
        for name, wall, share in ((OURS, 2.0, 0.1), ("other", 5.0, 0.9))
    ]
    ours, other = standings(runs, case)
    assert ours.contender == OURS
    assert other.wall_ratio is not None
    assert (other.wall_ratio.least, other.wall_ratio.most) == (2.5, 2.5)
    assert other.server_bound
    assert not ours.server_bound
    assert "other!" in table(runs, {"A": "a set"})


def test_a_set_is_in_memory_before_it_is_measured(tmp_path: Path) -> None:
    """Goal: nobody pays for what a program before let the kernel drop. Method: drop it; ask the kernel."""
    runs = run_set("tiny", tmp_path, bucket=BUCKET)
    paths = [path for path, _ in runs.files()]

    def in_memory(path: Path) -> bool:
        with path.open("rb") as file:
            try:
                os.preadv(file.fileno(), [bytearray(4_000)], 0, os.RWF_NOWAIT)
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno == errno.EOPNOTSUPP:
                    pytest.skip("this file system does not tell what is in memory")
                raise
            return True

    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if all(map(in_memory, paths)):
        pytest.skip("this file system keeps everything in memory")
    runs.warm()
    assert all(map(in_memory, paths))
