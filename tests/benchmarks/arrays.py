"""A folder that a Slurm array carries: how much faster several tasks are than one, and what is left of kills.

Slurm is a real one, on this machine; the scripts are those of ``deploy/slurm``, unchanged.
"""

import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pixaris_sync.settings.model import environment_variable
from tests.benchmarks.cloud import BUCKET, Cloud, Stored, running_cloud
from tests.benchmarks.contenders import CONTENDERS, OURS, Place
from tests.benchmarks.scratch import scratch_folder
from tests.benchmarks.sets import SetShape, made_set
from tests.support.slurm import Job, Slurm, running_slurm, send

SCRIPTS: Final = Path(__file__).parents[2] / "deploy" / "slurm"
#: Kills come while files are being carried, and not after the last one.
_KILLED_UNTIL: Final = 0.9
_LOOK_SECONDS: Final = 0.1
_IMAGES_PER_RUN: Final = 10
_IMAGE_BYTES: Final = 1_000


class ArrayFailedError(RuntimeError):
    """A job did not end as it should."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What became of a folder.

    Attributes:
        tasks: of the array.
        files_seconds: from the submission to the end of the last task.
        rows_seconds: what the last job took from then on.
        kills: by how, how many there were.
        restarts: how often a task began again.
        stored: what the cloud was made to do.
        digest: of all objects; see `RunSet.digest`.
    """

    tasks: int
    files_seconds: float
    rows_seconds: float
    kills: Mapping[str, int]
    restarts: int
    stored: Stored
    digest: str

    def text(self, files: int) -> str:
        """In a few lines."""
        tables = self.stored.tables.values()
        rate = files / self.files_seconds
        kills = ", ".join(f"{count} of a {how}" for how, count in self.kills.items()) or "none"
        rows, load_jobs = sum(t["rows"] for t in tables), max(t["load_jobs"] for t in tables)
        lines = (
            f"{files:,} files, tasks: {self.tasks}",
            f"files: {self.files_seconds:.1f} s, {rate:.0f} a second; then rows: {self.rows_seconds:.1f} s",
            f"kills: {kills}; restarts: {self.restarts}",
            f"objects stored: {self.stored.stored:,}; uploads refused as repeated: {self.stored.refused:,}",
            f"rows: {rows:,} in {len(tables)} tables; load jobs of a table, at most: {load_jobs}",
        )
        return "\n  ".join(lines)


