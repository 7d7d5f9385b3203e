"""Processes that store runs by the handlers themselves, killed at every step of it."""

import json
import math
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pixaris.experiment_handlers.local import LocalExperimentHandler as PixarisHandler

from pixaris_sync.handlers import LocalExperimentHandler
from tests.crash.made_runs import MARKER, PIXARIS, MadeRun, made_run
from tests.crash.store_kills import Left, Step, draw_store_kill, left_behind, store_and_kill, store_some
from tests.crash.storing import Order
from tests.support.proof_summary import Tell
from tests.support.stored_runs import DATASET, PROJECT, TRACKING_FILE

#: Of each test. Those of `watch` and `sync` take longer, and are told by the same variable.
KILLS = int(os.environ.get("PIXARIS_SYNC_KILLS", "4"))
SEED = int(os.environ.get("PIXARIS_SYNC_CRASH_SEED", "20240229"))
#: With fewer kills than this some step may well not come up.
KILLS_FOR_ALL_STEPS = 80
_KILL_SECONDS_MAX = 6
_END_SECONDS_MAX = 120
#: Between two runs of Pixaris' own handler.
_PAUSE_SECONDS = 0.03


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
        print(f"PIXARIS_SYNC_CRASH_SEED={SEED} PIXARIS_SYNC_KILLS={KILLS}", *past[-10:], sep="\n")  # noqa: T201 - pytest shows it where it matters
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
