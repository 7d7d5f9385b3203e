"""Who is measured: pixaris-sync, and what a user would pick instead.

Each is started as a whole program, with its own defaults but for what its name says. All carry the same files
to the same names; pixaris-sync, ``GCPExperimentHandler`` and this package's handler of that name
(``handlers``) store rows too.
"""

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pixaris_sync.sandbox.emulators import write_stand_in_credentials
from tests.benchmarks.cloud import BUCKET, DATASET, PROJECT
from tests.benchmarks.processes import Measured
from tests.benchmarks.sets import RunSet

_WORKERS = Path(__file__).parent / "workers"
TREE = Path(__file__).parents[2]

OURS = "pixaris-sync"
#: Clients that do nothing but send files; behind a slash follows how many at once.
RAW, OBSTORE = "gcloud-aio", "obstore"

#: How much is given to whoever is too slow for whole sets.
_SUBSET_FILES, _SUBSET_BYTES = 200, 100_000_000


@dataclass(frozen=True, slots=True)
class Place:
    """What one run of a contender is given.

    Attributes:
        runs: the set.
        address: of the server.
        scratch: an empty folder of its own.
        latency_ms: of every answer.
        is_shared: others compute on its core.
    """

    runs: RunSet
    address: str
    scratch: Path
    latency_ms: float
    is_shared: bool = False


@dataclass(frozen=True, slots=True)
class Contender:
    """A program to measure.

    Attributes:
        name: what it is called in tables.
        command: how it is started.
        module: the Python module that it needs, if any.
        program: the program that it needs, if any.
        both_cores: it spreads over processes, and is given the server's core too.
        stores_rows: it stores rows in BigQuery.
        one_by_one: it stores one run after another, and is given only a part of a larger set; the rest of the
            time is extrapolated from what it prints.
        keeps_names: its objects are named as pixaris-sync's.
        compares: run again, it looks what is new.
        files_most: sets of more files are not given to it: they would take minutes.
        wants_md5: it refuses answers without MD5 checksums.
    """

    name: str
    command: Callable[[Place], Sequence[str]]
    module: str = ""
    program: str = ""
    both_cores: bool = False
    stores_rows: bool = False
    one_by_one: bool = False
    keeps_names: bool = True
    compares: bool = False
    files_most: int | None = None
    wants_md5: bool = False

    def missing(self) -> str:
        """What has to be there for it to run, and is not; or nothing."""
        if self.module and importlib.util.find_spec(self.module.partition(".")[0]) is None:
            return f"the Python package {self.module} is not installed"
        if self.program and shutil.which(self.program) is None:
            return f"{self.program} is not installed"
        return ""

    def carries(self, runs: RunSet) -> bool:
        """Whether it is given this set."""
        return self.files_most is None or runs.shape.files <= self.files_most

    def environment(self, place: Place) -> Mapping[str, str]:
        """Variables that send it to the benchmark's server, and to no real service."""
        credentials = place.scratch / "credentials.json"
        write_stand_in_credentials(credentials)
        inherited = os.environ.get("PYTHONPATH", "")
        return {
            "PYTHONPATH": f"{TREE}:{inherited}" if inherited else str(TREE),
            "HOME": str(place.scratch),
            "STORAGE_EMULATOR_HOST": place.address,
            "BIGQUERY_EMULATOR_HOST": place.address,
            "GOOGLE_APPLICATION_CREDENTIALS": str(credentials),
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "PIXARIS_SYNC_GCP_PROJECT_ID": PROJECT,
            "PIXARIS_SYNC_GCP_BQ_EXPERIMENT_DATASET": f"{PROJECT}.{DATASET}",
            "PIXARIS_SYNC_GCP_PIXARIS_BUCKET_NAME": BUCKET,
            "PIXARIS_SYNC_LOCAL_RESULTS_FOLDER": str(place.runs.folder),
            "PIXARIS_SYNC_STATE_DIR": str(place.scratch / "state"),
            # A set that was made just now, with names of years, looks as if it were being copied in.
            "PIXARIS_SYNC_STILL_FOLDER_SECONDS": "0",
            "CLOUDSDK_CONFIG": str(place.scratch / "gcloud"),
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{place.address}/storage/v1/",
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "CLOUDSDK_CORE_DISABLE_PROMPTS": "true",
            "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
            "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
            "CLOUDSDK_CORE_PROJECT": PROJECT,
            # It would ask the real service, which no emulator's address redirects, what kind of bucket it is.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "NO_GCE_CHECK": "true",
        }

    def subset(self, place: Place) -> int:
        """How many runs of the set it is given; the others are extrapolated."""
        return _runs_for_the_slow(place) if self.one_by_one else place.runs.shape.runs

    def scaled(self, measured: Measured, place: Place) -> Measured:
        """What the whole set would have taken, where only a part was given."""
        runs = place.runs.shape.runs
        if self.subset(place) == runs:
            return measured
        spent = json.loads(measured.output)
        more = runs / spent["runs"] - 1
        return Measured(
            measured.wall_seconds + more * spent["seconds"],
            measured.cpu_seconds + more * spent["cpu_seconds"],
            measured.peak_bytes,
            "",
        )