class Killer:
    """Kills what runs, whenever the cloud has so many objects more; what a task had is killed without a word.

    Args:
        slurm: that runs it.
        disk: of the node; it is lost with the node.
        instants: how many objects there are at each kill.
        chance: draws what is killed, and how.

    Attributes:
        kills: by how, how many there were.
    """

    def __init__(self, slurm: Slurm, disk: Path, instants: Sequence[int], chance: random.Random) -> None:
        self._slurm = slurm
        self._disk = disk
        self._instants = sorted(instants)
        self._chance = chance
        nodes = -(-len(instants) // 10)
        self._kinds = ["node"] * nodes
        self._kinds += (["process", "task"] * len(instants))[: len(instants) - nodes]
        chance.shuffle(self._kinds)
        self.kills: Counter[str] = Counter()

    def look(self, jobs: Sequence[Job], stored: int) -> None:
        """Kill, if it is time to."""
        running = [job for job in jobs if job.state == "RUNNING"]
        if not self._instants or stored < self._instants[0] or not running:
            return
        how = self._kinds[-1]
        victim = self._chance.choice(running)
        match how:
            case "process":
                killed = self._kill_process(victim)
            case "task":
                killed = self._kill([victim], lambda: self._slurm.requeue(victim))
            case _:
                killed = self._kill(running, self._lose_node)
        if killed:
            self.kills[how] += 1
            self._instants.pop(0)
            self._kinds.pop()

    @property
    def is_done(self) -> bool:
        """Whether there were all kills."""
        return not self._instants

    def _kill_process(self, job: Job) -> bool:
        """End pixaris-sync alone, as the kernel does where memory is short: the script requeues the task."""
        return any(
            send(process, signal.SIGKILL) for process in self._slurm.processes(job) if _is_ours(process)
        )

    def _kill(self, jobs: Sequence[Job], requeue: Callable[[], None]) -> bool:
        """End all that jobs have, before their scripts can tell Slurm, and requeue them."""
        processes = [process for job in jobs for process in self._slurm.processes(job)]
        ours = set(filter(_is_ours, processes))
        if not ours:
            return False
        for process in processes:
            send(process, signal.SIGKILL if process in ours else signal.SIGSTOP)
        requeue()
        for process in processes:
            send(process, signal.SIGKILL)
        return True

    def _lose_node(self) -> None:
        """Lose the node and all that was on it."""
        self._slurm.lose_node()
        shutil.rmtree(self._disk)
        self._disk.mkdir()


def _is_ours(process: int) -> bool:
    """Whether a process is pixaris-sync, and not the script around it."""
    try:
        return b"pixaris-sync\0backfill" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False


def array_shape(files: int, datasets: int) -> SetShape:
    """A folder of so many small files, of which half are in one of the datasets."""
    runs = files // _IMAGES_PER_RUN
    return SetShape(
        f"array-{runs}-{datasets}",
        runs=runs,
        images_per_run=_IMAGES_PER_RUN,
        image_bytes=_IMAGE_BYTES,
        datasets=datasets,
        uneven=True,
    )


class User:
    """Who submits jobs that carry a folder.

    Args:
        slurm: that runs them.
        place: the folder, the cloud, and a scratch folder.
        settings: further ones, by their keys.

    Attributes:
        slurm: the same.
        disk: of the node; the ledgers of tasks lie on it.
        environment: of the user.
    """

    def __init__(self, slurm: Slurm, place: Place, settings: Mapping[str, object]) -> None:
        self.slurm = slurm
        self.disk = place.scratch / "disk"
        self._folder = place.scratch / "submitted"
        self.disk.mkdir()
        self._folder.mkdir()
        inherited = {
            name: text for name, text in os.environ.items() if not name.startswith(("PIXARIS_", "SLURM_"))
        }
        self.environment = {
            **inherited,
            **CONTENDERS[OURS].environment(place),
            # Last in line for the processor, it would wait for whatever else this machine does.
            "PIXARIS_SYNC_QUIET": "false",
            **{environment_variable(key): str(value) for key, value in settings.items()},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "TMPDIR": str(self.disk),
        }
        # The scripts choose one.
        del self.environment["PIXARIS_SYNC_STATE_DIR"]

    def submit(self, tasks: int) -> tuple[str, str]:
        """Submit an array and the last job by the script for that; their numbers."""
        if tasks == 1:
            # An array of one is none for pixaris-sync: unless it is told so, it brings the rows too.
            array = self.sbatch("--array=0-0", str(SCRIPTS / "files.sbatch"), "--shard", "1/1")
            return array, self.sbatch(f"--dependency=afterok:{array}", str(SCRIPTS / "rows.sbatch"))
        told = self.slurm.submit(
            (str(SCRIPTS / "submit.sh"), str(tasks)), environment=self.environment, folder=self._folder
        )
        array, last = re.findall(r"\b(?:array|job) (\d+)", told)
        return array, last

    def sbatch(self, *arguments: str) -> str:
        """Submit one script by sbatch with these arguments; its number."""
        return self.slurm.submit(
            ("sbatch", "--parsable", *arguments), environment=self.environment, folder=self._folder
        ).strip()

    def logs(self) -> str:
        """The ends of what the jobs have printed."""
        logs = sorted(self._folder.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in logs)

    def wait_for(
        self, number: str, deadline: float, beside: Callable[[Sequence[Job]], None]
    ) -> Sequence[Job]:
        """Wait until a job or an array has ended, and do something beside it; how its jobs are then.

        Raises:
            ArrayFailedError: it has not by `deadline`, of the monotonic clock.
        """
        jobs = self.slurm.jobs(number)
        while not all(job.has_ended for job in jobs):
            if time.monotonic() > deadline:
                raise ArrayFailedError(f"not ended in time: {jobs}\n{self.logs()}")
            beside(jobs)
            time.sleep(_LOOK_SECONDS)
            jobs = self.slurm.jobs(number)
        return jobs


def carry(
    user: User,
    cloud: Cloud,
    files: int,
    *,
    tasks: int,
    kills: int = 0,
    seed: int = 0,
    seconds_max: float = 3_600,
) -> Carried:
    """Carry a folder as ``deploy/slurm`` does.

    Args:
        user: who submits the jobs.
        cloud: takes what is carried.
        files: how many there are.
        tasks: of the array.
        kills: so many, spread over the files.
        seed: of their instants and kinds.
        seconds_max: for all of it.

    Raises:
        ArrayFailedError: a job did not end well; the message has its log.
    """
    slurm, chance = user.slurm, random.Random(seed)  # noqa: S311 - kills need no secrecy
    killer = Killer(slurm, user.disk, chance.sample(range(1, int(files * _KILLED_UNTIL)), kills), chance)
    begun = time.monotonic()
    deadline = begun + seconds_max
    array, last = user.submit(tasks)

    def look(jobs: Sequence[Job]) -> None:
        slurm.hasten(jobs)
        if not killer.is_done:
            killer.look(jobs, cloud.stored().stored)

    ended = user.wait_for(array, deadline, look)
    files_seconds = time.monotonic() - begun
    ended = [*ended, *user.wait_for(last, deadline, slurm.hasten)]
    rows_seconds = time.monotonic() - begun - files_seconds
    if any(job.state != "COMPLETED" for job in ended):
        raise ArrayFailedError(f"{ended}\n{user.logs()}")
    restarts = sum(job.restarts for job in ended)
    stored, digest = cloud.stored(), cloud.inventory().digest
    return Carried(tasks, files_seconds, rows_seconds, killer.kills, restarts, stored, digest)


def measure_arrays(
    cache: Path, shape: SetShape, *, tasks: int, kills: int, seed: int, latency_ms: float, at_once: int
) -> Iterator[str]:
    """Carry a folder by one task, by several, and by several that are killed; how they compare, in words.

    Each task uploads `at_once` files at a time, so that what bounds it is the latency, and not this machine.

    Raises:
        ArrayFailedError: a job did not end well, or the cloud does not hold what it should.
    """
    runs = made_set(shape, cache, bucket=BUCKET)
    seconds = []
    with running_slurm() as slurm, running_cloud(None) as cloud:
        for count, killed in ((1, 0), (tasks, 0), (tasks, kills)):
            cloud.reset(latency_ms)
            with scratch_folder(cache) as scratch:
                place = Place(runs, cloud.address, scratch, latency_ms)
                user = User(slurm, place, {"upload_concurrency_limit": at_once})
                carried = carry(user, cloud, shape.files, tasks=count, kills=killed, seed=seed)
            seconds.append(carried.files_seconds)
            yield carried.text(shape.files)
            if carried.digest != runs.digest:
                raise ArrayFailedError("the bucket does not hold the folder's files")
    one, several, killed_too = seconds
    yield (
        f"{tasks} tasks: {one / several:.2f} times as fast as one task; "
        f"with {kills} kills {one / killed_too:.2f} times"
    )
