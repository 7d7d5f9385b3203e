"""Emulated BigQuery with a project and a dataset in it, and plain requests to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.emulators import Running, running_program, running_sandbox

PROJECT = "contract-project"
DATASET = "contract_dataset"
_DATASET_PATH = f"/bigquery/v2/projects/{PROJECT}/datasets/{DATASET}"


@dataclass(frozen=True, slots=True)
class EmulatedBigQuery:
    """A running emulator, and a project with a dataset in it."""

    running: Running
    project: str
    dataset: str

    def request(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send JSON, or nothing, to ``/bigquery/v2/projects/<project>/<path>``; the JSON of the answer."""
        return self.running.request(method, f"/bigquery/v2/projects/{self.project}/{path}", body)


@contextmanager
def running_sandbox_bigquery(folder: Path) -> Iterator[EmulatedBigQuery]:
    """The sandbox's BigQuery; its log goes to `folder`."""
    with running_sandbox("bigquery", "--project", PROJECT, folder=folder) as running:
        emulator = EmulatedBigQuery(running, PROJECT, DATASET)
        reference = {"projectId": PROJECT, "datasetId": DATASET}
        emulator.request("POST", "datasets", {"datasetReference": reference})
        yield emulator


@contextmanager
def running_bigquery_emulator(program: str, folder: Path) -> Iterator[EmulatedBigQuery]:
    """The program bigquery-emulator; its log goes to `folder`."""
    with _running(program, "--log-level=info", folder=folder) as emulator:
        yield emulator


@contextmanager
def running_local_bigquery(program: str, folder: Path) -> Iterator[EmulatedBigQuery]:
    """The program local-bigquery; its log and its data go to `folder`."""
    with _running(program, f"--data-dir={folder / 'data'}", folder=folder) as emulator:
        yield emulator


@contextmanager
def _running(program: str, *arguments: str, folder: Path) -> Iterator[EmulatedBigQuery]:
    """A program that takes the arguments of bigquery-emulator, and these of its own."""

    def with_ports(port: int, grpc_port: int) -> list[str]:
        return [
            f"--project={PROJECT}",
            f"--dataset={DATASET}",
            "--host=127.0.0.1",
            f"--port={port}",
            f"--grpc-port={grpc_port}",
            *arguments,
        ]

    with running_program(program, with_ports, ready_path=_DATASET_PATH, folder=folder) as running:
        yield EmulatedBigQuery(running, PROJECT, DATASET)
