"""A bucket and a dataset for one test, and how to ask Google's clients about them."""

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from google.cloud import bigquery
from google.cloud.storage import Client

from pixaris_sync.sandbox.emulators import Sandbox

if TYPE_CHECKING:
    from pixaris.experiment_handlers.gcp import GCPExperimentHandler

TIMEOUT_SECONDS = 20.0

#: Google's clients take None and then do not retry for minutes; their annotations do not say so.
NO_RETRY: Any = None

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Cloud:
    """A bucket and a dataset that no other test uses.

    Attributes:
        environment: what points Google's clients, Pixaris and pixaris-sync at them.
    """

    project: str
    dataset: str
    bucket: str
    environment: dict[str, str]

    @property
    def dataset_ref(self) -> str:
        """The dataset as Pixaris is told it: with its project."""
        return f"{self.project}.{self.dataset}"

    def handler(self) -> "GCPExperimentHandler":
        """The real handler on this bucket and dataset. It leaves litter in the working directory."""
        from pixaris.experiment_handlers.gcp import GCPExperimentHandler  # noqa: PLC0415 - takes seconds

        return GCPExperimentHandler(
            gcp_project_id=self.project,
            gcp_bq_experiment_dataset=self.dataset_ref,
            gcp_pixaris_bucket_name=self.bucket,
        )

    def table(self, table: str) -> str:
        """A table's full id."""
        return f"{self.dataset_ref}.{table}"


def new_cloud(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    """Create a bucket and a dataset, and let the environment of this process point at them."""
    number = next(_numbers)
    cloud = Cloud(
        project=sandbox.project,
        dataset=f"dataset_{number}",
        bucket=f"bucket-{number}",
        environment={
            **sandbox.environment,
            "PIXARIS_SYNC_GCP_BQ_EXPERIMENT_DATASET": f"{sandbox.project}.dataset_{number}",
            "PIXARIS_SYNC_GCP_PIXARIS_BUCKET_NAME": f"bucket-{number}",
        },
    )
    for name, value in {**cloud.environment, "GRADIO_ANALYTICS_ENABLED": "False"}.items():
        monkeypatch.setenv(name, value)
    with bigquery.Client(project=cloud.project) as client:
        client.create_dataset(cloud.dataset, retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
    Client(project=cloud.project).create_bucket(cloud.bucket, retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
    return cloud
