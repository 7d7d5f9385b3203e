"""``prune`` and ``pull`` by the real command on the emulators: what they say, change and end with."""

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from google.cloud.storage import Bucket

from tests.integration.cloud import NO_RETRY, TIMEOUT_SECONDS
from tests.integration.warehouse import Warehouse
from tests.support.command_line import CommandLine, Watching
from tests.support.stored_runs import DATASET, PROJECT, StoredRun, picture, store_run

if TYPE_CHECKING:
    from collections.abc import Callable

TABLE = f"{PROJECT}_{DATASET}_experiment_results"
#: All runs that are synced, whatever their age.
ALL = ("prune", "--older-than", "0h")


def snapshot(root: Path) -> dict[str, bytes]:
    """All files below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def command_line(quick_command_line: CommandLine) -> CommandLine:
    """The real command, mostly in this process: prune and pull are about files, not about processes."""
    return quick_command_line


@pytest.fixture
def runs(command_line: CommandLine) -> list[StoredRun]:
    """Two synced runs."""
    metrics = {"score": 0.5, "steps": 7, "details": {"a": 1}}
    args = {"flow": {"b": 2}, "mask": picture(9), "odd key": [1, 2], "empty": None}
    stored = [
        store_run(command_line.folder, "first", images=2, metrics=metrics, args=args),
        store_run(command_line.folder, "second", metrics={"score": float("nan")}),
    ]
    command_line.sync()
    return stored


def test_prune_frees_the_disk_and_pull_brings_everything_back(
    command_line: CommandLine, runs: list[StoredRun]
) -> None:
    """Goal: acceptance, by the real command: prune, then pull, and nothing is different.

    Method: a dry run changes nothing; then prune, all commands, with a lost ledger too, and pull.
    """
    before = snapshot(command_line.folder)
    dry = command_line.run(*ALL)
    assert (dry.code, snapshot(command_line.folder)) == (0, before)
    assert dry.stdout.splitlines()[-2].startswith("would free 2 runs: 5 files, ")
    assert dry.stdout.splitlines()[-1] == "nothing was changed: --yes removes these files"
    assert max(map(len, dry.stdout.splitlines())) <= 80

    freed = command_line.run(*ALL, "--yes", "--json")
    assert freed.code == 0, str(freed)
    assert (freed.document["removed"], freed.document["files"], freed.document["left"]) == (True, 5, [])
    after = snapshot(command_line.folder)
    assert sorted(Path(path).name for path in after) == [
        "args.json",
        "args.json",
        "experiment_tracking.jsonl",
    ]
    assert after.items() <= before.items()

    again = command_line.run(*ALL, "--yes")
    assert (again.code, again.stdout) == (0, "nothing to free\n")
    sent = command_line.sync()
    assert (sent["files_uploaded"], sent["rows_synced"], sent["pruned"]) == (0, 0, 2)
    assert command_line.run("verify").code == 0
    story = command_line.run("status", str(runs[0].key))
    assert f"`pixaris-sync pull {runs[0].key}` brings its files back" in story.stdout
    command_line.forget_ledger()
    sent = command_line.sync()
    assert (sent["files_uploaded"], sent["runs"]["synced"], sent["pruned"]) == (0, 2, 2)
    assert command_line.run("verify").code == 0

    pulled = command_line.run("pull", PROJECT)
    assert pulled.code == 0, str(pulled)
    assert pulled.stdout.splitlines()[-1].startswith("pulled 2 runs: 5 files, ")
    assert snapshot(command_line.folder) == before
    sent = command_line.sync()
    assert (sent["files_uploaded"], sent["rows_synced"], sent["pruned"]) == (0, 0, 0)
    assert command_line.run("verify").code == 0
    here = command_line.run("pull", str(runs[0].key), "--json")
    assert (here.code, here.document["unchanged"]) == (0, 1)


@pytest.mark.large
@pytest.mark.usefixtures("runs")
def test_a_run_of_another_machine_is_pulled_with_a_line_of_its_row(
    command_line: CommandLine, tmp_path: Path
) -> None:
    """Goal: what is pulled stands for the row: no second one, no upload. Method: into an empty folder."""
    folder = tmp_path / "elsewhere" / "local_results"
    folder.mkdir(parents=True)
    other = command_line.but(
        PIXARIS_SYNC_LOCAL_RESULTS_FOLDER=str(folder), PIXARIS_SYNC_STATE_DIR=str(tmp_path / "other")
    )
    other.folder, other.state_dir = folder, tmp_path / "other"

    pulled = other.run("pull", f"{PROJECT}/{DATASET}", "--json")

    assert pulled.code == 0, str(pulled)
    assert [run["lines"] for run in pulled.document["runs"]] == [1, 1]
    names = {str(path.relative_to(command_line.folder)) for path in command_line.folder.rglob("*.png")}
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.png")} == names
    for name in names:
        assert (folder / name).read_bytes() == (command_line.folder / name).read_bytes()
    sent = other.sync()
    assert (sent["files_uploaded"], sent["runs"]["synced"]) == (0, 2)
    verified = other.run("verify")
    assert verified.code == 0, str(verified)
    assert command_line.run("verify").code == 0


def test_an_age_that_is_none_is_told_the_form(command_line: CommandLine) -> None:
    """Goal: exit code 2 and the form. Method: an age without a unit."""
    outcome = command_line.run("prune", "--older-than", "thirty")
    assert outcome.code == 2
    assert outcome.stderr.splitlines() == [
        "error: cannot read --older-than: 'thirty' is no age",
        "hint: give a number and a unit: 12h (hours), 30d (days) or 2w (weeks)",
    ]


def test_without_a_ledger_nothing_is_pruned(command_line: CommandLine) -> None:
    """Goal: exit code 4. Method: prune a folder that was never synced."""
    store_run(command_line.folder)
    before = snapshot(command_line.folder)
    outcome = command_line.run(*ALL, "--yes")
    assert outcome.code == 4
    assert "nothing was ever synced from this folder to this destination" in outcome.stderr
    assert snapshot(command_line.folder) == before


@pytest.mark.large
@pytest.mark.usefixtures("runs")
def test_young_runs_are_left_without_a_word(command_line: CommandLine) -> None:
    """Goal: nothing to prune is no error. Method: an age that no run has."""
    before = snapshot(command_line.folder)
    outcome = command_line.run("prune", "--older-than", "30d", "--yes")
    assert (outcome.code, outcome.stdout) == (0, "nothing to free\n")
    assert snapshot(command_line.folder) == before


@dataclass(frozen=True, slots=True)
class _Spoiler:
    """Changes one thing about a run; each method tells what is said of it then."""

    bucket: Bucket
    warehouse: Warehouse
    run: StoredRun

    def _left(self, cause: str) -> str:
        return f"left {self.run.key}: {cause}"

    def _change_rows(self, sql: str) -> None:
        table = f"`{self.warehouse.cloud.table(TABLE)}`"
        self.warehouse.ask(sql.format(table=table, run=f"'{self.run.name}'"))

    def delete_object(self) -> str:
        name = f"results/{self.run.key}/generated_images/image_1.png"
        self.bucket.blob(name).delete(retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
        return self._left(f"{name} is not in the bucket")

    def replace_object(self) -> str:
        name = f"results/{self.run.key}/mask.png"
        self.bucket.blob(name).upload_from_string(b"x", retry=NO_RETRY, timeout=TIMEOUT_SECONDS)
        return self._left(f"{name} is not in the bucket as it is here")

    def edit_row(self) -> str:
        self._change_rows("UPDATE {table} SET steps = 2 WHERE experiment_run_name = {run}")
        return self._left(f"row {TABLE}:{self.run.name}: other values than in the record: steps")

    def delete_row(self) -> str:
        self._change_rows("DELETE FROM {table} WHERE experiment_run_name = {run}")
        return self._left(f"row {TABLE}:{self.run.name}: not in the table")

    def change_file(self) -> str:
        picture(77).save(self.run.folder / "mask.png")
        return self._left(f"results/{self.run.key}/mask.png is not in the bucket as it is here")

    def damage_line(self) -> str:
        with self.run.tracking.open("a") as file:
            file.write('{"experiment_run_name": "cut\n')
        return self._left(f"{PROJECT}/{DATASET}/experiment_tracking.jsonl:3 is damaged")

    def tear_line(self) -> str:
        with self.run.tracking.open("a") as file:
            file.write('{"experiment_run_name')
        return self._left(f"the last line of {PROJECT}/{DATASET}/experiment_tracking.jsonl is unfinished")


@pytest.mark.parametrize(
    "spoil",
    [
        _Spoiler.delete_object,
        pytest.param(_Spoiler.replace_object, marks=pytest.mark.large),
        pytest.param(_Spoiler.edit_row, marks=pytest.mark.large),
        pytest.param(_Spoiler.delete_row, marks=pytest.mark.large),
        pytest.param(_Spoiler.change_file, marks=pytest.mark.large),
        pytest.param(_Spoiler.damage_line, marks=pytest.mark.large),
        pytest.param(_Spoiler.tear_line, marks=pytest.mark.large),
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_what_is_not_proven_stays_whole(
    command_line: CommandLine,
    runs: list[StoredRun],
    bucket: Bucket,
    warehouse: Warehouse,
    spoil: "Callable[[_Spoiler], str]",
) -> None:
    """Goal: exit code 3, the cause, and no file of it is gone. Method: change one thing of the first run."""
    told = spoil(_Spoiler(bucket, warehouse, runs[0]))
    before = snapshot(runs[0].folder)

    outcome = command_line.run(*ALL, "--yes")

    assert outcome.code == 3, str(outcome)
    assert any(line.startswith(told) for line in outcome.stdout.splitlines()), str(outcome)
    assert "hint: " in outcome.stdout
    assert snapshot(runs[0].folder) == before


@pytest.mark.large
def test_files_come_back_though_somebody_deleted_the_rows(
    command_line: CommandLine, runs: list[StoredRun], bucket: Bucket, warehouse: Warehouse, tmp_path: Path
) -> None:
    """Goal: line and objects are enough; where there is no line, what is in the way is told.

    Method: prune, delete all rows, pull; then pull into an empty folder.
    """
    before = snapshot(command_line.folder)
    assert command_line.run(*ALL, "--yes").code == 0
    for run in runs:
        _Spoiler(bucket, warehouse, run).delete_row()
    (tmp_path / "elsewhere").mkdir()

    back = command_line.run("pull", PROJECT)
    elsewhere = command_line.but(
        PIXARIS_SYNC_LOCAL_RESULTS_FOLDER=str(tmp_path / "elsewhere"),
        PIXARIS_SYNC_STATE_DIR=str(tmp_path / "other"),
    ).run("pull", PROJECT)

    assert back.code == 0, str(back)
    assert snapshot(command_line.folder) == before
    assert elsewhere.code == 3, str(elsewhere)
    for run in runs:
        said = f"left {run.key}: cannot pull {run.key}: the table has no row of it yet"
        assert said in elsewhere.stdout.splitlines(), str(elsewhere)
    assert snapshot(tmp_path / "elsewhere") == {}


@pytest.mark.large
@pytest.mark.usefixtures("runs")
def test_a_quarantined_run_is_left(command_line: CommandLine) -> None:
    """Goal: exit code 3, and what the ledger says of it. Method: a run without images beside synced ones."""
    run = store_run(command_line.folder, "third", images=0)
    command_line.run("sync")
    outcome = command_line.run(*ALL, "--yes")
    assert outcome.code == 3, str(outcome)
    assert f"left {run.key}: the ledger says quarantined" in outcome.stdout


@pytest.mark.large
def test_unknown_files_links_and_folders_stay_and_are_told(
    command_line: CommandLine, runs: list[StoredRun], tmp_path: Path
) -> None:
    """Goal: nothing but images and arguments goes. Method: a note, a link and a folder beside them."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(b"x")
    (runs[0].folder / "notes.txt").write_text("mine")
    (runs[0].folder / "deeper").mkdir()
    (runs[0].folder / "deeper" / "x.png").write_bytes(b"x")
    (runs[0].folder / "generated_images" / "link.png").symlink_to(secret)

    outcome = command_line.run(*ALL, "--yes")

    assert "  3 files that no record names stay: deeper, generated_images/link.png, " in outcome.stdout
    assert secret.read_bytes() == b"x"
    left = {str(path.relative_to(runs[0].folder)) for path in runs[0].folder.rglob("*")}
    assert left == {
        *("args.json", "deeper", "deeper/x.png", "generated_images", "generated_images/link.png"),
        "notes.txt",
    }


