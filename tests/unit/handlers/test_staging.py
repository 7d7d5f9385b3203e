"""A run is on the disk whole or not at all, whatever fails, ends or writes beside."""

import errno
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pixaris_sync.handlers import LocalExperimentHandler
from pixaris_sync.handlers.record import local_names, new_run
from pixaris_sync.handlers.staging import stage
from pixaris_sync.local.storing import PREFIX, append, locked, recover
from tests.unit.handlers.failing_disk import FailingDisk, Fault, Interrupted
from tests.unit.handlers.results import TRACKING_FILE, store, whole_runs


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.value)
def test_a_run_is_whole_or_absent(fault: Fault, tmp_path: Path) -> None:
    """Goal: nothing half is ever there. Method: a fault at each operation; the next run ends what began."""
    counted = FailingDisk()
    with counted.under():
        store(LocalExperimentHandler(str(tmp_path / "counted")))
    assert counted.count > 15
    absent, ended = 0, 0
    for at in range(counted.count):
        results = tmp_path / f"at {at}"
        dataset = results / "p" / "d"
        store(LocalExperimentHandler(str(results)), "first")
        reported = True
        with FailingDisk(at, fault).under():
            try:
                store(LocalExperimentHandler(str(results)), "second")
            except (OSError, Interrupted):
                reported = False
        if not reported and fault is Fault.ERROR:
            assert len(whole_runs_and_nothing_hidden(dataset)) == 1, at
        store(LocalExperimentHandler(str(results)), "third")
        names = [name.partition("_")[2] for name in whole_runs_and_nothing_hidden(dataset)]
        assert names in (["first", "third"], ["first", "second", "third"]), at
        assert "second" in names or not reported, at
        absent += "second" not in names
        ended += not reported and "second" in names
    assert absent
    assert bool(ended) == (fault is not Fault.ERROR)


def whole_runs_and_nothing_hidden(dataset: Path) -> list[str]:
    hidden = [path.name for path in dataset.iterdir() if path.name.startswith(PREFIX)]
    assert not hidden
    return whole_runs(dataset)


