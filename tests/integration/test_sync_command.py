"""The command ``sync``: what it asks, what it repeats, what it leaves alone."""

import hashlib
import shutil
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.support.command_line import CommandLine
from tests.support.proxy import Answer, Proxies, Request, unavailable
from tests.support.stored_runs import DATASET, PROJECT, Reader, picture, run_objects, store_run
from tests.support.waiting import eventually

if TYPE_CHECKING:
    import subprocess


def test_a_second_sync_asks_the_cloud_nothing(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader
) -> None:
    """Goal: acceptance 5. Method: two datasets, proxies that count; the second sync is not seen by them."""
    for number in range(4):
        store_run(proxied.folder, f"run-{number}", dataset=f"set_{number % 2}", args={"flow": {"a": number}})

    first = proxied.sync()
    counted = proxies.uploads, proxies.deliveries
    proxies.forget()
    second = proxied.sync()

    assert (first["files_uploaded"], first["rows_synced"]) == (8, 4)
    # So that counting is known to work. A load job is two requests.
    assert counted[0] == 8
    assert counted[1] >= 2
    assert proxies.seen == []
    assert (second["files_uploaded"], second["files_found"], second["rows_synced"]) == (0, 0, 0)
    assert second["runs"]["synced"] == 4
    assert [len(pixaris.runs(PROJECT, f"set_{number}")) for number in range(2)] == [2, 2]


def test_what_is_asked_for_a_new_run_does_not_grow_with_what_is_synced(
    proxied: CommandLine, proxies: Proxies
) -> None:
    """Goal: the same. Method: sync one run beside 1 and beside 12 synced ones; compare the requests."""
    asked = []
    for batch in (1, 11):
        for number in range(batch):
            store_run(proxied.folder, f"old-{batch}-{number:02d}")
        proxied.sync()
        proxies.forget()
        store_run(proxied.folder, f"new-{batch}")
        proxied.sync()
        # How often a row or a job is looked for depends on how fast the emulator is.
        asked.append([request for request in proxies.seen if not request.startswith("GET /bigquery/")])
        assert not [request for request in proxies.storage.seen if request.method == "GET"]

    kinds = [sorted({request.split("/results/")[0] for request in batch}) for batch in asked]
    assert kinds[0] == kinds[1]
    assert len(asked[0]) == len(asked[1])


@pytest.mark.parametrize(
    "streamed",
    [
        pytest.param(False, id="rows by load job"),
        pytest.param(True, id="rows by stream", marks=pytest.mark.large),
    ],
)
def test_a_lost_ledger_repeats_nothing(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader, *, streamed: bool
) -> None:
    """Goal: acceptance 7. Method: sync, delete the ledger, sync: the same rows, objects, generations."""
    if streamed:
        proxied = proxied.having(table_settle_seconds=0)
    for number in range(3):
        store_run(
            proxied.folder, f"run-{number}", args={"flow": {"number": number}}, metrics={"rating": {"a": 1}}
        )
        if streamed:
            proxied.sync()
    proxied.sync()
    rows, objects = pixaris.frame(), pixaris.objects()
    proxies.forget()

    proxied.forget_ledger()
    again = proxied.sync()

    assert (again["files_uploaded"], again["rows_synced"]) == (0, 3)
    assert again["files_found"] == len(objects) == 9
    assert pixaris.frame().equals(rows)
    assert pixaris.objects() == objects
    assert proxies.uploads == 0
    assert proxies.deliveries == 0