def test_a_file_of_another_content_is_never_replaced_by_pull(
    command_line: CommandLine, runs: list[StoredRun]
) -> None:
    """Goal: a conflict is told with exit code 3, and nothing of that run comes. Method: another image."""
    command_line.run(*ALL, "--yes")
    place = runs[0].folder / "generated_images" / "image_0.png"
    picture(50).save(place)
    before = snapshot(runs[0].folder)

    outcome = command_line.run("pull", PROJECT)

    assert outcome.code == 3, str(outcome)
    cause = "the file that is here has another content"
    said = f"left {runs[0].key}: cannot write {runs[0].key}/generated_images/image_0.png: {cause}"
    assert said in outcome.stdout.splitlines()
    assert "hint: compare both; move the file that is here away, then pull again" in outcome.stdout
    assert snapshot(runs[0].folder) == before


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    "name",
    [
        f"{PROJECT}/{DATASET}/20200101-000000_no",
        *(pytest.param(name, marks=pytest.mark.large) for name in ("nobody", f"{PROJECT}/nothing", "..")),
    ],
)
def test_a_name_that_the_cloud_does_not_know_is_an_error(command_line: CommandLine, name: str) -> None:
    """Goal: exit code 1, and how to name one. Method: names of nothing."""
    before = snapshot(command_line.folder)
    outcome = command_line.run("pull", name)
    assert outcome.code == 1, str(outcome)
    assert outcome.stderr.startswith(f"error: cannot pull {name}: ")
    assert snapshot(command_line.folder) == before


