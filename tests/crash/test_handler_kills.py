"""Processes that store runs by the handlers themselves, killed at every step of it."""

import json
import math
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pixaris.experiment_handlers.local import LocalExperimentHandler as PixarisHandler

from pixaris_sync.handlers import LocalExperimentHandler
from pixaris_sync.sandbox.emulators import Sandbox
from tests.crash.kill_plan import Killer
from tests.crash.made_runs import MARKER, PIXARIS, MadeRun, made_run
from tests.crash.network_faults import Moment
from tests.crash.store_kills import (
    Left,
    Step,
    draw_request_kill,
    draw_store_kill,
    left_behind,
    store_and_kill,
    store_and_kill_at_request,
    store_some,
)
from tests.crash.storing import Order
from tests.integration.cloud import Cloud, new_cloud
from tests.support.command_line import CommandLine
from tests.support.proof_summary import Tell
from tests.support.proxy import Proxies, Proxy, Request
from tests.support.stored_runs import DATASET, PROJECT, TRACKING_FILE, Reader

#: Of each test. Those of `watch` and `sync` take longer, and are told by the same variable.
KILLS = int(os.environ.get("PIXARIS_SYNC_TEST_KILLS", "4"))
#: Each of these takes seconds, as a process may wait for the cloud.
KILLS_FOR_THE_CLOUD = math.ceil(KILLS * 0.6)
SEED = int(os.environ.get("PIXARIS_SYNC_TEST_CRASH_SEED", "20240229"))
#: With fewer kills than this some step may well not come up.
KILLS_FOR_ALL_STEPS = 80
_KILL_SECONDS_MAX = 10
_END_SECONDS_MAX = 120
#: Between two runs of Pixaris' own handler.
_PAUSE_SECONDS = 0.03
#: How often `sync` runs beside two processes that store, and how it may end: all is done, or work is left.
_SYNC_CHANCE = 0.2
_ENDS = (0, 5)
#: Delays that are meant for a cloud, and not for this test.
_SETTINGS: Mapping[str, float] = {
    "retry_delay_seconds_min": 0.05,
    "retry_delay_seconds_max": 0.5,
    "doubt_settle_seconds": 0.5,
    "table_settle_seconds": 0.0,
    "load_spacing_seconds": 0.2,
    "bulk_spacing_seconds": 0.2,
}


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cloud]:
    """Both emulators."""
    monkeypatch.chdir(tmp_path)
    with Sandbox() as sandbox:
        yield new_cloud(sandbox, monkeypatch)


@pytest.fixture
def proxies(cloud: Cloud) -> Iterator[Proxies]:
    """What stands between the processes that store and the emulators."""
    both = Proxies(
        Proxy(cloud.environment["STORAGE_EMULATOR_HOST"]), Proxy(cloud.environment["BIGQUERY_EMULATOR_HOST"])
    )
    with both.storage, both.bigquery:
        yield both


class Judge:
    """Reads a results folder as both handlers do, and knows what must be in it.

    Args:
        root: the results folder.

    Attributes:
        stored: markers of the runs that were reported as stored.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.folder = root / PROJECT / DATASET
        self.stored: list[str] = []
        self._known: set[str] = set()

    def records(self) -> list[dict[str, Any]]:
        """The records of the tracking file, none of which is torn."""
        content = (self.folder / TRACKING_FILE).read_bytes()
        assert content.endswith(b"\n")
        return [json.loads(line) for line in content.splitlines()]

    def assert_all_is_well(self, *, anew: bool = False) -> None:
        """Every run that is there is whole and there once, every run that was reported is there.

        Args:
            anew: whether files that were seen before are looked at again.
        """
        records = self.records()
        markers = [record[MARKER] for record in records]
        assert Counter(markers).most_common(1)[0][1] == 1
        assert set(self.stored) <= set(markers)
        names = [record["experiment_run_name"] for record in records]
        assert len(set(names)) == len(names)
        for handler in (PixarisHandler(str(self._root)), LocalExperimentHandler(str(self._root))):
            frame = handler.load_experiment_results_for_dataset(PROJECT, DATASET)
            assert list(frame[MARKER]) == markers
            assert list(frame["experiment_run_name"]) == names
        for record in records:
            if anew or record[MARKER] not in self._known:
                self._assert_is_whole(record)
        self._known = set(markers)

    def _assert_is_whole(self, record: dict[str, Any]) -> None:
        name = record["experiment_run_name"]
        run, folder = made_run(record[MARKER]), self.folder / name
        assert json.loads((folder / "args.json").read_bytes()) == record
        assert fault_in(folder, run) == "", name
        for key, value in run.args.items():
            saved = {f"{key}.png", f"{key}.json"} & run.files
            assert record[key] == (str(folder / saved.pop()) if saved else value)
        assert {key: record[key] for key in run.metrics} == run.metrics
        listed = [
            handler.load_images_for_experiment(PROJECT, DATASET, name, str(self._root))
            for handler in (PixarisHandler(str(self._root)), LocalExperimentHandler(str(self._root)))
        ]
        expected = sorted(str(folder / "generated_images" / image) for image in run.images)
        assert listed == [expected, expected]

    def assert_nothing_else_is_there(self) -> None:
        """Every folder is a run of the tracking file, and nothing is hidden."""
        names = {record["experiment_run_name"] for record in self.records()}
        assert {path.name for path in self.folder.iterdir()} == names | {TRACKING_FILE}


def fault_in(folder: Path, run: MadeRun) -> str:
    """What is wrong with the files in a run's folder."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != "args.json")
    return run.fault_of({path.relative_to(folder).as_posix(): path for path in paths})


