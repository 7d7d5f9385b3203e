"""The BigQuery emulator as a fixture, and plain requests to it."""

import importlib.util
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

PROJECT = "contract-project"
DATASET = "contract_dataset"
_FAREWELL_SECONDS = 15


@dataclass(frozen=True, slots=True)
class EmulatedBigQuery:
    """A running emulator: its base URL, and a project with a dataset in it."""

    url: str
    project: str
    dataset: str

    def request(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """Send JSON to ``/bigquery/v2/projects/<project>/<path>`` and return the answer's."""
        request = urllib.request.Request(  # noqa: S310 - the URL is this emulator's
            f"{self.url}/bigquery/v2/projects/{self.project}/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - the same
            return json.load(answer)


@contextmanager
def running_emulator() -> Iterator[EmulatedBigQuery]:
    """Start the sandbox's BigQuery on a free port of the loopback interface; end it afterwards."""
    command = [
        sys.executable,
        "-m",
        "pixaris_sync.sandbox.bigquery",
        "--project",
        PROJECT,
        "--stop-with-stdin",
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line, "the BigQuery emulator ended before it was ready"
            ready = json.loads(line)
            emulator = EmulatedBigQuery(f"http://{ready['host']}:{ready['port']}", PROJECT, DATASET)
            reference = {"projectId": PROJECT, "datasetId": DATASET}
            emulator.request("POST", "datasets", {"datasetReference": reference})
            yield emulator
        finally:
            process.stdin.close()
            try:
                process.wait(_FAREWELL_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="session")
def bigquery_emulator() -> Iterator[EmulatedBigQuery]:
    """One emulator for all tests: they tell their tables apart by name."""
    if importlib.util.find_spec("bqemulator") is None:
        pytest.skip("the extra `sandbox` is not installed")
    with running_emulator() as emulator:
        yield emulator