def test_no_free_handle_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: an error ends the call, and leaves nothing. Method: no folder can be opened."""
    real = os.open

    def refusing(path: str, flags: int, *args: int, **options: int) -> int:
        if flags & os.O_DIRECTORY:
            raise OSError(errno.EMFILE, "too many open files")
        return real(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(OSError, match="too many open files"):
        store(LocalExperimentHandler(str(tmp_path)))
    assert list((tmp_path / "p" / "d").iterdir()) == []


@given(
    st.lists(st.binary(max_size=30)),
    st.one_of(
        st.sampled_from([b"", b"{", b'{"a": 1', b'{"a": 1}', b'{"a": 1, "b', b"{" * 200_000]),
        st.binary(max_size=30).filter(lambda torn: b"\n" not in torn),
    ),
    st.booleans(),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_line_is_appended_whole(tmp_path: Path, before: list[bytes], torn: bytes, ours: bool) -> None:  # noqa: FBT001 - drawn
    """Goal: what was torn does not damage a new line. Method: any torn end, begun by a writer here or not."""
    shutil.rmtree(tmp_path / f"{PREFIX}begun", ignore_errors=True)
    line, begun = b'{"a": 2}\n', '{"a": 1}\n'
    if ours:
        (tmp_path / f"{PREFIX}begun").mkdir()
        (tmp_path / f"{PREFIX}begun" / "commit.json").write_text(json.dumps({"line": begun}))
    whole = b"".join(part + b"\n" for part in before)
    tracking = tmp_path / "tracking"
    tracking.write_bytes(whole + torn)
    with locked(tracking) as handle:
        append(handle, line, tmp_path)
    is_begun = ours and begun.encode().startswith(torn)
    kept = torn + b"\n" if torn and not is_begun else b""
    assert tracking.read_bytes() == whole + kept + line


def test_what_a_killed_writer_had_begun_leaves_no_torn_line(tmp_path: Path) -> None:
    """Goal: no run is lost, no line torn. Method: a kill in the middle of a line, then another writer."""
    at = next(at for at in range(100) if _ended_before_line(tmp_path / f"{at}", at))
    dataset = tmp_path / f"{at}" / "p" / "d"
    (commit,) = dataset.glob(f"{PREFIX}*/commit.json")
    line = json.loads(commit.read_text())["line"]
    (dataset / "other.jsonl").write_text(line[: len(line) // 2])
    # A writer that knows the folder already looks for nothing that others left.
    staged = stage(dataset, "other.jsonl", new_run([], {}, {}, named=local_names))
    staged.commit(["mine"], timestamp="now", recorded_folder="rec")
    recover(dataset)
    found = [json.loads(one) for one in (dataset / "other.jsonl").read_text().splitlines()]
    assert [one["experiment_run_name"] for one in found] == ["mine", json.loads(line)["experiment_run_name"]]


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    """Goal: two runs never share a folder. Method: names that a folder, a file and a dead link have."""
    (tmp_path / "name").mkdir()
    (tmp_path / "name_2").touch()
    (tmp_path / "name_3").symlink_to("nowhere")
    names = ("name", "name_2", "name_3", "name_4")
    run = new_run([], {"x": 1}, {}, named=local_names)
    staged = stage(tmp_path, TRACKING_FILE, run)
    assert staged.commit(names, timestamp="now", recorded_folder="rec") == "name_4"
    (line,) = (tmp_path / TRACKING_FILE).read_text().splitlines()
    assert json.loads(line) == {"timestamp": "now", "x": 1, "experiment_run_name": "name_4"}


def test_a_run_of_another_tracking_file_is_ended_there(tmp_path: Path) -> None:
    """Goal: a line goes where its writer wanted it. Method: end before the line; the next run has another."""
    at = next(at for at in range(100) if _ended_before_line(tmp_path / f"{at}", at))
    dataset = tmp_path / f"{at}" / "p" / "d"
    LocalExperimentHandler(str(tmp_path / f"{at}")).store_results("p", "d", "next", [], {})
    (other,) = (dataset / "other.jsonl").read_text().splitlines()
    (mine,) = (dataset / TRACKING_FILE).read_text().splitlines()
    assert json.loads(other)["experiment_run_name"].endswith("_other")
    assert json.loads(mine)["experiment_run_name"].endswith("_next")


def _ended_before_line(results: Path, at: int) -> bool:
    """Whether a process that ends at this operation leaves a named run without its line."""
    handler = LocalExperimentHandler(str(results))
    with FailingDisk(at, Fault.END).under(), suppress(OSError):
        handler.store_results("p", "d", "other", [], {}, dataset_tracking_file_name="other.jsonl")
    named = [path for path in (results / "p").glob("d/*_other") if path.is_dir()]
    return bool(named) and not (results / "p" / "d" / "other.jsonl").read_text()


def test_a_run_that_was_removed_since_gets_no_line(tmp_path: Path) -> None:
    """Goal: no line without its files. Method: end before the line, remove the run, recover."""
    at = next(at for at in range(100) if _ended_before_line(tmp_path / f"{at}", at))
    dataset = tmp_path / f"{at}" / "p" / "d"
    (run,) = (path for path in dataset.glob("*_other"))
    (run / "args.json").unlink()
    run.rmdir()
    recover(dataset)
    assert (dataset / "other.jsonl").read_text() == ""
    assert not list(dataset.glob(f"{PREFIX}*"))


def test_what_a_living_writer_hides_is_left_alone(tmp_path: Path) -> None:
    """Goal: nobody ends what another has in hand. Method: look after a folder while a run is staged."""
    run = new_run([(Image.new("L", (1, 1)), "a")], {}, {}, named=local_names)
    staged = stage(tmp_path, TRACKING_FILE, run)
    recover(tmp_path)
    assert set(staged.files) == {"generated_images/a.png"}
    staged.commit(["name"], timestamp="now", recorded_folder="rec")
    recover(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [TRACKING_FILE, "name"]
    staged.discard()
    recover(tmp_path / "nothing")


def test_one_image_may_be_several_files(tmp_path: Path) -> None:
    """Goal: threads do not meet in one image. Method: one image many times, with and without info."""
    image = Image.effect_noise((64, 64), 50).convert("RGB")
    image.info.update(text="x", number=5)
    args = {f"arg {at}": image for at in range(8)}
    handler = LocalExperimentHandler(str(tmp_path))
    handler.store_results("p", "d", "run", [(image, f"{at}") for at in range(8)], {}, args)
    (run,) = (path for path in (tmp_path / "p" / "d").iterdir() if path.is_dir())
    for path in run.rglob("*.png"):
        with Image.open(path) as found:
            texts = {"text": "x"} if path.parent != run else {"text": "x", "number": "5"}
            assert found.text == texts  # type: ignore[attr-defined]
            assert found.tobytes() == image.tobytes()


WRITER = """
import sys, threading
from pathlib import Path
from pixaris_sync.handlers import LocalExperimentHandler
from tests.unit.handlers.results import store
handler = LocalExperimentHandler(sys.argv[1])
threads = [threading.Thread(target=lambda: [store(handler) for _ in range(3)]) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def test_writers_side_by_side_all_store(tmp_path: Path) -> None:
    """Goal: no run is lost, torn or shared. Method: two processes of two threads each, one name."""
    commands = [[sys.executable, "-c", WRITER, str(tmp_path)] for _ in range(2)]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait() for process in processes] == [0, 0]
    names = whole_runs_and_nothing_hidden(tmp_path / "p" / "d")
    assert len(names) == len(set(names)) == 12
