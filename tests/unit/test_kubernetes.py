"""What stands in deploy/kubernetes: it builds, is what Kubernetes takes, and fits the program and its page.

There is no cluster here. Kubernetes' own schemas judge, strictly: a name that it does not know is an error.
"""

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pixaris_sync.cli.exits import Exit
from pixaris_sync.cli.sharding import shard_of_task
from pixaris_sync.process.signals import DRAIN_SECONDS_MAX
from pixaris_sync.rules.shards import Shard
from pixaris_sync.settings.fields import SETTINGS
from pixaris_sync.settings.model import environment_variable
from tests.support import backend_report
from tests.support.documents import COMMANDS, DEPLOY, DOCUMENTS
from tests.support.installed_emulators import KUSTOMIZE, find

FOLDER = DEPLOY / "kubernetes"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
#: Folders that kustomize builds.
BUILT = ("base", "backfill", "training", "nodes", "example")
#: The oldest version that has all that is used as a matter of course, and the newest that is known.
VERSIONS = ("1.33", kubernetes_validate.latest_version())
#: Where the image's own files are not, so that a volume must be.
WRITTEN = {"/var/lib/pixaris-sync", "/tmp"}  # noqa: S108 - a place in a container
OURS = "pixaris-sync"
#: A pod that its node, or somebody, has ended is tried again and not counted.
DISRUPTED = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}

Manifest = dict[str, Any]


def written(path: Path) -> list[Manifest]:
    """The manifests of a file."""
    return [one for one in yaml.safe_load_all(path.read_text(encoding="utf-8")) if one]


def is_kustomization(path: Path) -> bool:
    return path.name == "kustomization.yaml"


[EXAMPLE] = written(FOLDER / "example" / "kustomization.yaml")
FILES = sorted(path for path in FOLDER.rglob("*.yaml") if not is_kustomization(path))
WORKLOADS = [one for path in FILES for one in written(path) if one["kind"] in ("Job", "DaemonSet")]


@cache
def build(folder: str) -> list[Manifest]:
    """What kustomize makes of a folder; the test is skipped where kustomize cannot be had."""
    installed = find(KUSTOMIZE)
    if not installed.program:
        backend_report.skip_backend(installed.missing)
    built = subprocess.run(
        [installed.program, "build", FOLDER / folder], capture_output=True, check=False, text=True, timeout=60
    )
    assert built.returncode == 0, built.stderr
    assert not built.stderr
    return [one for one in yaml.safe_load_all(built.stdout) if one]


