"""Which permissions are used, by the real program before services that refuse as Google does.

Acceptance: permissions recorded for all commands equal those that the Terraform role grants; each one taken
away is named by the error and by `doctor`.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.cloud import bigquery
from PIL import Image

from pixaris_sync import GCPExperimentHandler
from pixaris_sync.doctor.checks import Check, Verdict
from pixaris_sync.doctor.examination import examine
from pixaris_sync.rules.permissions import PERMISSIONS
from pixaris_sync.ui.feedback_table import COLUMNS, DEFAULT_NAME
from tests.integration.cloud import Cloud
from tests.integration.in_process import CommandLineInProcess
from tests.integration.warehouse import Warehouse
from tests.support.command_line import CommandLine, Outcome, Watching
from tests.support.permissions import Guard, guarded
from tests.support.pixaris_ui import ShownUi
from tests.support.proxy import Proxies
from tests.support.stored_runs import DATASET, PROJECT, Reader, picture, store_run
from tests.support.terraform import granted

TABLE = f"{PROJECT}_{DATASET}_experiment_results"
OTHER = "elsewhere"
BY_DEFAULT = ("bigquery.tables.getData",)


@pytest.fixture
def guard(cloud: Cloud, proxies: Proxies) -> Iterator[Guard]:
    """What stands before both services; at first nothing is lacking."""
    with guarded(proxies, cloud.environment["STORAGE_EMULATOR_HOST"]) as standing:
        yield standing


@pytest.fixture
def processes(command_line: CommandLine, proxies: Proxies, guard: Guard) -> CommandLine:
    """The real command line before the guard, which does not wait long for anything."""
    del guard
    return command_line.but(**proxies.environment).having(
        doubt_settle_seconds=0.5,
        sync_attempts_limit=5,
        retry_delay_seconds_min=0.05,
        retry_delay_seconds_max=0.3,
        resumable_threshold_bytes=256 * 1024,
        chunk_bytes=256 * 1024,
    )


@pytest.fixture
def commands(processes: CommandLine) -> CommandLine:
    """The same in this process, for all but `doctor` and `watch`: these end with their process."""
    environment = processes.environment
    return CommandLineInProcess(processes.folder, processes.state_dir, {}).but(**environment)


@contextmanager
def _handler_before_the_guard(
    cloud: Cloud, proxies: Proxies, tmp_path: Path
) -> Iterator[GCPExperimentHandler]:
    """Our handler; meanwhile all that this process asks goes to the guard."""
    spool = str(tmp_path / "spool")
    environment = {**proxies.environment, "PIXARIS_SYNC_STATE_DIR": str(tmp_path / "ours")}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        with GCPExperimentHandler(cloud.project, cloud.dataset_ref, cloud.bucket, spool_folder=spool) as ours:
            yield ours


def _ran(outcome: Outcome) -> None:
    assert outcome.code == 0, str(outcome)


def _noise() -> Image.Image:
    """A picture that no encoding makes small: its file goes through a resumable session."""
    return Image.frombytes("RGB", (400, 400), random.Random(1).randbytes(480_000))  # noqa: S311 - no secret


def test_all_commands_use_what_the_terraform_role_grants_and_nothing_else(
    processes: CommandLine,
    commands: CommandLine,
    guard: Guard,
    pixaris: Reader,
    warehouse: Warehouse,
    cloud: Cloud,
    proxies: Proxies,
    tmp_path: Path,
) -> None:
    """Goal: the role grants no more than is used, and no less.

    Method: every command and handler that asks the cloud, in all that it may have to do there (new tables,
    columns and types, a large file, a changed one, what was removed, a lost ledger); each request's
    permissions are recorded, and a request that nothing is known of fails.
    """
    _ran(processes.run("doctor"))
    args = {"mask": picture(3)}
    first = store_run(commands.folder, "first", images=2, metrics={"score": 1}, args=args)
    with Watching(processes, tmp_path) as watch:
        watch.until(pixaris.runs, "the first run is there")
        store_run(commands.folder, "large", images=[(_noise(), "noise.png")], metrics={"score": 2})
        watch.until(lambda: len(pixaris.runs()) == 2, "the large one is there")
        assert watch.end() == 0, watch.log()
    store_run(commands.folder, "wider", metrics={"score": 0.5}, args={"more": "x"})
    commands.sync()
    picture(77).save(first.folder / "generated_images" / "image_0.png")
    commands.sync("--full")
    store_run(commands.folder, "planned", dataset=OTHER)
    plan = str(tmp_path / "plan.json")
    _ran(commands.run("backfill", "--plan", plan))
    _ran(commands.run("backfill", "--apply", plan))
    store_run(commands.folder, "bulk", dataset=OTHER)
    _ran(commands.run("backfill", "--shard", "1/1"))
    _ran(commands.run("backfill"))
    _ran(commands.run("verify"))
    pixaris.delete(f"results/{first.key}/mask.png")
    warehouse.ask(f"DELETE FROM `{cloud.table(TABLE)}` WHERE experiment_run_name = '{first.name}'")  # noqa: S608 - the test's own
    _ran(commands.run("sync", "--repair"))
    commands.forget_ledger()
    commands.sync()
    _ran(commands.run("retry", "--all"))
    _ran(commands.run("prune", "--older-than", "0h", "--yes"))
    _ran(commands.run("pull", PROJECT))
    with _handler_before_the_guard(cloud, proxies, tmp_path) as handler:
        handler.store_results(PROJECT, DATASET, "ours", [(picture(), "a.png")], {"score": 1.5}, {})
        handler.flush()
        assert len(handler.load_experiment_results_for_dataset(PROJECT, DATASET)) == 4

    assert guard.used == granted("writer") == PERMISSIONS.keys()


def test_what_reads_uses_what_the_readers_role_grants_and_nothing_else(
    commands: CommandLine, guard: Guard, cloud: Cloud, proxies: Proxies, tmp_path: Path
) -> None:
    """Goal: who looks at runs cannot change them.

    Method: what reads, ours and Pixaris' own handler, by an account that has that role alone; nothing is
    refused. What would write is.
    """
    run = store_run(commands.folder, "run")
    commands.sync()
    guard.used.clear()
    guard.lacking.update(PERMISSIONS.keys() - granted("readers"))

    _ran(commands.run("verify"))
    (run.folder / "generated_images" / "image_0.png").unlink()
    _ran(commands.run("pull", str(run.key)))
    with _handler_before_the_guard(cloud, proxies, tmp_path) as handler:
        assert handler.load_projects_and_datasets() == {PROJECT: [DATASET]}
        for at, one in enumerate((handler, cloud.handler())):
            assert len(one.load_experiment_results_for_dataset(PROJECT, DATASET)) == 1
            images = one.load_images_for_experiment(PROJECT, DATASET, run.name, str(tmp_path / f"{at}"))
            assert len(images) == 1

    assert guard.refused == set()
    assert guard.used == granted("readers")
    store_run(commands.folder, "another")
    assert commands.run("sync").code == 4
    assert guard.refused == {"storage.objects.create"}


@pytest.mark.large
def test_the_ui_shows_runs_to_readers(
    processes: CommandLine,
    commands: CommandLine,
    guard: Guard,
    cloud: Cloud,
    bigquery_client: bigquery.Client,
    tmp_path: Path,
) -> None:
    """Goal: neither does the UI need more. Method: it starts, and reads, where its table is there."""
    store_run(commands.folder, "run")
    commands.sync()
    schema = [bigquery.SchemaField(column.name, column.type.value) for column in COLUMNS]
    bigquery_client.create_table(bigquery.Table(cloud.table(DEFAULT_NAME), schema=schema))
    guard.used.clear()
    guard.lacking.update(PERMISSIONS.keys() - granted("readers"))
    with ShownUi(processes, tmp_path):
        pass
    assert guard.refused == set()
    assert "bigquery.tables.getData" in guard.used


@dataclass(frozen=True)
class Lack:
    """What a lacking permission does to a pass over a run that is there, and three that are new.

    Attributes:
        code: the pass's exit code.
        arrive: whose rows arrive all the same.
        may: whose rows may arrive too, by whether they are streamed or loaded in that moment.
        new_ledger: what needs it is done once for a ledger, so that there is a new one.
        changed: the run's image has changed since it was carried.
        told: the pass says it.
    """

    code: int = 4
    arrive: frozenset[str] = frozenset()
    may: frozenset[str] = frozenset()
    new_ledger: bool = False
    changed: bool = False
    told: bool = True


_ALL = frozenset({"plain", "needy", "other"})
#: By permission. `plain` has the table's columns, `needy` another one, and `other` needs a new table.
LACKS = {
    "storage.objects.create": Lack(),
    "storage.objects.delete": Lack(arrive=_ALL, changed=True),
    "storage.objects.get": Lack(arrive=_ALL, new_ledger=True, changed=True),
    "storage.objects.list": Lack(0, _ALL, new_ledger=True),
    "storage.buckets.get": Lack(0, _ALL, new_ledger=True),
    "bigquery.datasets.get": Lack(),
    "bigquery.tables.create": Lack(arrive=frozenset({"plain"}), may=frozenset({"needy"})),
    "bigquery.tables.get": Lack(),
    # A table that was just made need not be asked before its first row.
    "bigquery.tables.getData": Lack(may=frozenset({"other"})),
    # It is `doctor` alone that lists tables.
    "bigquery.tables.list": Lack(0, _ALL, told=False),
    "bigquery.tables.update": Lack(arrive=frozenset({"plain", "other"})),
    "bigquery.tables.updateData": Lack(),
    "bigquery.jobs.create": Lack(may=frozenset({"other"})),
}


def test_each_permission_is_taken_away_below() -> None:
    """Goal: none is left out. Method: what the role grants, and what is tried below."""
    assert LACKS.keys() == granted("writer")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in BY_DEFAULT else pytest.mark.large) for name in LACKS]
)
def test_a_permission_that_is_taken_away_is_named_and_costs_nothing(
    name: str, commands: CommandLine, guard: Guard, pixaris: Reader
) -> None:
    """Goal: the error and `doctor` name it, what can go on does, and nothing is lost or doubled.

    Method: one permission is refused to a pass and to `doctor`; then it is granted.
    """
    lack = LACKS[name]
    # The table is not so new that its rows are loaded for that.
    commands = commands.having(table_settle_seconds=0)
    before = store_run(commands.folder, "before", metrics={"score": 1.5})
    commands.sync()
    if lack.new_ledger:
        commands.forget_ledger()
    guard.lacking.add(name)
    image = before.folder / "generated_images" / "image_0.png"
    content = image.read_bytes()
    if lack.changed:
        picture(77).save(image)
    stored = {
        "plain": store_run(commands.folder, "plain", metrics={"score": 2.5}),
        "needy": store_run(commands.folder, "needy", args={"more": "x"}),
        "other": store_run(commands.folder, "other", dataset=OTHER),
    }

    outcome = commands.run("sync", "--full", "--json")

    assert outcome.code == lack.code, str(outcome)
    arrived = {key for key, run in stored.items() if run.name in _rows(pixaris)}
    assert lack.arrive <= arrived <= lack.arrive | lack.may, str(outcome)
    assert (name in outcome.stderr, guard.refused == {name}) == (lack.told, lack.told), str(outcome)
    if outcome.code and "problems" in outcome.document:
        assert any(f"grant {name} on " in one["hint"] for one in outcome.document["problems"]), str(outcome)
    [fault] = _faults_that_doctor_finds(commands)
    assert name in fault.found, fault
    assert f"grant {name} on " in fault.remedy, fault
    assert PERMISSIONS[name].role in fault.remedy, fault
    assert (fault.verdict is Verdict.FAILED) == PERMISSIONS[name].vital, fault

    guard.lacking.clear()
    if lack.changed and lack.new_ledger:
        # What changed after its run was synced by another ledger stays as it is in the bucket.
        image.write_bytes(content)
    _ran(commands.run("sync", "--full"))
    assert sorted(_rows(pixaris)) == sorted(run.name for run in (before, *stored.values()))
    _ran(commands.run("verify"))


def _rows(pixaris: Reader) -> list[str]:
    """The run of each row."""
    return [*pixaris.runs(), *pixaris.runs(dataset=OTHER)]


def _faults_that_doctor_finds(commands: CommandLine) -> list[Check]:
    """What `doctor` would print with a remedy, without its process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in commands.environment.items():
            patch.setenv(name, value)
        return [check for check in examine({}, None) if check.verdict in (Verdict.FAILED, Verdict.WARNING)]