@contextmanager
def _told_of_failure(past: Sequence[object]) -> Iterator[None]:
    """Say how to repeat it, and what was going on."""
    try:
        yield
    except BaseException:
        print(f"PIXARIS_SYNC_TEST_CRASH_SEED={SEED} PIXARIS_SYNC_TEST_KILLS={KILLS}", *past[-10:], sep="\n")  # noqa: T201 - pytest shows it where it matters
        raise


@contextmanager
def _pixaris_stores_too(root: Path, judge: Judge, begin: int) -> Iterator[None]:
    """Let Pixaris' own handler store runs into the same dataset meanwhile."""
    ended = threading.Event()
    failures: list[Exception] = []

    def store() -> None:
        handler = PixarisHandler(str(root))
        number = begin
        while not ended.wait(_PAUSE_SECONDS):
            marker = f"{PIXARIS}-{number:05d}"
            run = made_run(marker)
            pairs = [(image, name) for name, image in run.images.items()]
            try:
                handler.store_results(PROJECT, DATASET, run.name, pairs, dict(run.metrics), dict(run.args))
            except Exception as error:  # noqa: BLE001 - told below
                failures.append(error)
                return
            judge.stored.append(marker)
            number += 1

    thread = threading.Thread(target=store)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    assert failures == []


@pytest.mark.timeout(_END_SECONDS_MAX + _KILL_SECONDS_MAX * KILLS)
def test_local_runs_are_whole_or_absent_at_whatever_instant_their_process_is_killed(
    tmp_path: Path, tell: Tell
) -> None:
    """Goal: no kill leaves a run in part, loses one that was reported as stored, or stores one twice.

    Method: two processes at a time store runs of the same names into one dataset, one that waits and one that
    stores behind, while Pixaris' own handler stores there too. Each is killed at a step that shows in the
    folder, or by time; the next one also finds, ends or removes what it left, and is killed at that. After
    each pair both handlers read everything. One more call leaves nothing behind.
    """
    root = tmp_path / "local_results"
    chance = random.Random(f"{SEED} local")  # noqa: S311 - tests need no secrecy
    judge = Judge(root)
    kills: Counter[str] = Counter()
    left: Counter[Left] = Counter()
    past: list[object] = []
    order = Order("", PROJECT, DATASET, str(root), wait=True)
    with _told_of_failure(past):
        for number in range(math.ceil(KILLS / 2)):
            orders = [
                replace(order, name=f"{number:03d}-{'waits' if wait else 'behind'}", wait=wait)
                for wait in (True, False)
            ]
            plans = [draw_store_kill(chance) for _ in orders]
            past.append(plans)
            with _pixaris_stores_too(root, judge, 1000 * number), ThreadPoolExecutor() as pool:
                outcomes = list(pool.map(store_and_kill, orders, [os.environ] * len(orders), plans))
            for plan, (seen, stored) in zip(plans, outcomes, strict=True):
                kills[plan.trigger if seen else "patience"] += 1
                judge.stored += stored
            left += left_behind(judge.folder)
            judge.assert_all_is_well()
        judge.stored += store_some(replace(order, name="last"), os.environ)
        judge.assert_all_is_well(anew=True)
        judge.assert_nothing_else_is_there()
        assert sum(kills.values()) >= KILLS
        if KILLS >= KILLS_FOR_ALL_STEPS:
            assert kills.keys() >= {*Step, "time"}
            assert {Left.FILES, Left.WHOLE} <= left.keys()
            assert {Left.NAMED, Left.LINE} & left.keys()
    tell("kills while runs are stored", {str(what): count for what, count in sorted(kills.items())})
    tell("what they left of runs", {str(what): count for what, count in sorted(left.items())})
    tell("runs stored meanwhile", {"reported": len(judge.stored), "there": len(judge.records())})


