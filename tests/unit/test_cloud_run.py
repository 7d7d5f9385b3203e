"""What stands in deploy/cloud-run fits the program, and itself; nothing here knows Google's schemas."""

import re
from copy import deepcopy
from typing import Any

import pytest
import yaml

from pixaris_sync.cli.sharding import shard_of_task
from pixaris_sync.rules.shards import Shard
from pixaris_sync.settings.fields import SETTINGS
from pixaris_sync.settings.model import environment_variable
from tests.support.documents import COMMANDS, DEPLOY

FOLDER = DEPLOY / "cloud-run"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
FILES, ROWS = (
    yaml.safe_load((FOLDER / f"{name}-job.yaml").read_text(encoding="utf-8")) for name in ("files", "rows")
)
JOBS = pytest.mark.parametrize("job", [FILES, ROWS], ids=["files", "rows"])
#: Cloud Run sends SIGTERM so long before it ends a container.
NOTICE_SECONDS = 10


def task(job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = job["spec"]["template"]["spec"]["template"]["spec"]
    return found


def container(job: dict[str, Any]) -> dict[str, Any]:
    [found] = task(job)["containers"]
    assert isinstance(found, dict)
    return found


@JOBS
def test_a_job_gives_known_settings_and_a_command_that_is_understood(job: dict[str, Any]) -> None:
    """Goal: it starts as written. Method: variables against the settings, arguments by the command line."""
    environment = {one["name"]: one["value"] for one in container(job)["env"]}
    assert environment.keys() <= {environment_variable(key) for key in SETTINGS}
    assert float(environment["PIXARIS_SYNC_DRAIN_TIMEOUT_SECONDS"]) < NOTICE_SECONDS
    name, *rest = container(job)["args"]
    assert COMMANDS[name].make_context(name, rest).params


@JOBS
def test_results_are_mounted_where_the_image_looks_and_read_alone(job: dict[str, Any]) -> None:
    """Goal: the results are not ours. Method: mount and volume, against the image."""
    [mount], [volume] = container(job)["volumeMounts"], task(job)["volumes"]
    assert mount["name"] == volume["name"]
    assert mount["readOnly"] is volume["nfs"]["readOnly"] is True
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert f"PIXARIS_SYNC_LOCAL_RESULTS_FOLDER={mount['mountPath']}" in dockerfile


def test_many_tasks_upload_and_one_sends_rows() -> None:
    """Goal: one writer. Method: the jobs differ in name, number of tasks and processors, else in nothing."""
    files, rows = deepcopy(FILES), deepcopy(ROWS)
    counts = []
    for job in (files, rows):
        execution = job["spec"]["template"]["spec"]
        counts.append(execution.pop("taskCount"))
        execution.pop("parallelism", None)
        del job["metadata"]["name"], container(job)["resources"]["limits"]["cpu"]
    assert files == rows
    told = [{"CLOUD_RUN_TASK_INDEX": "0", "CLOUD_RUN_TASK_COUNT": str(count)} for count in counts]
    assert [shard_of_task(one) for one in told] == [Shard(1, counts[0]), None]


def test_the_numbers_of_the_page_are_those_of_the_jobs() -> None:
    """Goal: a page that is true. Method: each row of its table against the field that it names."""
    assert dict(re.findall(r"^\| ([^|]+?) \| (\d+) \|$", README, re.MULTILINE)) == {
        "tasks (`taskCount`)": str(FILES["spec"]["template"]["spec"]["taskCount"]),
        "tries of a task after the first (`maxRetries`)": str(task(FILES)["maxRetries"]),
        "seconds that a task may take (`timeoutSeconds`)": str(task(FILES)["timeoutSeconds"]),
    }


def test_the_volume_of_the_page_fits_the_jobs() -> None:
    """Goal: what is copied from the page works. Method: its YAML has the name that the jobs mount."""
    [shown] = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    [volume] = yaml.safe_load(shown)["volumes"]
    assert volume["name"] == task(FILES)["volumes"][0]["name"]
    assert volume["csi"]["readOnly"] is True