def named(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    [found] = [one for one in manifests if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def of(name: str) -> Manifest:
    """A workload as it is written."""
    [found] = [one for one in WORKLOADS if one["metadata"]["name"] == name]
    return found


def pod(workload: Manifest) -> Manifest:
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def containers(workload: Manifest) -> list[Manifest]:
    return [*pod(workload).get("initContainers", []), *pod(workload)["containers"]]


def ours(workload: Manifest) -> Manifest:
    """The container that runs pixaris-sync."""
    [found] = [one for one in containers(workload) if one["name"] == OURS]
    return found


def arguments(workload: Manifest) -> Mapping[str, Any]:
    """What the command line makes of a container's arguments.

    Raises:
        click.UsageError: they are none.
    """
    name, *rest = ours(workload)["args"]
    parsed: Mapping[str, Any] = COMMANDS[name].make_context(name, rest).params
    return parsed


def name_of_workload(workload: Manifest) -> str:
    return str(workload["metadata"]["name"])


each_workload = pytest.mark.parametrize("workload", WORKLOADS, ids=name_of_workload)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("folder", BUILT)
def test_what_kustomize_builds_is_what_kubernetes_takes(folder: str, version: str) -> None:
    """Goal: `kubectl apply -k` works. Method: strict schemas of two versions on what each folder builds."""
    built = build(folder)
    assert built
    for manifest in built:
        kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_each_file_is_what_kubernetes_takes(path: Path) -> None:
    """Goal: the same without kustomize. Method: strict schemas on the files themselves."""
    for manifest in written(path):
        kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)


def test_the_schemas_refuse_what_is_misspelled() -> None:
    """Goal: the tests above can fail. Method: a field with a typing error, deep inside."""
    misspelled = yaml.safe_load(yaml.safe_dump(of("training")))
    ours(misspelled)["livenessProbe"]["timeoutSecond"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(misspelled, VERSIONS[-1], strict=True)


def test_every_folder_is_built() -> None:
    """Goal: none is forgotten. Method: folders with a kustomization against the list."""
    assert {path.parent.name for path in FOLDER.rglob("*.yaml") if is_kustomization(path)} == set(BUILT)


def _variables() -> Iterator[tuple[str, str]]:
    """All variables of ours that are set anywhere, and where."""
    for workload in WORKLOADS:
        for variable in ours(workload).get("env", []):
            yield name_of_workload(workload), variable["name"]
    for line in (FOLDER / "base" / "settings.env").read_text(encoding="utf-8").splitlines():
        yield "settings.env", line.partition("=")[0]
    for literal in EXAMPLE["configMapGenerator"][0]["literals"]:
        yield "example", literal.partition("=")[0]
    for name in re.findall(r"PIXARIS_SYNC_\w+", README):
        yield "README.md", name


def test_every_variable_is_a_setting() -> None:
    """Goal: no typing error that nobody tells of. Method: names against the settings; one is for shards."""
    known = {environment_variable(key) for key in SETTINGS} | {"JOB_COMPLETIONS"}
    found = list(_variables())
    assert len(found) >= 10
    assert [one for one in found if one[1] not in known] == []


@each_workload
def test_every_argument_is_one_of_the_command_line(workload: Manifest) -> None:
    """Goal: no container that ends with 2. Method: the real command line parses them."""
    assert arguments(workload)


@each_workload
def test_a_pod_has_the_time_that_it_takes_to_end(workload: Manifest) -> None:
    """Goal: no SIGKILL in the middle. Method: the grace period exceeds drain_timeout_seconds, by 20 s."""
    given = arguments(workload).get("drain_timeout_seconds")
    seconds = float(given or SETTINGS["drain_timeout_seconds"].default)
    assert pod(workload)["terminationGracePeriodSeconds"] >= seconds + 20


@each_workload
def test_a_pod_may_do_no_more_than_it_needs(workload: Manifest) -> None:
    """Goal: the restricted profile. Method: each field that Kubernetes asks for, and a read-only root."""
    spec = pod(workload)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(workload):
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


@each_workload
def test_it_reads_results_and_writes_where_it_may(workload: Manifest) -> None:
    """Goal: the image's root is read-only, and the results are not ours. Method: mounts against the image."""
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    mounts = {one["mountPath"]: one for one in ours(workload)["volumeMounts"]}
    assert mounts.keys() == {*WRITTEN, "/local_results"}
    assert mounts["/local_results"]["readOnly"] is True
    assert "PIXARIS_SYNC_LOCAL_RESULTS_FOLDER=/local_results" in dockerfile
    assert "PIXARIS_SYNC_STATE_DIR=/var/lib/pixaris-sync" in dockerfile
    assert f"USER {pod(workload)['securityContext']['runAsUser']}\n" in dockerfile
    volumes = {one["name"]: one for one in pod(workload)["volumes"]}
    assert all("emptyDir" in volumes[mounts[path]["name"]] for path in WRITTEN)


@each_workload
def test_probes_ask_what_the_page_answers(workload: Manifest) -> None:
    """Goal: no pod that is ended for a typing error. Method: ports against `listen`, paths against page.md.

    What a probe allows is more than it takes to answer.
    """
    page = (DEPLOY / "page.md").read_text(encoding="utf-8")
    container = ours(workload)
    probes = {name: probe for name, probe in container.items() if name.endswith("Probe")}
    environment = {one["name"]: one["value"] for one in container.get("env", [])}
    assert bool(probes) == ("PIXARIS_SYNC_LISTEN" in environment) == (container["args"][0] == "watch")
    for probe in probes.values():
        asked = probe["httpGet"]
        assert f"\n| `{asked['path']}` | 200 " in page
        [port] = [one["containerPort"] for one in container["ports"] if one["name"] == asked["port"]]
        assert environment["PIXARIS_SYNC_LISTEN"] == f"0.0.0.0:{port}"
        assert probe["timeoutSeconds"] > 5
    if probes:
        assert probes["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_the_sidecar_is_one_and_carries_everything_before_it_ends() -> None:
    """Goal: the last run of a pod. Method: what makes a container a native sidecar, and its flag.

    It reads where the trainer writes; the trainer waits until the destination was seen.
    """
    training = of("training")
    [sidecar] = pod(training)["initContainers"]
    [main] = pod(training)["containers"]
    assert sidecar["restartPolicy"] == "Always"
    assert arguments(training)["sync_at_stop"] is True
    assert sidecar["startupProbe"]["httpGet"]["path"] == "/readyz"
    [results] = [one["name"] for one in sidecar["volumeMounts"] if one["mountPath"] == "/local_results"]
    [shared] = [one["mountPath"] for one in main["volumeMounts"] if one["name"] == results]
    default = SETTINGS["local_results_folder"].default
    assert shared == f"{main['workingDir']}/{default}"


@pytest.mark.parametrize("folder", ["backfill", "example"])
def test_each_part_is_told_of_how_many_it_is_one(folder: str) -> None:
    """Goal: parts that together are all. Method: what is built and the indexes, as the command takes them."""
    job = named(build(folder), "Job", "pixaris-sync-files")
    environment = {one["name"]: one["value"] for one in ours(job)["env"]}
    count = job["spec"]["completions"]
    shards = [shard_of_task({**environment, "JOB_COMPLETION_INDEX": str(index)}) for index in range(count)]
    assert shards == [Shard(number, count) for number in range(1, count + 1)]
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["parallelism"] <= count


def test_one_pod_without_a_part_sends_the_rows_when_it_is_let() -> None:
    """Goal: one writer. Method: the rows' Job is suspended, has one pod, and no index makes a part of it."""
    spec = of("pixaris-sync-rows")["spec"]
    assert spec["suspend"] is True
    assert not {"completionMode", "completions", "parallelism"} & spec.keys()
    assert "env" not in ours(of("pixaris-sync-rows"))
    assert ours(of("pixaris-sync-rows"))["args"] == ours(of("pixaris-sync-files"))["args"] == ["backfill"]


@pytest.mark.parametrize("name", ["pixaris-sync-files", "pixaris-sync-rows"])
def test_what_trying_again_does_not_mend_is_not_tried_again(name: str) -> None:
    """Goal: no retries for ever, none too few. Method: exit codes of the rules against the table of them."""
    ended: dict[int, str] = {}
    for rule in of(name)["spec"]["podFailurePolicy"]["rules"]:
        if "onExitCodes" in rule:
            assert rule["onExitCodes"]["containerName"] == OURS
            ended |= dict.fromkeys(rule["onExitCodes"]["values"], rule["action"])
        else:
            assert rule == DISRUPTED
    # A part of the files does not end with PROBLEMS: the pass that sends the rows tells of them.
    problems = set() if name == "pixaris-sync-files" else {Exit.PROBLEMS}
    assert ended == dict.fromkeys({Exit.USAGE, Exit.CONFIGURATION, *problems}, "FailJob")


def test_the_overlay_says_where_runs_go_and_with_which_image() -> None:
    """Goal: one place to change. Method: namespace, destination and image of the example reach each pod."""
    built = build("example")
    assert {one["metadata"].get("namespace") for one in built if one["kind"] != "PersistentVolume"} == {
        "pixaris"
    }
    [settings] = [one for one in built if one["kind"] == "ConfigMap"]
    for name in ("pixaris-sync-files", "pixaris-sync-rows"):
        container = ours(named(built, "Job", name))
        assert container["image"].startswith("europe-docker.pkg.dev/")
        assert container["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
        [claim] = [one for one in pod(named(built, "Job", name))["volumes"] if one["name"] == "results"]
        named(built, "PersistentVolumeClaim", claim["persistentVolumeClaim"]["claimName"])


#: The table of numbers in the README: what each is called there, and where it stands.
NUMBERS: Mapping[str, Callable[[], object]] = {
    "parts of a backfill (`completions`)": lambda: of("pixaris-sync-files")["spec"]["completions"],
    "tries of a part (`backoffLimitPerIndex`)": lambda: of("pixaris-sync-files")["spec"][
        "backoffLimitPerIndex"
    ],
    "parts in `example`": lambda: yaml.safe_load(EXAMPLE["patches"][0]["patch"])[0]["value"],
    "seconds that the sidecar may take to end (`--drain-timeout-seconds`)": lambda: arguments(of("training"))[
        "drain_timeout_seconds"
    ],
    "seconds of them that are kept for what is in flight": lambda: f"{DRAIN_SECONDS_MAX:g}",
    "seconds that the pod may take (`terminationGracePeriodSeconds`)": lambda: pod(of("training"))[
        "terminationGracePeriodSeconds"
    ],
    "seconds that `main` waits for the destination at most (`startupProbe`)": lambda: (
        ours(of("training"))["startupProbe"]["periodSeconds"]
        * ours(of("training"))["startupProbe"]["failureThreshold"]
    ),
    "user and group (`runAsUser`)": lambda: pod(of("training"))["securityContext"]["runAsUser"],
    "port of the page": lambda: ours(of("training"))["ports"][0]["containerPort"],
}


def test_the_numbers_of_the_page_are_those_of_the_manifests() -> None:
    """Goal: a page that is true. Method: each row of its table against the field that it names."""
    rows = dict(re.findall(r"^\| ([^|]+?) \| (\d+) \|$", README, re.MULTILINE))
    assert rows.keys() == NUMBERS.keys()
    for name, value in NUMBERS.items():
        assert str(value()) == rows[name], name


def test_the_page_is_found() -> None:
    """Goal: who deploys finds it. Method: it is one of the documents, and deploy/README.md names it."""
    assert FOLDER / "README.md" in DOCUMENTS
    assert "(kubernetes/README.md)" in (DEPLOY / "README.md").read_text(encoding="utf-8")
