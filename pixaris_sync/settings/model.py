"""One frozen `Settings`: each value, its unit, its bounds.

Memory, while files are uploaded, is about

    66 MiB for Python, its libraries and the ledger
    + the contents of files that are sent or ready to be: upload_concurrency_limit of them are sent at once,
      192 more at most are ready; together never more than inflight_bytes_limit, and only chunk_bytes of a
      file in a resumable session
    + 64 KiB for each connection: upload_concurrency_limit at most, one for each file that is sent

Contents are sent out of the memory that they were read into. 2,000 files of 100 KB come to 66 + 384 x 0.095 +
192 x 0.0625 = 114 MiB; measured: 86 to 101. Files of 5 MB come to 66 + 128 + 2 = 196 MiB at most; measured:
122 to 142, because they leave as fast as they are read.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Self

from msgspec import Meta, Struct, structs

from pixaris_sync.errors import ConfigurationError
from pixaris_sync.limits.fleet import Fleet
from pixaris_sync.model import Destination
from pixaris_sync.rules.contract import DEFAULT_TRACKING_FILE
from pixaris_sync.settings.kinds import (
    KIBIBYTE,
    MEBIBYTE,
    BandwidthLimit,
    BucketName,
    CpuLimit,
    Endpoint,
    FileName,
    FleetSize,
    Folder,
    Listen,
    LogFormat,
    LogLevel,
    OptionalFile,
    OptionalFolder,
    PatienceSeconds,
    Seconds,
    SecretAddress,
    Text,
)

ENVIRONMENT_PREFIX = "PIXARIS_SYNC_"
#: A setting that the command line has no flag for: the environment or the file sets it, once for a machine.
NO_FLAG = "no flag"


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that can be set. Units come last in the names.

    What it is made of is not checked: `fields.read_values` does that.
    """

    gcp_project_id: Annotated[Text, Meta(description="Google Cloud project")]
    gcp_bq_experiment_dataset: Annotated[
        Text, Meta(description="BigQuery dataset, as project.dataset or dataset")
    ]
    gcp_pixaris_bucket_name: Annotated[BucketName, Meta(description="Google Cloud Storage bucket")]
    gcp_bq_feedback_table: Annotated[
        str | None,
        Meta(
            description="BigQuery table of Pixaris' feedback, as project.dataset.table, for `ui` alone; "
            "else feedback_tracking in the dataset"
        ),
        NO_FLAG,
    ] = None
    local_results_folder: Annotated[
        Folder, Meta(description="folder that LocalExperimentHandler writes to")
    ] = Path("local_results")
    state_dir: Annotated[
        OptionalFolder,
        Meta(description="folder for the ledger; else $STATE_DIRECTORY, else the user's state folder"),
    ] = None
    dataset_tracking_file_name: Annotated[FileName, Meta(description="name of the tracking files")] = (
        DEFAULT_TRACKING_FILE
    )
    storage_emulator_host: Annotated[str | None, Meta(description="address of a GCS emulator")] = None
    bigquery_emulator_host: Annotated[str | None, Meta(description="address of a BigQuery emulator")] = None
    storage_endpoint: Annotated[
        Endpoint,
        Meta(
            description="private endpoint of Google Cloud Storage, such as https://storage-x.p.googleapis.com"
        ),
        NO_FLAG,
    ] = None
    bigquery_endpoint: Annotated[
        Endpoint,
        Meta(description="private endpoint of BigQuery, such as https://bigquery-x.p.googleapis.com"),
        NO_FLAG,
    ] = None
    accept_runs_without_images: Annotated[
        bool, Meta(description="sync runs whose generated_images is absent or empty, not quarantine them")
    ] = False
    accept_expiring_destination: Annotated[
        bool, Meta(description="sync to a bucket or dataset that deletes what is carried there after a time")
    ] = False
    fleet_size: Annotated[
        FleetSize,
        Meta(
            description="how many machines share bucket and tables, this one too: it keeps to its part of "
            "what Google allows to all"
        ),
    ] = None
    upload_concurrency_limit: Annotated[int, Meta(ge=1, le=1024, description="uploads at the same time")] = (
        192
    )
    inflight_bytes_limit: Annotated[
        int, Meta(ge=MEBIBYTE, description="bytes of files held in memory at the same time")
    ] = 128 * MEBIBYTE
    bandwidth_limit_bytes_per_second: Annotated[
        BandwidthLimit,
        Meta(
            description="bytes per second that all uploads send together, such as 10MiB or 500KiB, "
            "or a timetable such as 08:00,5MB 20:00,none"
        ),
    ] = None
    max_cpu_percent: Annotated[
        CpuLimit, Meta(description="processor time to use, in percent of one core")
    ] = None
    quiet: Annotated[
        bool, Meta(description="take the lowest priorities for processor and disk, behind training")
    ] = True
    resumable_threshold_bytes: Annotated[
        int, Meta(ge=256 * KIBIBYTE, description="larger files go through resumable sessions"), NO_FLAG
    ] = 8 * MEBIBYTE
    chunk_bytes: Annotated[
        int,
        Meta(
            ge=256 * KIBIBYTE, multiple_of=256 * KIBIBYTE, description="size of a piece of a resumable upload"
        ),
    ] = 4 * MEBIBYTE
    stream_rows_limit: Annotated[
        int, Meta(ge=1, le=50_000, description="rows in a streaming insert"), NO_FLAG
    ] = 500
    load_rows_limit: Annotated[int, Meta(ge=1, le=1_000_000, description="rows in a load job"), NO_FLAG] = (
        10_000
    )
    loads_per_day_limit: Annotated[
        int,
        Meta(ge=1, le=1_500, description="load jobs per table in 24 hours (BigQuery allows 1,500)"),
        NO_FLAG,
    ] = 1_000
    load_spacing_seconds: Annotated[
        PatienceSeconds,
        Meta(description="while files are uploaded, least time between two load jobs for a table"),
        NO_FLAG,
    ] = 5.0
    bulk_spacing_seconds: Annotated[
        PatienceSeconds, Meta(description="the same during a backfill, for every kind of delivery"), NO_FLAG
    ] = 60.0
    warehouse_threads_limit: Annotated[
        int, Meta(ge=1, le=64, description="BigQuery requests at the same time"), NO_FLAG
    ] = 4
    request_timeout_seconds: Annotated[
        Seconds, Meta(description="how long a request to the cloud may stand still")
    ] = 60.0
    job_timeout_seconds: Annotated[Seconds, Meta(description="how long to wait for a load job"), NO_FLAG] = (
        600.0
    )
    retry_delay_seconds_min: Annotated[Seconds, Meta(description="wait after the first failure"), NO_FLAG] = (
        1.0
    )
    retry_delay_seconds_max: Annotated[Seconds, Meta(description="wait after many failures"), NO_FLAG] = 300.0
    sync_attempts_limit: Annotated[
        int, Meta(ge=1, le=100, description="failures in a row after which sync leaves work for a later try")
    ] = 5
    doubt_settle_seconds: Annotated[
        PatienceSeconds,
        Meta(description="how long a row in doubt is looked for before it is sent again"),
        NO_FLAG,
    ] = 30.0
    table_settle_seconds: Annotated[
        PatienceSeconds,
        Meta(description="how long rows go by load jobs after a table or a column was added"),
        NO_FLAG,
    ] = 300.0
    visibility_timeout_seconds: Annotated[
        Seconds,
        Meta(description="an accepted row unseen for this long is told as a cause in status"),
        NO_FLAG,
    ] = 120.0
    young_file_seconds: Annotated[
        PatienceSeconds, Meta(description="a damaged image younger than this may still be written: wait")
    ] = 60.0
    still_folder_seconds: Annotated[
        PatienceSeconds,
        Meta(description="how long the folder of a run that is copied in must be still before its row"),
    ] = 5.0
    incomplete_after_seconds: Annotated[
        PatienceSeconds, Meta(description="a run folder without tracking line is incomplete after this time")
    ] = 600.0
    rescan_interval_seconds: Annotated[
        Seconds, Meta(description="how often watch looks at everything, events or not")
    ] = 60.0
    listen: Annotated[
        Listen,
        Meta(
            description="HOST:PORT at which watch serves its page, metrics and health, such as 127.0.0.1:9465"
        ),
    ] = None
    drain_timeout_seconds: Annotated[
        PatienceSeconds,
        Meta(
            description="how long watch may take to stop: to finish what is in flight, or all with "
            "sync_at_stop"
        ),
    ] = 30.0
    sync_at_stop: Annotated[
        bool,
        Meta(
            description="when watch is told to stop, carry all that is stored by then first, as sync does, "
            "within drain_timeout_seconds"
        ),
    ] = False
    metrics_textfile: Annotated[
        OptionalFile,
        Meta(description="file to write metrics to, for node_exporter's textfile collector (*.prom)"),
    ] = None
    heartbeat_url: Annotated[
        SecretAddress,
        Meta(description="address to ask as long as everything is synced; it may hold a secret"),
    ] = None
    log_level: Annotated[LogLevel, Meta(description="least severe message to print")] = "info"
    log_format: Annotated[
        LogFormat, Meta(description="messages as lines for people, or as JSON, an object a line")
    ] = "text"

    def having(self, **changes: Any) -> Self:  # noqa: ANN401 - values of any kind
        """These settings, with some of them changed."""
        return structs.replace(self, **changes)

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
