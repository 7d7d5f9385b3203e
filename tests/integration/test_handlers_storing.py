"""Runs that our GCPExperimentHandler stores: whole, once, and never lost, whatever the cloud does."""

import asyncio
import io
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from pixaris_sync import GCPExperimentHandler
from pixaris_sync.errors import ConfigurationError, Failure, NameRefusedError, SyncError
from tests.integration.cloud import Cloud
from tests.support.command_line import CommandLine, Watching
from tests.support.proxy import DELIVERIES, Proxies, held_until, refusal
from tests.support.stored_runs import DATASET, PROJECT, Reader, picture
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def ours(cloud: Cloud, tmp_path: Path, spool: Path, monkeypatch: pytest.MonkeyPatch) -> GCPExperimentHandler:
    """Our handler on the test's bucket and dataset."""
    monkeypatch.setenv("PIXARIS_SYNC_STATE_DIR", str(tmp_path / "state"))
    return new_handler(cloud, spool)


def new_handler(cloud: Cloud, spool: Path | None, **options: Any) -> GCPExperimentHandler:
    folder = None if spool is None else str(spool)
    return GCPExperimentHandler(
        cloud.project, cloud.dataset_ref, cloud.bucket, spool_folder=folder, **options
    )


def store(
    handler: Any, name: str = "run", images: int = 1, metrics: "Mapping[str, Any] | None" = None, **args: Any
) -> None:
    pairs = [(picture(at), f"image_{at}.png") for at in range(images)]
    handler.store_results(PROJECT, DATASET, name, pairs, metrics or {"score": 0.5}, args)


def unstamped(name: str) -> str:
    return re.sub(r"^\d{6}-", "", name)


def cells(pixaris: Reader) -> dict[str, dict[str, Any]]:
    """The rows of the dataset by the name that the run was given."""
    rows: list[dict[str, Any]] = pixaris.frame().to_dict("records")  # type: ignore[assignment]
    return {unstamped(row["experiment_run_name"]): row for row in rows}


def waits_in(spool: Path) -> list[Path]:
    """The runs that are in a spool."""
    return sorted(path.parent for path in spool.rglob("args.json"))


