"""Processes that store runs, killed at the steps of it, which are seen in the folder."""

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from pixaris_sync.local.storing import PREFIX
from tests.crash.kill_plan import Killer, KillPlan
from tests.crash.network_faults import Moment
from tests.crash.request_log import RequestKind
from tests.crash.storing import Order
from tests.support.stored_runs import TRACKING_FILE

_TREE = Path(__file__).parents[2]
#: How long a step is waited for, from the process's start: here, and where a run takes a second.
_PATIENCE_SECONDS, _CLOUD_PATIENCE_SECONDS = 4.0, 8.0
#: How long a process that is killed by time alone has stored.
_WORK_SECONDS, _CLOUD_WORK_SECONDS = 0.3, 3.0
_END_SECONDS = 60.0
#: Requests at which to kill, and at most the so-manieth.
_REQUESTS = (
    (RequestKind.LISTING, 4),
    (RequestKind.UPLOAD, 12),
    (RequestKind.UPLOAD, 3),
    (RequestKind.STREAM, 3),
    (RequestKind.LOAD, 2),
    (RequestKind.QUERY, 6),
)


class Step(StrEnum):
    """What shows in a dataset's folder while a run is stored, in this order."""

    HIDDEN = "hidden folder"
    IMAGE = "image"
    ARGUMENTS = "args.json"
    COMMIT = "commit.json"
    NAMED = "folder has its name"
    LINE = "line appended"


class Left(StrEnum):
    """What a killed process left of the run that it was storing."""

    FILES = "hidden files"
    WHOLE = "hidden files, whole"
    NAMED = "folder without line"
    LINE = "hidden folder of a stored run"


@dataclass(frozen=True, slots=True)
class StoreKill:
    """When a storing process is killed: at the so-manieth time of a step, and a moment later.

    Attributes:
        step: what is waited for; None: the process's first sign of life.
        count: the so-manieth.
        delay_seconds: after it.
    """

    step: Step | None
    count: int
    delay_seconds: float

    @property
    def trigger(self) -> str:
        """In words."""
        return self.step or "time"


def draw_store_kill(chance: random.Random, *, in_cloud: bool = False) -> StoreKill:
    """Draw when."""
    if chance.random() < 0.2:
        return StoreKill(None, 1, chance.uniform(0, _CLOUD_WORK_SECONDS if in_cloud else _WORK_SECONDS))
    delay_seconds = chance.choice((0.0, 0.0, chance.uniform(0, 0.003)))
    return StoreKill(chance.choice(list(Step)), chance.randint(1, 6), delay_seconds)


def draw_request_kill(chance: random.Random) -> KillPlan:
    """Draw a request at which to kill."""
    requests, count_max = chance.choice(_REQUESTS)
    moment, count = chance.choice(list(Moment)), chance.randint(1, count_max)
    return KillPlan("store", _CLOUD_PATIENCE_SECONDS, requests=(requests,), moment=moment, count=count)


def store_and_kill(order: Order, environment: Mapping[str, str], kill: StoreKill) -> tuple[bool, list[str]]:
    """Start a process that stores runs, and kill it.

    Returns:
        Whether the kill's step was seen, and the markers of the runs that it had reported as stored.

    Raises:
        AssertionError: it ended by itself.
    """
    with start(order, environment) as process:
        seen = _wait_for(kill, order, process)
        time.sleep(kill.delay_seconds)
        process.kill()
        told, errors = process.communicate(timeout=_END_SECONDS)
    assert process.returncode == -signal.SIGKILL, errors
    # The last line may be cut short with its process.
    return seen, told.split("\n")[:-1]


def store_and_kill_at_request(
    order: Order, environment: Mapping[str, str], plan: KillPlan, killer: Killer
) -> tuple[bool, list[str]]:
    """The same, at a request, which the killer observes."""
    with start(order, environment) as process, killer.watching(process, plan):
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=plan.seconds)
        seen = bool(killer.killed_at)
        killer.kill("patience")
        told, errors = process.communicate(timeout=_END_SECONDS)
    assert process.returncode == -signal.SIGKILL, errors
    return seen, told.split("\n")[:-1]


