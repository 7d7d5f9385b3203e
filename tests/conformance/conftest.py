"""One sandbox for the cloud's half, and a bucket and a dataset in it for whoever asks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from google.cloud.storage import Client

from pixaris_sync.sandbox.emulators import Sandbox
from tests.conformance.implementations import OURS, handler_class
from tests.integration.cloud import Cloud, new_cloud
from tests.support.stored_runs import Reader


@dataclass(frozen=True, slots=True)
class Destination:
    """A bucket and a dataset, and the handlers on them.

    Attributes:
        cloud: which they are.
        folder: an empty one of this machine, for what they leave on it.
    """

    cloud: Cloud
    folder: Path

    def handler(self, implementation: str) -> Any:
        """An implementation's handler for it, with the documented arguments."""
        spool = {"spool_folder": str(self.folder / "spool")} if implementation == OURS else {}
        made = handler_class(implementation, "GCPExperimentHandler")
        return made(self.cloud.project, self.cloud.dataset_ref, self.cloud.bucket, **spool)

    @property
    def objects(self) -> dict[str, bytes]:
        """All objects by name."""
        bucket = Client(project=self.cloud.project).bucket(self.cloud.bucket)
        return {blob.name: blob.download_as_bytes() for blob in bucket.list_blobs()}

    def put(self, name: str, content: bytes) -> None:
        """Write an object, as somebody else."""
        Client(project=self.cloud.project).bucket(self.cloud.bucket).blob(name).upload_from_string(content)

    def frame(self, implementation: str, project: str, dataset: str) -> pd.DataFrame:
        """A dataset's table as an implementation reads it, in the order of the runs' names."""
        return Reader(self.handler(implementation)).frame(project, dataset)

    def bare(self, text: str) -> str:
        """A text without what differs between destinations."""
        return text.replace(f"/{self.cloud.bucket}/", "/BUCKET/")


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """Both emulators, started once."""
    with Sandbox() as running:
        yield running


@pytest.fixture(scope="module")
def new_destination(
    sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Destination]]:
    """Makes destinations; the environment points at the sandbox, and litter goes to a folder of ours."""
    with pytest.MonkeyPatch.context() as patch:

        def make() -> Destination:
            folder = tmp_path_factory.mktemp("destination")
            patch.chdir(folder)
            patch.setenv("PIXARIS_SYNC_STATE_DIR", str(folder / "state"))
            return Destination(new_cloud(sandbox, patch), folder)

        yield make


@pytest.fixture
def destination(new_destination: Callable[[], Destination]) -> Destination:
    """A bucket and a dataset that no other test uses."""
    return new_destination()
