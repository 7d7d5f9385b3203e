"""A sandbox with a data folder: what it costs, what a restart finds, which folders and ports it refuses."""

import json
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gcp_storage_emulator.storage import Storage

from pixaris_sync.cli.exits import Exit
from pixaris_sync.sandbox.emulators import Sandbox
from pixaris_sync.sandbox.kept_storage import KeptStorage
from tests.support.command_line import COMMAND, CommandLine

_SECONDS = 60.0
_TABLE = "bigquery/v2/projects/pixaris-sandbox/datasets/pixaris/tables"


def _ask(url: str, body: bytes | None = None, method: str | None = None) -> Any:
    request = urllib.request.Request(  # noqa: S310 - the sandbox's
        url, body, {"Content-Type": "image/png" if "/upload/" in url else "application/json"}, method=method
    )
    with urllib.request.urlopen(request, timeout=_SECONDS) as answer:  # noqa: S310 - the same
        return json.load(answer)


@contextmanager
def _running(*arguments: str) -> Iterator[tuple["subprocess.Popen[str]", dict[str, str]]]:
    """The real command, and the environment that it prints."""
    with subprocess.Popen(
        [*COMMAND, "sandbox", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        environment = {}
        for _ in range(7):
            name, _, value = process.stdout.readline().removeprefix("export ").strip().partition("=")
            environment[name] = value
        try:
            yield process, environment
        finally:
            process.kill()


def test_what_an_object_costs_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    """Goal: linear. Method: rows changed and bytes written for 200 objects, the first and after 3,000."""
    storage = KeptStorage(tmp_path)
    storage.create_bucket("bucket", {"name": "bucket"})
    storage.commit()

    def costs(first: int) -> tuple[int, int]:
        before = storage._db.total_changes, _written_bytes()
        for number in range(first, first + 200):
            described = {"name": f"results/{number:05}.png", "generation": str(number), "size": "1000"}
            storage.create_file("bucket", described["name"], bytes(1000), described)
            storage.commit()
        return storage._db.total_changes - before[0], _written_bytes() - before[1]

    costs(0)
    early = costs(200)
    for number in range(400, 3000, 200):
        costs(number)
    late = costs(3000)
    assert late[0] == early[0]
    assert late[1] < 1.5 * early[1]


def _written_bytes() -> int:
    """What this process has written to files, by proc_pid_io(5)."""
    return int(re.findall(r"wchar: (\d+)", Path("/proc/self/io").read_text())[0])


def test_a_killed_sandbox_is_found_again_with_all_that_it_answered(tmp_path: Path) -> None:
    """Goal: generations, metadata, tables, rows, job ids, addresses. Method: SIGKILL, then start again."""
    folder = str(tmp_path / "data")
    job = {
        "jobReference": {"jobId": "job-1", "projectId": "pixaris-sandbox"},
        "configuration": {"query": {"query": "SELECT 1", "useLegacySql": False}},
    }
    with _running("--data-dir", folder) as (process, environment):
        bucket = environment["PIXARIS_SYNC_GCP_PIXARIS_BUCKET_NAME"]
        storage, bigquery = environment["STORAGE_EMULATOR_HOST"], environment["BIGQUERY_EMULATOR_HOST"]
        uploads = f"{storage}/upload/storage/v1/b/{bucket}/o?uploadType=media&name="
        objects = [_ask(f"{uploads}folder/{number}", b"content", "POST") for number in range(5)]
        objects[0] = _ask(f"{uploads}folder/0", b"newer", "POST")
        # One name is the folder of another.
        objects.append(_ask(f"{uploads}folder", b"both", "POST"))
        table = {
            "tableReference": {"projectId": "pixaris-sandbox", "datasetId": "pixaris", "tableId": "runs"},
            "schema": {"fields": [{"name": "visit", "type": "INTEGER"}]},
        }
        _ask(f"{bigquery}/{_TABLE}", json.dumps(table).encode(), "POST")
        _ask(f"{bigquery}/{_TABLE}/runs/insertAll", b'{"rows": [{"json": {"visit": 7}}]}', "POST")
        _ask(f"{bigquery}/bigquery/v2/projects/pixaris-sandbox/jobs", json.dumps(job).encode(), "POST")
        process.send_signal(signal.SIGKILL)
        process.wait(_SECONDS)

    with _running("--data-dir", folder) as (_, again):
        assert again == environment
        listed = _ask(f"{storage}/storage/v1/b/{bucket}/o")["items"]
        assert {one["name"]: (one["generation"], one["crc32c"]) for one in listed} == {
            one["name"]: (one["generation"], one["crc32c"]) for one in objects
        }
        with urllib.request.urlopen(f"{storage}/storage/v1/b/{bucket}/o/folder%2F0?alt=media") as answer:  # noqa: S310
            assert answer.read() == b"newer"
        rows = _ask(f"{bigquery}/{_TABLE}/runs/data")["rows"]
        assert rows == [{"f": [{"v": "7"}]}]
        assert (
            _ask(f"{bigquery}/bigquery/v2/projects/pixaris-sandbox/jobs/job-1")["status"]["state"] == "DONE"
        )
        with pytest.raises(urllib.error.HTTPError, match="409"):
            _ask(f"{bigquery}/bigquery/v2/projects/pixaris-sandbox/jobs", json.dumps(job).encode(), "POST")
        # Explicit ports win, and are remembered from then on.
        second = _refusal("--data-dir", folder)
        assert "the sandbox of process" in second


def _refusal(*arguments: str, powerless: bool = False, tmp_path: Path = Path("/nonexistent")) -> str:
    """What the command says, once it has ended as it does for wrong settings."""
    refused = CommandLine(tmp_path, tmp_path, {}).run("sandbox", *arguments, powerless=powerless)
    assert refused.code == Exit.CONFIGURATION, str(refused)
    assert "hint: " in refused.stderr
    assert "Traceback" not in refused.stderr
    return " ".join(refused.stderr.split())


def test_folders_that_cannot_hold_its_data_are_refused(tmp_path: Path) -> None:
    """Goal: one line, a hint, exit 4. Method: a file, a foreign folder, a later layout, no leave to write."""
    (tmp_path / "file").touch()
    assert "Not a directory" in _refusal("--data-dir", str(tmp_path / "file"))
    assert "Not a directory" in _refusal("--data-dir", str(tmp_path / "file" / "below"))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").touch()
    assert "it holds files that are no sandbox's" in _refusal("--data-dir", str(foreign))
    assert [path.name for path in foreign.iterdir()] == ["thesis.tex"]
    later = tmp_path / "later"
    later.mkdir()
    (later / "sandbox.json").write_text('{"layout": 3, "ports": {}}')
    assert "its data has layout 3, and this version knows 2" in _refusal("--data-dir", str(later))
    (later / "sandbox.json").write_text("{")
    assert "cannot be understood" in _refusal("--data-dir", str(later))
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    assert "Permission denied" in _refusal("--data-dir", str(locked), powerless=True)


def test_a_taken_port_is_told_and_not_replaced(tmp_path: Path) -> None:
    """Goal: no traceback, and no address that nobody was told. Method: an asked-for and a remembered port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = _refusal("--storage-port", str(port))
        assert f"127.0.0.1:{port}: the storage port asked for is taken by another process" in said
        folder = tmp_path / "data"
        folder.mkdir()
        (folder / "sandbox.json").write_text(json.dumps({"layout": 2, "ports": {"bigquery": port}}))
        said = _refusal("--data-dir", str(folder))
        assert f"127.0.0.1:{port}: the bigquery port remembered from before is taken" in said
        assert "--bigquery-port 0 takes a free one" in said
        with Sandbox(data_dir=folder, bigquery_port=0) as sandbox:
            assert not sandbox.environment["BIGQUERY_EMULATOR_HOST"].endswith(f":{port}")
    assert "no-such-host" in _refusal("--host", "no-such-host.invalid", "--storage-port", "1")


def test_objects_of_an_older_version_are_taken_over(tmp_path: Path) -> None:
    """Goal: no data is left behind by an update. Method: what the emulator itself keeps; open it twice."""
    before = Storage(data_dir=str(tmp_path))
    before.create_bucket("bucket", {"name": "bucket"})
    before.create_file("bucket", "a/b.png", b"content", {"name": "a/b.png", "generation": "7"})
    for _ in range(2):
        storage = KeptStorage(tmp_path)
        assert storage.get_bucket("bucket") == {"name": "bucket"}
        assert storage.get_file_obj("bucket", "a/b.png")["generation"] == "7"
        assert storage.get_file("bucket", "a/b.png") == b"content"
        storage._db.close()


def test_all_that_is_changed_is_kept(tmp_path: Path) -> None:
    """Goal: memory and database never differ. Method: every kind of change, each seen by a second reader."""
    storage = KeptStorage(tmp_path)

    def check() -> None:
        storage.commit()
        again = KeptStorage(tmp_path)
        for kind in ("buckets", "bucket_iam_policies", "objects", "resumable", "soft_deleted"):
            kept = {key: value for key, value in getattr(storage, kind).items() if value}
            assert getattr(again, kind) == kept, kind
        again._db.close()

    described = {"name": "a", "generation": "1"}
    for bucket in ("bucket", "other"):
        storage.create_bucket(bucket, {"name": bucket})
        storage.create_file(bucket, "a", b"1", dict(described))
        check()
    storage.patch_object("bucket", "a", {**described, "contentType": "image/png"})
    storage.set_bucket_iam_policy("bucket", {"bindings": []})
    storage.buckets["bucket"]["labels"] = {"changed": "in place"}
    check()
    session = storage.create_resumable_upload("bucket", "b", {"bucket": "bucket", "name": "b"})
    storage.add_to_resumable_upload(session, b"12", 4)
    check()
    assert KeptStorage(tmp_path).get_resumable_byte_count(session) == 2
    storage.create_file("bucket", "b", b"1234", {"name": "b", "generation": "2"}, session)
    storage.delete_file("bucket", "a")
    check()
    storage.restore_soft_deleted_file("bucket", "a", "1")
    storage._remove_soft_deleted_generation("bucket", "a", "1")
    check()
    for name in ("a", "b"):
        storage._hard_delete_file("bucket", name)
    storage.delete_bucket("bucket")
    check()
    storage.wipe()
    check()