def test_a_copy_of_the_folder_elsewhere_repeats_nothing(
    command_line: CommandLine, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: folders are copied between machines. Method: sync one, then its copy, without its ledger."""
    store_run(command_line.folder, args={"flow": {"a": 1}})
    command_line.sync()
    rows, objects = pixaris.frame(), pixaris.objects()
    shutil.copytree(command_line.folder, tmp_path / "copy")

    copied = CommandLine(tmp_path / "copy", tmp_path / "copied state", command_line.environment)
    assert copied.sync()["rows_synced"] == 1

    assert pixaris.frame().equals(rows)
    assert pixaris.objects() == objects


def test_a_changed_image_of_a_synced_run_replaces_its_own_generation(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: a newer version goes with --full, guarded. Method: change one image; look at the precondition."""
    run = store_run(proxied.folder, images=2)
    proxied.sync()
    before = pixaris.objects()
    changed = run.folder / "generated_images" / "image_0.png"
    picture(99).save(changed)
    proxies.forget()

    assert proxied.sync()["files_uploaded"] == 0
    assert proxies.seen == []
    assert proxied.sync("--full")["files_uploaded"] == 1

    after = pixaris.objects()
    name = f"results/{run.key}/generated_images/image_0.png"
    assert {changed for changed in before if before[changed] != after[changed]} == {name}
    sent = [request for request in proxies.storage.seen if "/upload/" in request.path]
    assert len(sent) == 1
    assert f"ifGenerationMatch={before[name][1]}" in sent[0].target
    assert pixaris.images(run.key, tmp_path)["image_0.png"].tobytes() == picture(99).tobytes()
    assert len(pixaris.runs()) == 1


def test_an_object_of_somebody_else_is_not_overwritten(command_line: CommandLine, pixaris: Reader) -> None:
    """Goal: nothing remote is overwritten. Method: another content under the name of an image; exit 3."""
    run, other = store_run(command_line.folder), store_run(command_line.folder, "other")
    name = f"results/{run.key}/generated_images/image_0.png"
    pixaris._bucket().blob(name).upload_from_string(b"foreign")
    before = pixaris.objects()

    document = command_line.sync(expect=3)

    assert pixaris.objects()[name] == before[name]
    assert [problem["run"] for problem in document["problems"]] == [str(run.key)]
    assert "another content" in document["problems"][0]["cause"]
    assert document["problems"][0]["hint"]
    assert pixaris.runs() == [other.name]


def test_rows_become_visible_after_all_files_of_their_run(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader
) -> None:
    """Goal: files before row. Method: hold each run's last image back; meanwhile nobody may see its row."""
    runs = {store_run(proxied.folder, f"run-{number}", images=3).name for number in range(4)}
    held, release = set[str](), threading.Event()
    lock = threading.Lock()

    def hold_one_image_of_each_run(request: Request) -> Answer | None:
        run = next((run for run in runs if "/upload/" in request.path and request.mentions(run)), None)
        with lock:
            hold = run is not None and run not in held
            held.update({run} if run else ())
        if hold:
            release.wait(30)
        return None

    proxies.storage.rule = hold_one_image_of_each_run
    with proxied.start("sync") as process:
        try:
            eventually(lambda: proxies.uploads == 12, "all images are on their way")
            eventually(lambda: len(pixaris.objects()) == 8, "all images but those held back arrived")
            early = [pixaris.runs() for _ in range(5)]
            release.set()
            seen_early = _poll_while_running(process, pixaris)
        finally:
            release.set()
            process.wait(60)

    assert early == [[]] * 5
    assert proxies.deliveries > 0
    assert seen_early == []
    assert process.returncode == 0
    assert set(pixaris.runs()) == runs


def _poll_while_running(process: "subprocess.Popen[str]", pixaris: Reader) -> list[str]:
    """Runs whose row could be read while one of their images could not."""
    early: list[str] = []
    while process.poll() is None:
        visible = pixaris.runs()
        objects = pixaris.objects()
        early += [run for run in visible if sum(f"/{run}/generated_images/" in name for name in objects) < 3]
    return early


def test_a_row_with_an_image_that_cannot_be_uploaded_is_never_sent(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader
) -> None:
    """Goal: files before row, whatever fails. Method: one image of one run is answered with 503 for ever."""
    bad, good = store_run(proxied.folder, "bad", images=3), store_run(proxied.folder, "good", images=3)

    def refuse(request: Request) -> Answer | None:
        refused = "/upload/" in request.path and request.mentions(f"{bad.name}/generated_images/image_1.png")
        return unavailable() if refused else None

    proxies.storage.rule = refuse
    document = proxied.having(retry_delay_seconds_min=0.01).sync("--sync-attempts-limit", "2", expect=5)

    assert document["runs"]["failing"] == 1
    assert pixaris.runs() == [good.name]
    proxies.storage.rule = lambda _: None
    proxied.sync()
    assert pixaris.runs() == sorted([bad.name, good.name])


def _fingerprint(folder: Path) -> dict[str, tuple[object, ...]]:
    """Everything about every entry of a folder but its access time, which reading may change."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [folder, *sorted(folder.rglob("*"))]:
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path)] = (
            *(status.st_ino, status.st_mode, status.st_uid, status.st_size),
            *(status.st_mtime_ns, status.st_ctime_ns, status.st_nlink),
            content,
        )
    return found


def test_the_local_folder_stays_as_it_is(command_line: CommandLine) -> None:
    """Goal: read-only at home. Method: every kind of trouble in it; compare bytes, times and inodes."""
    store_run(command_line.folder, args={"flow": {"a": 1}, "image": Image.new("L", (2, 2))})
    cut = store_run(command_line.folder, "cut").folder / "generated_images" / "image_0.png"
    cut.write_bytes(cut.read_bytes()[:40])
    (command_line.folder / PROJECT / "feedback_iterations").mkdir()
    (command_line.folder / "stray.txt").write_text("stray")
    with (command_line.folder / PROJECT / DATASET / "experiment_tracking.jsonl").open("a") as tracking:
        tracking.write('{"torn')
    before = _fingerprint(command_line.folder)

    for command in (("sync",), ("sync", "--full"), ("status",), ("retry", "--all"), ("sync",)):
        command_line.run(*command)

    assert _fingerprint(command_line.folder) == before


def test_a_folder_that_cannot_be_written_is_enough(command_line: CommandLine, pixaris: Reader) -> None:
    """Goal: a service may mount it read-only. Method: take away write permission, also from root."""
    store_run(command_line.folder)
    folders = [command_line.folder, *(path for path in command_line.folder.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        outcome = command_line.run("sync", powerless=True)
    finally:
        for folder in folders:
            folder.chmod(0o755)

    assert outcome.code == 0, str(outcome)
    assert len(pixaris.runs()) == 1


def test_the_state_is_for_its_owner_only(command_line: CommandLine) -> None:
    """Goal: records can hold prompts. Method: modes of everything in the state folder, without a umask."""
    store_run(command_line.folder)

    with command_line.start("sync", umask=0) as process:
        assert process.wait(60) == 0

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in command_line.state_dir.iterdir()}
    assert stat.S_IMODE(command_line.state_dir.stat().st_mode) == 0o700
    assert len(command_line.ledgers()) == 1
    assert set(modes.values()) == {0o600}, modes


def test_a_tracking_file_of_another_name_is_read(command_line: CommandLine, pixaris: Reader) -> None:
    """Goal: dataset_tracking_file_name. Method: store with another name; with and without the setting."""
    named = store_run(command_line.folder, dataset_tracking_file_name="mine.jsonl")

    assert command_line.sync("--incomplete-after-seconds", "3600", expect=5)["rows_synced"] == 0
    assert command_line.sync("--dataset-tracking-file-name", "mine.jsonl")["rows_synced"] == 1

    assert pixaris.runs() == [named.name]


def test_runs_of_one_name_in_one_second_share_their_files_and_have_a_row_for_each_record(
    command_line: CommandLine, pixaris: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: two records, one folder; equal lines are one. Method: stop the clock; lose the ledger."""
    moment = time.localtime()
    at = time.strftime("%Y%m%d-%H%M%S", moment)
    monkeypatch.setattr("pixaris.experiment_handlers.local.time.strftime", lambda _: at)
    for seed in (1, 1, 2):
        store_run(command_line.folder, "same", args={"seed": seed})

    first = command_line.sync()
    command_line.forget_ledger()
    second = command_line.sync()

    assert (first["rows_synced"], second["rows_synced"]) == (2, 2)
    assert (first["repeated_lines"], second["repeated_lines"]) == (1, 1)
    assert sorted(pixaris.frame()["seed"]) == [1, 2]
    assert sorted(pixaris.objects()) == [
        f"results/{PROJECT}/{DATASET}/{at}_same/generated_images/image_0.png"
    ]


def test_an_image_named_by_its_suffix_alone_goes_and_other_kinds_are_told(
    command_line: CommandLine, pixaris: Reader
) -> None:
    """Goal: nothing is left out without a word. Method: Pixaris saves `.a.png`; webp, gif beside."""
    run = store_run(command_line.folder, images=[(picture(), ".a.png"), (picture(1), "b.png")])
    images = run.folder / "generated_images"
    picture().save(images / "c.jpg")
    picture().save(images / "d.webp")
    picture().save(images / "e.GIF", "GIF")
    (images / "._b.png").touch()
    (images / "notes.txt").touch()

    document = command_line.sync()

    paths = (f"generated_images/{name}" for name in (".png", "b.png", "c.jpg"))
    assert set(pixaris.objects()) == run_objects(run, *paths)
    [notice] = document["problems"]
    assert (notice["run"], notice["state"]) == (str(run.key), "notice")
    assert notice["cause"].endswith("which Pixaris does not list: .gif, .webp")
    assert command_line.status()["problems"] == document["problems"]
    (images / "d.webp").unlink()
    (images / "e.GIF").unlink()
    assert command_line.sync()["problems"] == []
    assert command_line.run("verify").code == 0
