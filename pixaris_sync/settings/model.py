"""One frozen `Settings`: each value, its unit, its bounds.

Memory, while files are uploaded, is about

    66 MiB for Python, its libraries and the ledger
    + the contents of files that are sent or ready to be: upload_concurrency_limit of them are sent at once,
      192 more at most are ready; together never more than inflight_bytes_limit, and only chunk_bytes of a
      file in a resumable session
    + 64 KiB for each connection: upload_concurrency_limit at most, one for each file that is sent

Contents are sent out of the memory that they were read into. 2,000 files of 100 KB come to 66 + 384 x 0.095 +
192 x 0.0625 = 114 MiB; measured: 90 to 98. Files of 5 MB come to 66 + 128 + 2 = 196 MiB at most; measured:
134, because they leave as fast as they are read.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationInfo,
    field_validator,
)

from pixaris_sync.errors import ConfigurationError
from pixaris_sync.limits.bandwidth import BYTES_PER_SECOND_MIN
from pixaris_sync.limits.fleet import MACHINES_MAX, Fleet
from pixaris_sync.limits.timetable import Timetable, is_timetable
from pixaris_sync.model import Destination
from pixaris_sync.rules.addresses import endpoint_root, host_and_port
from pixaris_sync.rules.contract import DEFAULT_TRACKING_FILE
from pixaris_sync.text import counted

ENVIRONMENT_PREFIX = "PIXARIS_SYNC_"
MEBIBYTE = 1024 * 1024

T = TypeVar("T")
NO_FLAG = "no flag"
#: A setting that the command line has no flag for: the environment or the file sets it, once for a machine.
Unflagged = Annotated[T, NO_FLAG]
Seconds = Annotated[float, Field(gt=0, le=30 * 24 * 3600)]
PatienceSeconds = Annotated[float, Field(ge=0, le=30 * 24 * 3600)]


_BYTES = TypeAdapter(ByteSize)
#: What `ByteSize` is given to read: it would also take "10 MB per minute" for 10 MB.
_RATE = re.compile(r"\s*\d{1,15}(?:\.\d{1,6})?\s*(?:[kmg]i?b|b)?(?:/s)?\s*", re.IGNORECASE | re.ASCII)


def _number(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


def _rate_of_text(value: str) -> int | None:
    if value.strip().lower() in ("none", "off"):
        return None
    if not _RATE.fullmatch(value):
        raise ValueError(
            "must be bytes per second, such as 10MiB or 500KiB, or none, or a timetable such as "
            "08:00,5MB 20:00,none"
        )
    return int(_BYTES.validate_python(value))


def _rate(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not is_timetable(value):
        return _rate_of_text(value)
    timetable(value)
    return " ".join(value.replace(";", " ").split())


def timetable(text: str) -> Timetable:
    """The timetable of a `BandwidthLimit` that is a text.

    Raises:
        ValueError: it is none.
    """
    found = Timetable.parse(text, _rate_of_text)
    if any(entry.rate is not None and entry.rate < BYTES_PER_SECOND_MIN for entry in found.entries):
        raise ValueError(f"has a rate that is too low: the least is {BYTES_PER_SECOND_MIN} bytes per second")
    return found


def _of_this_machine(percent: float | None) -> float | None:
    most = 100 * (os.cpu_count() or 1)
    if percent is not None and percent > most:
        raise ValueError(f"must not be more than {most}: this machine has {counted(most // 100, 'core')}")
    return percent


def _address(value: str) -> str:
    host_and_port(value)
    return value


def _is_http(url: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(url.get_secret_value())
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError("must be an address that begins with https:// or http://")
    return url


#: Bytes per second, also as text with a unit; None, "none" or "off" for no limit; or a `timetable`, which
#: stays a text.
BandwidthLimit = Annotated[
    Annotated[int, Field(ge=BYTES_PER_SECOND_MIN)] | str | None, BeforeValidator(_rate)
]
#: Percent of one core, up to all cores; None or "none" for no limit.
CpuLimit = Annotated[
    Annotated[float, Field(ge=1, allow_inf_nan=False)] | None,
    BeforeValidator(_number),
    AfterValidator(_of_this_machine),
]
#: How many machines share the destination; None or "none" where nobody says.
FleetSize = Annotated[Annotated[int, Field(ge=1, le=MACHINES_MAX)] | None, BeforeValidator(_number)]
#: An HTTP address that no message shows.
SecretAddress = Annotated[SecretStr, AfterValidator(_is_http)] | None

#: An HTTPS address of a host alone, which requests with credentials are sent to.
Endpoint = Annotated[Annotated[str, AfterValidator(endpoint_root)] | None, BeforeValidator(_number)]
#: Host and port, an IPv6 address in brackets; None or "none" for none.
Listen = Annotated[Annotated[str, AfterValidator(_address)] | None, BeforeValidator(_number)]


LogFormat = Literal["text", "json"]


class Settings(BaseModel):
    """Everything that can be set, validated. Units come last in the names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gcp_project_id: str = Field(min_length=1, description="Google Cloud project")
    gcp_bq_experiment_dataset: str = Field(
        min_length=1, description="BigQuery dataset, as project.dataset or dataset"
    )
    gcp_pixaris_bucket_name: str = Field(min_length=1, description="Google Cloud Storage bucket")
    gcp_bq_feedback_table: Unflagged[str | None] = Field(
        default=None,
        description="BigQuery table of Pixaris' feedback, as project.dataset.table, for `ui` alone; "
        "else feedback_tracking in the dataset",
    )
    local_results_folder: Path = Field(
        default=Path("local_results"), description="folder that LocalExperimentHandler writes to"
    )
    state_dir: Path | None = Field(
        default=None, description="folder for the ledger; else $STATE_DIRECTORY, else the user's state folder"
    )
    dataset_tracking_file_name: str = Field(
        default=DEFAULT_TRACKING_FILE, min_length=1, description="name of the tracking files"
    )
    storage_emulator_host: str | None = Field(default=None, description="address of a GCS emulator")
    bigquery_emulator_host: str | None = Field(default=None, description="address of a BigQuery emulator")
    storage_endpoint: Unflagged[Endpoint] = Field(
        default=None,
        description="private endpoint of Google Cloud Storage, such as https://storage-x.p.googleapis.com",
    )
    bigquery_endpoint: Unflagged[Endpoint] = Field(
        default=None, description="private endpoint of BigQuery, such as https://bigquery-x.p.googleapis.com"
    )
    accept_runs_without_images: bool = Field(
        default=False, description="sync runs whose generated_images is absent or empty, not quarantine them"
    )
    accept_expiring_destination: bool = Field(
        default=False,
        description="sync to a bucket or dataset that deletes what is carried there after a time",
    )

    fleet_size: FleetSize = Field(
        default=None,
        description="how many machines share bucket and tables, this one too: it keeps to its part of what "
        "Google allows to all",
    )
    upload_concurrency_limit: int = Field(default=192, ge=1, le=1024, description="uploads at the same time")
    inflight_bytes_limit: int = Field(
        default=128 * MEBIBYTE, ge=MEBIBYTE, description="bytes of files held in memory at the same time"
    )
    bandwidth_limit_bytes_per_second: BandwidthLimit = Field(
        default=None,
        description="bytes per second that all uploads send together, such as 10MiB or 500KiB, "
        "or a timetable such as 08:00,5MB 20:00,none",
    )
    max_cpu_percent: CpuLimit = Field(
        default=None, description="processor time to use, in percent of one core"
    )
    quiet: bool = Field(
        default=True, description="take the lowest priorities for processor and disk, behind training"
    )
    resumable_threshold_bytes: Unflagged[int] = Field(
        default=8 * MEBIBYTE,
        ge=256 * 1024,
        validate_default=True,
        description="larger files go through resumable sessions",
    )
    chunk_bytes: int = Field(
        default=4 * MEBIBYTE,
        ge=256 * 1024,
        multiple_of=256 * 1024,
        validate_default=True,
        description="size of a piece of a resumable upload",
    )
    stream_rows_limit: Unflagged[int] = Field(
        default=500, ge=1, le=50_000, description="rows in a streaming insert"
    )
    load_rows_limit: Unflagged[int] = Field(
        default=10_000, ge=1, le=1_000_000, description="rows in a load job"
    )
    loads_per_day_limit: Unflagged[int] = Field(
        default=1_000, ge=1, le=1_500, description="load jobs per table in 24 hours (BigQuery allows 1,500)"
    )
    load_spacing_seconds: Unflagged[PatienceSeconds] = Field(
        default=5.0, description="while files are uploaded, least time between two load jobs for a table"
    )
    bulk_spacing_seconds: Unflagged[PatienceSeconds] = Field(
        default=60.0, description="the same during a backfill, for every kind of delivery"
    )
    warehouse_threads_limit: Unflagged[int] = Field(
        default=4, ge=1, le=64, description="BigQuery requests at the same time"
    )

    request_timeout_seconds: Seconds = Field(
        default=60.0, description="how long a request to the cloud may stand still"
    )
    job_timeout_seconds: Unflagged[Seconds] = Field(
        default=600.0, description="how long to wait for a load job"
    )
    retry_delay_seconds_min: Unflagged[Seconds] = Field(
        default=1.0, description="wait after the first failure"
    )
    retry_delay_seconds_max: Unflagged[Seconds] = Field(default=300.0, description="wait after many failures")
    sync_attempts_limit: int = Field(
        default=5, ge=1, le=100, description="failures in a row after which sync leaves work for a later try"
    )
    doubt_settle_seconds: Unflagged[PatienceSeconds] = Field(
        default=30.0, description="how long a row in doubt is looked for before it is sent again"
    )
    table_settle_seconds: Unflagged[PatienceSeconds] = Field(
        default=300.0, description="how long rows go by load jobs after a table or a column was added"
    )
    visibility_timeout_seconds: Unflagged[Seconds] = Field(
        default=120.0, description="an accepted row unseen for this long is told as a cause in status"
    )
    young_file_seconds: PatienceSeconds = Field(
        default=60.0, description="a damaged image younger than this may still be written: wait"
    )
    still_folder_seconds: PatienceSeconds = Field(
        default=5.0,
        description="how long the folder of a run that is copied in must be still before its row",
    )
    incomplete_after_seconds: PatienceSeconds = Field(
        default=600.0, description="a run folder without tracking line is incomplete after this time"
    )
    rescan_interval_seconds: Seconds = Field(
        default=60.0, description="how often watch looks at everything, events or not"
    )
    listen: Listen = Field(
        default=None,
        description="HOST:PORT at which watch serves its page, metrics and health, such as 127.0.0.1:9465",
    )
    drain_timeout_seconds: PatienceSeconds = Field(
        default=30.0,
        description="how long watch may take to stop: to finish what is in flight, or all with sync_at_stop",
    )
    sync_at_stop: bool = Field(
        default=False,
        description="when watch is told to stop, carry all that is stored by then first, as sync does, "
        "within drain_timeout_seconds",
    )
    metrics_textfile: Path | None = Field(
        default=None,
        description="file to write metrics to, for node_exporter's textfile collector (*.prom)",
    )
    heartbeat_url: SecretAddress = Field(
        default=None, description="address to ask as long as everything is synced; it may hold a secret"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least severe message to print"
    )
    log_format: LogFormat = Field(
        default="text", description="messages as lines for people, or as JSON, an object a line"
    )

    @field_validator("dataset_tracking_file_name")
    @classmethod
    def _is_bare_name(cls, value: str) -> str:
        if "/" in value or "\\" in value or value in (".", ".."):
            raise ValueError("must be a bare file name")
        return value

    @field_validator("gcp_pixaris_bucket_name")
    @classmethod
    def _is_bucket(cls, value: str) -> str:
        if "/" in value:
            raise ValueError("it must be the bucket's name alone, without gs:// and without a folder")
        return value

    @field_validator("metrics_textfile")
    @classmethod
    def _is_file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.name:
            raise ValueError("must name a file")
        return value

    @field_validator("local_results_folder", "state_dir", "metrics_textfile")
    @classmethod
    def _at_home(cls, value: Path | None) -> Path | None:
        """``~`` is the home folder also where no shell replaced it: in a file, in a service's variables."""
        try:
            return None if value is None else value.expanduser()
        except RuntimeError:
            raise ValueError("it begins with ~, and there is no such home folder") from None

    @field_validator("resumable_threshold_bytes", "chunk_bytes")
    @classmethod
    def _fits_into_memory(cls, value: int, info: ValidationInfo) -> int:
        """What is held at once by one upload; more than the limit would be held all the same."""
        limit = info.data.get("inflight_bytes_limit")
        if limit is not None and value > limit:
            raise ValueError(f"must not be more than inflight_bytes_limit ({limit})")
        return value

    @property
    def destination(self) -> Destination:
        """Where runs go."""
        return Destination(
            gcp_project=self.gcp_project_id,
            bucket=self.gcp_pixaris_bucket_name,
            bq_dataset=self.gcp_bq_experiment_dataset,
        )

    @property
    def fleet(self) -> Fleet:
        """The machines that share the destination; where nobody says how many, this one alone."""
        return Fleet(self.fleet_size or 1)

    @property
    def state_folder(self) -> Path:
        """The folder for ledgers: setting, else systemd's, else the platform's; not made here."""
        if self.state_dir is not None:
            return self.state_dir
        # systemd separates several folders by colons; ours is the first.
        if given := os.environ.get("STATE_DIRECTORY", "").split(":")[0]:
            return Path(given)
        from platformdirs import user_state_path  # noqa: PLC0415 - often the folder is named

        try:
            return user_state_path("pixaris-sync", appauthor=False)
        except RuntimeError:
            raise ConfigurationError(
                "find",
                "the state folder",
                "this user has no home folder",
                hint="choose a folder with --state-dir",
            ) from None


def environment_variable(key: str) -> str:
    """The environment variable that sets this key; emulators keep the names that Google's clients know."""
    return key.upper() if key.endswith("_emulator_host") else ENVIRONMENT_PREFIX + key.upper()