def in_process(environment: "Mapping[str, str]", script: str, *arguments: str) -> "subprocess.Popen[str]":
    """Run a script of a training process."""
    return subprocess.Popen(
        [sys.executable, "-c", _SCRIPT + script, *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


_SCRIPT = """
import os, sys
from PIL import Image
from pixaris_sync import GCPExperimentHandler
project, dataset, bucket, spool = sys.argv[1:5]
def handler(**options):
    return GCPExperimentHandler(project, dataset, bucket, spool_folder=spool, **options)
def store(one, name="run", **metrics):
    image = Image.new("RGB", (8, 6), "red")
    one.store_results("project", "dataset", name, [(image, "image.png")], {"pid": os.getpid(), **metrics}, {})
"""


def ended(process: "subprocess.Popen[str]") -> tuple[str, str]:
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    return stdout, stderr


def destination(cloud: Cloud, spool: Path) -> tuple[str, ...]:
    return cloud.project, cloud.dataset_ref, cloud.bucket, str(spool)


def test_a_run_is_in_no_doubt_about_the_object_that_took_its_name(
    ours: GCPExperimentHandler, pixaris: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: it returns as soon as the row shows. Method: doubt lasts an hour; what names are taken with."""
    monkeypatch.setenv("PIXARIS_SYNC_DOUBT_SETTLE_SECONDS", "3600")
    store(ours, "first", images=2)
    store(ours, "second")
    store(ours, "second")
    store(ours, "argument", images=0, weights={"a": 1})

    assert [name[:6] for name in cells(pixaris)] == ["argume", "first", "second", "second"]


def test_rows_and_objects_are_those_of_the_real_handler(
    ours: GCPExperimentHandler, gcp_handler: Any, pixaris: Reader, spool: Path, tmp_path: Path
) -> None:
    """Goal: a drop-in. Method: the same call with both; compare cells, objects and pixels."""
    seen = picture(9)
    seen.info = {"prompt": "a fox"}
    arguments = {"steps": 3, "flag": True, "ratio": 0.5, "words": ["a", 1], "tree": {"a": 1}, "seen": seen}
    metrics = {"score": 0.5, "kept": {"b": 2}}
    store(gcp_handler, "theirs", 2, metrics, **arguments)
    store(ours, "ours", 2, metrics, **arguments, experiment_run_name="overwritten")
    rows = cells(pixaris)
    theirs, mine = rows["theirs"], rows["ours"]
    assert mine["experiment_run_name"].replace("ours", "theirs") == theirs["experiment_run_name"]
    assert abs(int(mine["timestamp"][-6:]) - int(theirs["timestamp"][-6:])) < 10_000
    for row in (mine, theirs):
        del row["timestamp"], row["experiment_run_name"]
    assert {key: str(value).replace("-ours/", "-theirs/") for key, value in mine.items()} == {
        key: str(value) for key, value in theirs.items()
    }
    objects = {re.sub(r".*/\d{6}-", "", name): name for name in pixaris.objects()}
    assert {name for name in objects if name.startswith("ours/")} == {
        name.replace("theirs/", "ours/") for name in objects if name.startswith("theirs/")
    }
    for name in objects:
        if name.startswith("ours/") and name.endswith(".png"):
            one, other = (
                Image.open(io.BytesIO(pixaris.content(objects[key])))
                for key in (name, name.replace("ours/", "theirs/"))
            )
            assert one.tobytes() == other.tobytes()
            assert one.info == other.info
    assert waits_in(spool) == [], "what is in the cloud is removed"
    del tmp_path


def test_a_name_that_is_taken_gets_the_time_and_then_a_number(
    ours: GCPExperimentHandler, pixaris: Reader
) -> None:
    """Goal: names as Pixaris gives them. Method: one name four times, also for runs without files."""
    for _ in range(3):
        store(ours, "twin")
    for _ in range(2):
        store(ours, "bare", 0)
    names = sorted(unstamped(name) for name in pixaris.runs())
    assert [re.sub(r"\d{4}", "HHMM", name) for name in names] == [
        *("bare", "bareHHMM", "twin", "twinHHMM", "twinHHMM-2")
    ]


def test_two_processes_that_take_one_name_in_an_instant_end_with_two(
    cloud: Cloud, tmp_path: Path, pixaris: Reader
) -> None:
    """Goal: machines never share a run. Method: two of them, in step by step, with states of their own."""
    wait = "\nimport time\nwhile time.time() < float(sys.argv[5]): pass\nstore(handler())\n"
    begin = str(time.time() + 5)
    processes = [
        in_process(
            {"PIXARIS_SYNC_STATE_DIR": str(tmp_path / f"state{at}")},
            wait,
            *destination(cloud, tmp_path / f"spool{at}"),
            begin,
        )
        for at in range(2)
    ]
    for process in processes:
        ended(process)
    frame = pixaris.frame()
    assert len(set(frame["experiment_run_name"])) == len(frame) == 2
    assert len(set(frame["pid"])) == 2
    assert {unstamped(name)[:3] for name in frame["experiment_run_name"]} == {"run"}


def test_no_network_loses_nothing_and_the_command_carries_it(
    ours: GCPExperimentHandler,
    proxies: Proxies,
    command_line: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    pixaris: Reader,
    spool: Path,
    cloud: Cloud,
) -> None:
    """Goal: outages cost nothing. Method: refuse all connections; then the told command, word for word."""
    for name, value in proxies.environment.items():
        monkeypatch.setenv(name, value)
    proxies.storage.refuses = proxies.bigquery.refuses = lambda: True
    begun = time.monotonic()
    store(ours, "first")
    assert time.monotonic() - begun < 20
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    told = [text for text in warnings if "waits in spool" in text]
    assert len(told) == 1, warnings
    assert len(waits_in(spool)) == 1
    with pytest.raises(SyncError, match="1 run stays in the spool") as caught:
        ours.flush()
    assert caught.value.failure is Failure.TRANSIENT
    proxies.storage.refuses = proxies.bigquery.refuses = lambda: False
    arguments = shlex.split(told[0].partition(", or: ")[2])
    assert arguments.pop(0) == "pixaris-sync"
    outcome = command_line.but(**proxies.environment).run(*arguments)
    assert outcome.code == 0, str(outcome)
    assert re.fullmatch(r"first-\d{6}-[0-9a-f]{6}", unstamped(pixaris.runs()[0]))
    ours.flush()
    assert pixaris.runs() == [*{*pixaris.runs()}]
    del cloud


@pytest.mark.large
def test_a_run_without_network_goes_with_the_next_call(
    ours: GCPExperimentHandler,
    proxies: Proxies,
    monkeypatch: pytest.MonkeyPatch,
    pixaris: Reader,
    spool: Path,
) -> None:
    """Goal: nobody need do anything. Method: an outage of the tables alone, then another call."""
    for name, value in proxies.environment.items():
        monkeypatch.setenv(name, value)
    proxies.bigquery.refuses = lambda: True
    store(ours, "first")
    proxies.bigquery.refuses = lambda: False
    store(ours, "second")
    assert [unstamped(name) for name in pixaris.runs()] == ["first", "second"]
    assert waits_in(spool) == []


@pytest.mark.large
def test_a_watch_that_owns_the_spool_carries_it(
    ours: GCPExperimentHandler, command_line: CommandLine, spool: Path, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: one owner. Method: store while `watch` owns the spool."""
    spool.mkdir()
    command = CommandLine(spool, tmp_path / "state", command_line.environment)
    command.environment.update(PIXARIS_SYNC_LOCAL_RESULTS_FOLDER=str(spool))
    with Watching(command, tmp_path) as watch:
        watch.until(command.ledgers, "it works")
        store(ours, "watched")
        assert [unstamped(name) for name in pixaris.runs()] == ["watched"]
        assert watch.end() == 0
    store(ours, "alone")
    assert [unstamped(name) for name in pixaris.runs()] == ["alone", "watched"]


def test_a_command_waits_for_a_handler_that_owns_the_spool(
    ours: GCPExperimentHandler,
    proxies: Proxies,
    command_line: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    spool: Path,
    pixaris: Reader,
    tmp_path: Path,
) -> None:
    """Goal: no error for who comes second. Method: hold the handler's rows back while `sync` begins."""
    for name, value in proxies.environment.items():
        monkeypatch.setenv(name, value)
    released = threading.Event()
    proxies.bigquery.rule = held_until(released, DELIVERIES)
    storing = threading.Thread(target=store, args=(ours,))
    storing.start()
    eventually(lambda: proxies.bigquery.count(DELIVERIES), "the handler sends its row")
    environment = {**command_line.environment, **proxies.environment}
    command = CommandLine(spool, tmp_path / "state", environment)
    log = tmp_path / "log"
    with log.open("w") as stderr, command.start("sync", stderr=stderr) as process:
        eventually(lambda: "waiting for its end" in log.read_text(), "it waits")
        assert process.poll() is None
        released.set()
        assert process.wait(60) == 0, log.read_text()
    storing.join()
    assert log.read_text().count("waiting for its end") == 1
    assert "storing results" in log.read_text()
    assert len(pixaris.runs()) == 1


@pytest.mark.large
def test_what_is_denied_raises_at_once_and_goes_later(
    ours: GCPExperimentHandler,
    proxies: Proxies,
    monkeypatch: pytest.MonkeyPatch,
    spool: Path,
    pixaris: Reader,
) -> None:
    """Goal: permissions are told, and cost nothing. Method: refuse uploads, then rows, then let all pass."""
    for name, value in proxies.environment.items():
        monkeypatch.setenv(name, value)
    denied = refusal(403, "forbidden", "a@b does not have storage.objects.create access")
    for proxy, name in ((proxies.storage, "files"), (proxies.bigquery, "rows")):
        proxy.rule = lambda _: denied
        with pytest.raises(SyncError, match="access") as caught:
            store(ours, name)
        assert caught.value.failure is Failure.PERMISSION
        assert str(spool) in caught.value.__notes__[0]
        proxy.rule = lambda _: None
    assert len(waits_in(spool)) == 2
    ours.flush()
    # The bucket could not be asked for the first one's name.
    assert sorted(unstamped(name).partition("-")[0] for name in pixaris.runs()) == ["files", "rows"]
    assert waits_in(spool) == []


def test_a_wrong_bucket_raises_with_its_hint_and_the_run_stays(
    ours: GCPExperimentHandler, cloud: Cloud, spool: Path
) -> None:
    """Goal: bad settings are told at once. Method: a bucket that is not there, then names of no table."""
    wrong = GCPExperimentHandler(cloud.project, cloud.dataset_ref, "no-such-bucket", spool_folder=str(spool))
    with pytest.raises(ConfigurationError, match="no-such-bucket") as caught:
        store(wrong)
    assert caught.value.hint
    assert len(waits_in(spool)) == 1
    for project in ("a/b", "", "..", "a%b", "pickled_results"):
        with pytest.raises(NameRefusedError) as refused:
            ours.store_results(project, DATASET, "run", [(picture(), "a.png")], {}, {})
        kept = Path(refused.value.hint.rpartition(" kept in ")[2])
        assert len(waits_in(kept)) == 1, project


def test_new_keys_drifted_types_and_odd_names_never_raise(
    ours: GCPExperimentHandler, pixaris: Reader
) -> None:
    """Goal: no run is lost for what it is called or holds. Method: what the real handler fails at."""
    store(ours, "plain", 1, {"score": 1})
    store(ours, "new key", 1, {"score": 1, "another": "text"})
    store(ours, "drifted", 1, {"score": "text", "another": 0.5})
    store(ours, "odd keys", 1, {"a b": 1, "ä-ö": 2, "": 3, "a/b": {"c": 1}, "x" * 400: 4})
    for name in (
        "",
        "..",
        "a/b",
        "../../up",
        "nul\0",
        "cr\r\nlf",
        "ü" * 400,
        "lone \ud800",
        "a//b/",
        "ends ",
    ):
        store(ours, name)
    assert len(set(pixaris.runs())) == 14


def test_without_waiting_runs_go_behind(
    ours: GCPExperimentHandler, cloud: Cloud, spool: Path, pixaris: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: never wait for the cloud. Method: store several, flush; an error behind comes with the next."""
    with new_handler(cloud, spool, wait=False) as handler:
        for at in range(3):
            store(handler, f"run{at}")
    names = [unstamped(name) for name in pixaris.runs()]
    assert [re.sub(r"-\d{6}-[0-9a-f]{6}$", "", name) for name in names] == ["run0", "run1", "run2"]
    wrong = GCPExperimentHandler(
        cloud.project, cloud.dataset_ref, "no-such-bucket", spool_folder=str(spool / "other"), wait=False
    )
    store(wrong)
    with pytest.raises(ConfigurationError, match="no-such-bucket"):
        wrong.flush()
    del ours, monkeypatch


def test_at_exit_what_was_stored_without_waiting_is_in_the_spool_or_there(
    cloud: Cloud, spool: Path, tmp_path: Path, pixaris: Reader, ours: GCPExperimentHandler
) -> None:
    """Goal: an end without `close` loses nothing. Method: a process that stores and ends; then flush."""
    script = "\none = handler(wait=False)\nfor at in range(3): store(one, f'run{at}')\n"
    state = {"PIXARIS_SYNC_STATE_DIR": str(tmp_path / "state")}
    ended(in_process(state, script, *destination(cloud, spool)))
    ours.flush()
    assert len(set(pixaris.runs())) == 3
    assert waits_in(spool) == []


def test_it_works_inside_a_running_loop_pickled_forked_and_in_threads(
    ours: GCPExperimentHandler, cloud: Cloud, spool: Path, tmp_path: Path, pixaris: Reader
) -> None:
    """Goal: wherever training calls it. Method: one run from each."""

    async def within() -> None:
        store(ours, "loop")

    asyncio.run(within())
    again = pickle.loads(pickle.dumps(ours))  # noqa: S301 - our own
    assert again.spool_folder == str(spool)
    store(again, "pickled")
    threads = [threading.Thread(target=store, args=(ours, f"thread{at}")) for at in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    script = """
one = handler()
store(one, "parent")
child = os.fork()
if not child:
    store(one, "child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
store(one, "after")
"""
    ended(in_process({"PIXARIS_SYNC_STATE_DIR": str(tmp_path / "state")}, script, *destination(cloud, spool)))
    names = [unstamped(name) for name in pixaris.runs()]
    assert names == ["after", "child", "loop", "parent", "pickled", "thread0", "thread1", "thread2"]


def test_a_spool_that_was_emptied_doubles_nothing_when_its_ledger_is_lost(
    ours: GCPExperimentHandler, command_line: CommandLine, spool: Path, tmp_path: Path, pixaris: Reader
) -> None:
    """Goal: the spool does not grow, at no risk. Method: lose the ledger after emptying, and in its midst."""
    store(ours, "first")
    assert waits_in(spool) == []
    assert not list(spool.rglob("*.jsonl"))
    shutil.rmtree(tmp_path / "state")
    store(ours, "second")
    # A kill after the tracking file was removed leaves folders.
    left = spool / PROJECT / DATASET / "261127-left"
    (left / "generated_images").mkdir(parents=True)
    (left / "args.json").write_text("{}")
    shutil.rmtree(tmp_path / "state")
    ours.flush()
    store(ours, "third")
    assert [unstamped(name) for name in pixaris.runs()] == ["first", "second", "third"]
    assert waits_in(spool) == []
    command = CommandLine(spool, tmp_path / "state", command_line.environment)
    assert command.sync()["rows_synced"] == 0


def test_the_folder_of_somebody_else_is_never_emptied(
    ours: GCPExperimentHandler, cloud: Cloud, tmp_path: Path, pixaris: Reader
) -> None:
    """Goal: nobody's results are removed. Method: a spool in a folder that holds something."""
    folder = tmp_path / "mine"
    (folder / PROJECT).mkdir(parents=True)
    store(new_handler(cloud, folder))
    assert len(pixaris.runs()) == len(waits_in(folder)) == 1
    del ours


def test_the_default_spool_is_below_the_state_folder_for_this_user_alone(
    ours: GCPExperimentHandler, cloud: Cloud, tmp_path: Path
) -> None:
    """Goal: one spool for each destination. Method: compare the folders of two; look at the mode."""
    mine, other = new_handler(cloud, None), GCPExperimentHandler(cloud.project, "other", cloud.bucket)
    assert mine.spool_folder != other.spool_folder
    assert Path(mine.spool_folder).parent == tmp_path / "state" / "spool"
    store(mine)
    assert Path(mine.spool_folder).stat().st_mode & 0o777 == 0o700
    del ours
