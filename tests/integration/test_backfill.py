"""The command ``backfill``: its plan, what it selects, how it delivers rows."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from google.cloud import bigquery

from tests.integration.cloud import NO_RETRY, TIMEOUT_SECONDS, Cloud
from tests.integration.warehouse import Warehouse
from tests.support.command_line import CommandLine, Watching
from tests.support.proxy import Proxies
from tests.support.stored_runs import Reader, StoredRun, store_run

_STREAMING = r"/insertAll$"
_LOAD_JOB = r"^POST /upload/bigquery/.*/jobs$"
_TABLE = "project_{}_experiment_results"


@pytest.fixture
def command_line(quick_command_line: CommandLine) -> CommandLine:
    """The real command, mostly in this process: plans are about what it does, not about processes."""
    return quick_command_line


def _plan(command_line: CommandLine, *arguments: str) -> dict[str, Any]:
    outcome = command_line.run("backfill", "--dry-run", "--json", *arguments)
    assert outcome.code == 0, str(outcome)
    return outcome.document


def _backfill(command_line: CommandLine, *arguments: str, expect: int = 0) -> dict[str, Any]:
    outcome = command_line.run("backfill", "--json", *arguments)
    assert outcome.code == expect, str(outcome)
    return outcome.document


def _backdate(run: StoredRun, day: str) -> str:
    """Let a run have been stored on another day (``YYYYmmdd``); its new name."""
    name = f"{day}{run.name[8:]}"
    run.folder.rename(run.folder.with_name(name))
    for path in (run.tracking, run.folder.with_name(name) / "args.json"):
        path.write_text(path.read_text(encoding="utf-8").replace(run.name, name), encoding="utf-8")
    return name


def _tree(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Every file and folder: mode, time of change and content."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        status = path.stat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_mtime_ns, content)
    return found


def _tables(client: bigquery.Client, cloud: Cloud) -> dict[str, dict[str, str]]:
    """All tables of the test's dataset, with their columns."""
    listed = client.list_tables(cloud.dataset, retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
    tables = {}
    for item in listed:
        table = client.get_table(item.reference, retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
        tables[str(item.table_id)] = {field.name: field.field_type for field in table.schema}
    return tables


def _foreseen(plan: Mapping[str, Any], before: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """The tables as they should be after a plan."""
    tables = {table: dict(columns) for table, columns in before.items()}
    for table in plan["tables_to_create"]:
        assert table["table"] not in tables
        tables[table["table"]] = {column["name"]: column["type"] for column in table["columns"]}
    for column in (*plan["columns_to_add"], *plan["columns_to_widen"]):
        tables[column["table"]][column["name"]] = column["type"]
    return tables


def _store_old_and_new(command_line: CommandLine) -> None:
    """A synced run, then more of its dataset with drifted and odd columns, and a dataset that is new."""
    store_run(command_line.folder, "old", images=2, metrics={"score": 1})
    command_line.sync()
    store_run(command_line.folder, "drifted", images=3, metrics={"score": 0.5}, args={"odd key": "x"})
    store_run(command_line.folder, "new", dataset="another", args={"flow": {"a": 1}}, metrics={"m": {"b": 2}})


def test_the_plan_is_what_backfill_then_does(
    command_line: CommandLine, cloud: Cloud, bigquery_client: bigquery.Client, pixaris: Reader
) -> None:
    """Goal: acceptance 9. Method: plan on a mixed folder, backfill, compare numbers, tables and columns."""
    _store_old_and_new(command_line)
    before, objects = _tables(bigquery_client, cloud), pixaris.objects()

    plan = _plan(command_line)
    done = _backfill(command_line)

    assert (plan["runs"], plan["files"], plan["rows"]) == (2, 6, 2)
    assert (done["files_uploaded"], done["bytes"], done["rows_synced"]) == (6, plan["bytes"], 2)
    assert done["runs"]["synced"] == 1 + plan["runs"]
    assert (plan["files_found"], plan["rows_found"], plan["not_carried"]) == (0, 0, [])
    assert len(pixaris.objects()) - len(objects) == plan["files"]
    assert _foreseen(plan, before) == _tables(bigquery_client, cloud)
    assert [column["name"] for column in plan["columns_to_widen"]] == ["score"]
    [renamed] = plan["names_rewritten"]
    assert renamed["key"] == "odd key"
    assert list(pixaris.frame()[renamed["column"]].dropna()) == ["x"]
    assert _plan(command_line) == {
        **dict.fromkeys(plan, 0),
        **{key: [] for key, value in plan.items() if isinstance(value, list)},
    }


def test_with_a_lost_ledger_the_plan_finds_what_is_there(command_line: CommandLine) -> None:
    """Goal: nothing is planned twice. Method: sync, lose the ledger, store one more, plan, backfill."""
    store_run(command_line.folder, "there", images=2)
    command_line.sync()
    command_line.forget_ledger()
    store_run(command_line.folder, "new")

    plan = _plan(command_line)
    done = _backfill(command_line)

    assert (plan["files"], plan["files_found"], plan["rows"], plan["rows_found"]) == (1, 2, 1, 1)
    assert (done["files_uploaded"], done["files_found"], done["rows_synced"]) == (1, 2, 2)
    assert (done["bytes"], done["bytes_found"]) == (plan["bytes"], plan["bytes_found"])


def test_a_dry_run_changes_nothing(
    command_line: CommandLine, cloud: Cloud, bigquery_client: bigquery.Client, pixaris: Reader
) -> None:
    """Goal: acceptance 9. Method: compare folder, state and cloud bytewise, without a ledger and with one."""
    store_run(command_line.folder, "first", images=2)
    folder = _tree(command_line.folder)

    _plan(command_line)

    assert _tree(command_line.folder) == folder
    assert not command_line.state_dir.exists()
    assert (pixaris.objects(), _tables(bigquery_client, cloud)) == ({}, {})

    _store_old_and_new(command_line)
    folder, state = _tree(command_line.folder), _tree(command_line.state_dir)
    remote = pixaris.objects(), _tables(bigquery_client, cloud), pixaris.runs()

    _plan(command_line)

    assert _tree(command_line.folder) == folder
    assert _tree(command_line.state_dir) == state
    assert (pixaris.objects(), _tables(bigquery_client, cloud), pixaris.runs()) == remote


def test_a_dry_run_sends_nothing_and_backfill_loads(proxied: CommandLine, proxies: Proxies) -> None:
    """Goal: no write before the work, and then no streaming, though it could. Method: proxies count."""
    storage, warehouse = proxies.storage, proxies.bigquery
    loading = proxied.having(table_settle_seconds=0)
    store_run(loading.folder, "first")
    _backfill(loading)
    store_run(loading.folder, "second")
    proxies.forget()

    _plan(loading)

    # It did ask: the counts below are no accident.
    assert storage.count("^GET ")
    assert {request.method for request in storage.seen} == {"GET"}
    assert warehouse.count(_LOAD_JOB) + warehouse.count(_STREAMING) == 0
    assert not any(request.mentions("ALTER") or request.mentions("CREATE") for request in warehouse.seen)

    _backfill(loading)

    assert proxies.uploads == 1
    assert warehouse.count(_LOAD_JOB) == 1
    assert warehouse.count(_STREAMING) == 0


def test_backfill_shows_in_the_list_of_jobs(
    command_line: CommandLine, warehouse: Warehouse, pixaris: Reader
) -> None:
    """Goal: many rows, few jobs. Method: ask BigQuery for its load jobs into the table."""
    runs = [store_run(command_line.folder, f"run-{number}").name for number in range(12)]

    _backfill(command_line)

    jobs = warehouse.client.list_jobs(retry=NO_RETRY, timeout=TIMEOUT_SECONDS, all_users=True)
    loads = [
        job
        for job in jobs
        if job.job_type == "load" and job.destination.dataset_id == warehouse.cloud.dataset
    ]
    assert sum(job.output_rows for job in loads) == 12
    assert len(loads) <= 2
    assert pixaris.runs() == sorted(runs)


@pytest.mark.parametrize(
    ("flags", "carried"),
    [
        (["--project", "project"], ["old", "middle", "young", "other"]),
        (["--project", "proj*", "--exclude", "*_young"], ["old", "middle", "other"]),
        (["--run", "*_old", "--run", "project/another/*"], ["old", "other"]),
        (["--dataset", "dataset"], ["old", "middle", "young"]),
        (["--since", "2024-03-01"], ["middle", "young", "other"]),
        (["--until", "2024-03-01"], ["old"]),
        (["--since", "2024-03-01", "--until", "2024-03-02", "--dataset", "dataset"], ["middle"]),
    ],
    ids=" ".join,
)
def test_flags_select_runs_for_the_plan_and_the_work(
    command_line: CommandLine, pixaris: Reader, flags: list[str], carried: list[str]
) -> None:
    """Goal: only what is named goes, and the plan says so. Method: runs of other days, projects, datasets."""
    names = {
        "old": _backdate(store_run(command_line.folder, "old"), "20240229"),
        "middle": _backdate(store_run(command_line.folder, "middle"), "20240301"),
        "young": _backdate(store_run(command_line.folder, "young"), "20240302"),
        "other": store_run(command_line.folder, "other", dataset="another").name,
    }

    plan = _plan(command_line, *flags)
    _backfill(command_line, *flags)

    assert (plan["runs"], plan["files"], plan["rows"]) == (len(carried),) * 3
    assert {*pixaris.runs(), *pixaris.runs(dataset="another")} == {names[name] for name in carried}
    assert len(pixaris.objects()) == len(carried)


def test_what_cannot_be_carried_is_in_the_plan_and_in_the_status(command_line: CommandLine) -> None:
    """Goal: the plan promises nothing it cannot keep. Method: lose a run's images; compare the causes."""
    run = store_run(command_line.folder, "bare")
    shutil.rmtree(run.folder / "generated_images")

    plan = _plan(command_line)
    done = _backfill(command_line, expect=3)

    assert plan["runs"] == 0
    assert [(one["run"], one["cause"]) for one in plan["not_carried"]] == [
        (one["run"], one["cause"]) for one in done["problems"]
    ]


def test_the_plan_for_people(command_line: CommandLine) -> None:
    """Goal: a short text on stdout. Method: print it."""
    _store_old_and_new(command_line)

    outcome = command_line.run("backfill", "--dry-run")

    assert outcome.code == 0, str(outcome)
    lines = outcome.stdout.splitlines()
    assert lines[0].startswith("would carry    2 runs: 6 files (")
    assert any(line.startswith("create table   project_another_experiment_results with ") for line in lines)
    assert any(line.startswith("widen column   ") for line in lines)
    assert any(
        line.startswith('rename         project_dataset_experiment_results: "odd key" to ') for line in lines
    )
    assert lines[-1] == "nothing was changed"


def test_a_dry_run_works_beside_the_daemon(command_line: CommandLine, tmp_path: Path) -> None:
    """Goal: it needs no ownership. Method: plan while watch runs; backfill itself is turned away."""
    store_run(command_line.folder, "first")
    with Watching(command_line, tmp_path) as watching:
        watching.wait_until_ready()

        assert _plan(command_line)["not_carried"] == []
        assert command_line.run("backfill").code == 11


def test_a_dry_run_takes_no_lock(command_line: CommandLine) -> None:
    """Goal: as above, whoever holds the folder. Method: hold the lock here."""
    store_run(command_line.folder, "first")
    handle = os.open(command_line.folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert _plan(command_line)["runs"] == 1
    finally:
        os.close(handle)


@pytest.mark.parametrize(
    "variable", ["PIXARIS_SYNC_GCP_PIXARIS_BUCKET_NAME", "PIXARIS_SYNC_GCP_BQ_EXPERIMENT_DATASET"]
)
def test_a_dry_run_checks_the_destination(command_line: CommandLine, variable: str) -> None:
    """Goal: a plan for a destination that is not there is an error. Method: name another one."""
    store_run(command_line.folder, "first")

    outcome = command_line.but(**{variable: "nowhere"}).run("backfill", "--dry-run")

    assert outcome.code == 4, str(outcome)
    assert outcome.stderr.startswith("error: ")
    assert "hint: " in outcome.stderr
    assert outcome.stdout == ""


def test_a_date_that_is_none_is_refused(command_line: CommandLine) -> None:
    """Goal: no silent misreading. Method: a day that does not exist."""
    outcome = command_line.run("backfill", "--since", "2024-02-30")

    assert outcome.code == 2, str(outcome)
    assert "2024-02-30" in outcome.stderr


def test_a_backdated_run_is_one_that_pixaris_would_write(command_line: CommandLine) -> None:
    """Goal: the helper of this file is right. Method: record, args.json and folder agree on the name."""
    run = store_run(command_line.folder, "run")

    name = _backdate(run, "20240229")

    assert json.loads(run.tracking.read_text(encoding="utf-8"))["experiment_run_name"] == name
    args = run.folder.with_name(name) / "args.json"
    assert json.loads(args.read_text(encoding="utf-8"))["experiment_run_name"] == name