def _sync(word: str) -> Callable[[Place], Sequence[str]]:
    # Last in line for a core that somebody else wants too, it would not be compared with the others.
    return lambda place: (
        *(sys.executable, "-m", "pixaris_sync", word, "--json"),
        *(["--no-quiet"] if place.is_shared else []),
    )


def _worker(name: str, *more: str) -> Callable[[Place], Sequence[str]]:
    return lambda place: (sys.executable, str(_WORKERS / name), str(place.runs.folder), BUCKET, *more)


def _handler(module: str) -> Callable[[Place], Sequence[str]]:
    def command(place: Place) -> Sequence[str]:
        worker = str(_WORKERS / "gcp_handler.py")
        runs = str(_runs_for_the_slow(place))
        return (sys.executable, worker, module, str(place.runs.folder), PROJECT, DATASET, BUCKET, runs)

    return command


def _runs_for_the_slow(place: Place) -> int:
    """How many runs are enough for who stores one file after another: after some, the rest is known."""
    shape = place.runs.shape
    files_most = min(_SUBSET_FILES, _SUBSET_BYTES // shape.image_bytes)
    return max(1, min(shape.runs, files_most // shape.images_per_run))


def _gcloud(place: Place) -> Sequence[str]:
    only = ("--exclude", r".*(args\.json|\.jsonl)$")
    return ("gcloud", "storage", "rsync", "-r", *only, str(place.runs.folder), f"gs://{BUCKET}/results")


def _rclone(transfers: int) -> Callable[[Place], Sequence[str]]:
    """Anonymous, with the bucket taken as it is; ``--fast-list`` and many checkers are its best."""

    def command(place: Place) -> Sequence[str]:
        where = (
            "--config",
            str(place.scratch / "none.conf"),
            "--gcs-endpoint",
            f"{place.address}/storage/v1/",
        )
        access = ("--gcs-anonymous", "--gcs-bucket-policy-only", "--gcs-no-check-bucket")
        pace = ("--transfers", str(transfers), "--checkers", "64", "--fast-list")
        only = ("--exclude", "args.json", "--exclude", "*.jsonl")
        ends = (str(place.runs.folder), f":gcs:{BUCKET}/results")
        return ("rclone", "copy", *where, *access, *pace, *only, *ends)

    return command


_GOOGLE, _AIO = "google.cloud.storage", "gcloud.aio.storage"
_GCLOUD = Contender(
    "gcloud rsync",
    _gcloud,
    program="gcloud",
    both_cores=True,
    compares=True,
    files_most=5000,
    wants_md5=True,
)

CONTENDERS = {
    contender.name: contender
    for contender in (
        Contender(OURS, _sync("sync"), stores_rows=True, compares=True),
        Contender("pixaris-sync backfill", _sync("backfill"), stores_rows=True, compares=True),
        *(
            # Its runs' names have the day on which they are stored.
            Contender(name, _handler(module), module, stores_rows=True, one_by_one=True, keeps_names=False)
            for name, module in (
                ("GCPExperimentHandler", "pixaris.experiment_handlers.gcp"),
                ("handlers", "pixaris_sync.handlers"),
            )
        ),
        Contender("transfer_manager/8", _worker("transfer_manager.py", "8"), module=_GOOGLE),
        Contender("transfer_manager/32", _worker("transfer_manager.py", "32"), module=_GOOGLE),
        Contender("gcsfs", _worker("gcsfs_put.py"), module="gcsfs"),
        Contender(f"{RAW}/64", _worker("raw_gcloud_aio.py", "64"), module=_AIO),
        Contender(f"{RAW}/128", _worker("raw_gcloud_aio.py", "128"), module=_AIO),
        Contender(f"{OBSTORE}/64", _worker("obstore_put.py", "64"), module="obstore"),
        Contender(f"{OBSTORE}/128", _worker("obstore_put.py", "128"), module="obstore"),
        _GCLOUD,
        Contender("rclone/4", _rclone(4), program="rclone", compares=True),
        Contender("rclone/32", _rclone(32), program="rclone", compares=True),
    )
}