def store_some(order: Order, environment: Mapping[str, str]) -> list[str]:
    """Store by a process that ends well: it is told to end when it begins. The markers of its runs.

    Raises:
        AssertionError: it failed.
    """
    with start(order, environment) as process:
        told, errors = process.communicate(timeout=_END_SECONDS)
    assert process.returncode == 0, errors
    return told.split("\n")[:-1]


def start(order: Order, environment: Mapping[str, str]) -> "subprocess.Popen[str]":
    """Start a process that stores runs until it is killed, or its standard input ends."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.crash.storing", json.dumps(asdict(order))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=_TREE,
        env=environment,
        start_new_session=True,
    )


def _wait_for(kill: StoreKill, order: Order, process: "subprocess.Popen[str]") -> bool:
    folder = Path(order.folder, order.project, order.dataset)
    look = _looks(order.name)[kill.step or Step.HIDDEN]
    known, left = look(folder), kill.count
    deadline = time.monotonic() + (_CLOUD_PATIENCE_SECONDS if order.cloud else _PATIENCE_SECONDS)
    while time.monotonic() < deadline and process.poll() is None:
        now = look(folder)
        left -= len(now - known)
        if left <= 0:
            return True
        known |= now
    return False


def _names(folder: Path) -> AbstractSet[str]:
    with contextlib.suppress(FileNotFoundError):
        return {path.name for path in folder.iterdir()}
    return frozenset()


def _hidden(folder: Path) -> AbstractSet[str]:
    return {name for name in _names(folder) if name.startswith(PREFIX)}


def _hidden_with(*parts: str) -> Callable[[Path], AbstractSet[str]]:
    return lambda folder: {name for name in _hidden(folder) if folder.joinpath(name, *parts).exists()}


def _images(folder: Path) -> AbstractSet[str]:
    return {
        f"{hidden}/{name}"
        for hidden in _hidden(folder)
        for name in _names(folder / hidden / "run" / "generated_images")
    }


def _lines_with(name: str) -> Callable[[Path], AbstractSet[str]]:
    def look(folder: Path) -> AbstractSet[str]:
        with contextlib.suppress(FileNotFoundError):
            lines = (folder / TRACKING_FILE).read_text(encoding="utf-8").splitlines()
            return {line for line in lines if name in line}
        return frozenset()

    return look


def _named(folder: Path) -> AbstractSet[str]:
    """Hidden folders whose run has its name and most likely no line yet."""
    whole = _hidden_with("commit.json")(folder)
    return {name for name in whole if not folder.joinpath(name, "run").exists()}


def _looks(name: str) -> Mapping[Step, Callable[[Path], AbstractSet[str]]]:
    """What shows each step: of any run, but for lines, which tell whose they are."""
    return {
        Step.HIDDEN: _hidden,
        Step.IMAGE: _images,
        Step.ARGUMENTS: _hidden_with("run", "args.json"),
        Step.COMMIT: _hidden_with("commit.json"),
        Step.NAMED: _named,
        Step.LINE: _lines_with(name),
    }


def left_behind(folder: Path) -> Counter[Left]:
    """What dead processes left in a dataset's folder."""
    found: Counter[Left] = Counter()
    tracking = folder / TRACKING_FILE
    lines = tracking.read_text(encoding="utf-8") if tracking.exists() else ""
    for name in _hidden(folder):
        hidden = folder / name
        try:
            line = json.loads((hidden / "commit.json").read_bytes())["line"]
        except (FileNotFoundError, ValueError):
            found[Left.FILES] += 1
        else:
            is_named = not (hidden / "run").exists()
            found[Left.LINE if line in lines else Left.NAMED if is_named else Left.WHOLE] += 1
    return found