@pytest.mark.large
def test_a_full_disk_leaves_nothing_half(
    command_line: CommandLine, runs: list[StoredRun], tmp_path: Path
) -> None:
    """Goal: exit code 5, what is lacking, and nothing is written. Method: a results folder on a tiny disk."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        folder = small / "local_results"
        folder.mkdir()
        other = command_line.but(PIXARIS_SYNC_LOCAL_RESULTS_FOLDER=str(folder))
        outcome = other.run("pull", PROJECT)
        assert outcome.code == 5, str(outcome)
        assert f"left {runs[0].key}: cannot write {runs[0].key}: it needs " in outcome.stdout
        assert "hint: make room on the disk, then pull again" in outcome.stdout
        assert list(folder.rglob("*")) == []
    finally:
        subprocess.run(["/bin/umount", str(small)], check=True)


@pytest.mark.large
@pytest.mark.usefixtures("runs")
def test_prune_and_pull_work_beside_a_running_watch(command_line: CommandLine, tmp_path: Path) -> None:
    """Goal: no owner is disturbed, and nothing is sent twice.

    Method: prune, pull into the watched folder, and store another run; then compare everything. Each command
    is a process of its own.
    """
    command_line = CommandLine(command_line.folder, command_line.state_dir, command_line.environment)
    before = snapshot(command_line.folder)
    with Watching(command_line, tmp_path) as watching:
        watching.wait_until_ready()
        freed = command_line.run(*ALL, "--yes", "--json")
        assert (freed.code, freed.document["files"]) == (0, 5), str(freed)
        pulled = command_line.run("pull", PROJECT, "--json")
        assert (pulled.code, pulled.document["files"]) == (0, 5), str(pulled)
        assert snapshot(command_line.folder) == before
        store_run(command_line.folder, "third")
        watching.until(lambda: command_line.status()["runs"]["synced"] == 3, "the third run is synced")
        assert watching.end() == 0
    command_line.sync()
    assert command_line.run("verify", "--both-ways").code == 0