@pytest.mark.large
@pytest.mark.timeout(_END_SECONDS_MAX + _KILL_SECONDS_MAX * KILLS)
def test_runs_for_the_cloud_become_one_row_each_at_whatever_instant_their_process_is_killed(
    cloud: Cloud, proxies: Proxies, tmp_path: Path, tell: Tell
) -> None:
    """Goal: no kill loses a run that was reported as stored, stores one twice, or a row without its files.

    Method: two processes at a time store runs of the same names with one spool, one that waits for the cloud
    and one that does not. One is killed at a step that shows in the spool, or by time, the other at a request
    before or after it is served; now and then `sync` runs beside them. At last it carries what is left, and
    Pixaris reads. A name that was claimed by its first object, and not stored, stays taken.
    """
    spool = tmp_path / "spool"
    environment = {**cloud.environment, **proxies.environment}
    command_line = CommandLine(spool, tmp_path / "state", environment).having(**_SETTINGS)
    chance = random.Random(f"{SEED} cloud")  # noqa: S311 - tests need no secrecy
    killer = _killer_at(proxies)
    kills: Counter[str] = Counter()
    stored: list[str] = []
    past: list[object] = []
    order = Order("", PROJECT, DATASET, str(spool), wait=True, cloud=_destination(cloud))
    with _told_of_failure(past), ThreadPoolExecutor() as pool:
        for number in range(math.ceil(KILLS_FOR_THE_CLOUD / 2)):
            one_waits = chance.random() < 0.5
            at_step, at_request = draw_store_kill(chance, in_cloud=True), draw_request_kill(chance)
            past.append((at_step, at_request))
            killed = (
                pool.submit(
                    store_and_kill,
                    replace(order, name=f"{number:03d}-one", wait=one_waits),
                    command_line.environment,
                    at_step,
                ),
                pool.submit(
                    store_and_kill_at_request,
                    replace(order, name=f"{number:03d}-other", wait=not one_waits),
                    command_line.environment,
                    at_request,
                    killer,
                ),
            )
            if chance.random() < _SYNC_CHANCE:
                beside = command_line.run("sync")
                assert beside.code in _ENDS, str(beside)
            for trigger, outcome in zip((at_step.trigger, "request"), killed, strict=True):
                seen, markers = outcome.result()
                kills[trigger if seen else "patience"] += 1
                stored += markers
        stored += store_some(replace(order, name="last"), command_line.environment)
        command_line.sync()
        rows = _assert_rows_have_their_files(Reader(cloud.handler()), tmp_path / "read")
        assert set(stored) <= set(rows)
        assert rows.most_common(1)[0][1] == 1
        assert sum(kills.values()) >= KILLS_FOR_THE_CLOUD
    tell("kills while runs are stored for the cloud", dict(sorted(kills.items())))
    tell("runs stored for the cloud meanwhile", {"reported": len(stored), "there": len(rows)})


def _destination(cloud: Cloud) -> tuple[str, str, str]:
    """What GCPExperimentHandler is made with."""
    return cloud.project, cloud.dataset_ref, cloud.bucket


def _killer_at(proxies: Proxies) -> Killer:
    """A killer that sees every request."""
    killer = Killer()

    def arrived(request: Request) -> None:
        killer.observe(Moment.ARRIVED, request, None)

    for proxy in (proxies.storage, proxies.bigquery):
        proxy.rule = arrived
        proxy.answered = partial(killer.observe, Moment.ANSWERED)
    return killer


def _assert_rows_have_their_files(reader: Reader, scratch: Path) -> Counter[str]:
    """Every row's objects are its files, whole; no others are there but one for each name that was claimed.

    Returns:
        How many rows there are of each marker.
    """
    frame = reader.frame(PROJECT, DATASET)
    paths = {name: scratch / name for name in reader.objects()}
    for name, path in paths.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(reader.content(name))
    dataset = scratch / "results" / PROJECT / DATASET
    claimed = {path.name for path in dataset.iterdir()} - set(frame["experiment_run_name"])
    for name in claimed:
        assert sum(path.is_file() for path in (dataset / name).rglob("*")) == 1, name
    for row in frame.to_dict("records"):
        run = made_run(row[MARKER])
        assert fault_in(dataset / row["experiment_run_name"], run) == ""
        assert (row["score"], row["seed"]) == (run.metrics["score"], run.args["seed"])
    return Counter(frame[MARKER])
