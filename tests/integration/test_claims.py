"""What is said is true: of tables that are made, of what was sent or is under way, of what can never work."""

import signal
import subprocess
import threading
from typing import Any

import pytest

from tests.support.command_line import CommandLine
from tests.support.proxy import Answer, Proxies, Request, refusal
from tests.support.stored_runs import DATASET, PROJECT, Reader, picture, store_run
from tests.support.waiting import eventually

TABLE = f"{PROJECT}_{DATASET}_experiment_results"


def counted(document: dict[str, Any], what: str) -> dict[str, int]:
    return {state: count for state, count in document[what].items() if count}


@pytest.mark.large
def test_a_table_is_said_to_be_created_once_it_is(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader
) -> None:
    """Goal: "table ... was created" is no intent. Method: the table is refused, then made, then altered."""

    def refuse(request: Request) -> Answer | None:
        is_creation = request.method == "POST" and request.path.endswith("/tables")
        return refusal(403, "accessDenied", "you may not make tables") if is_creation else None

    store_run(proxied.folder)
    proxies.bigquery.rule = refuse
    refused = proxied.run("sync")
    proxies.bigquery.rule = lambda _: None
    proxied.run("retry", "--all")
    made = proxied.run("sync")
    store_run(proxied.folder, "more", args={"seed": 1})
    altered = proxied.run("sync")

    assert "creat" not in refused.stderr.replace("cannot create table", "")
    assert f"table {TABLE} was created" in made.stderr, str(made)
    assert f"table {TABLE} has new columns: seed" in altered.stderr
    assert len(pixaris.runs()) == 2


def test_what_was_found_is_not_said_to_be_sent(command_line: CommandLine) -> None:
    """Goal: no "0 files uploaded (567 MiB)". Method: lose the ledger of one synced image, sync again."""
    run = store_run(command_line.folder)
    size = (run.folder / "generated_images" / "image_0.png").stat().st_size
    sent = command_line.sync()
    command_line.forget_ledger()
    text = command_line.run("sync").stdout
    command_line.forget_ledger()
    found = command_line.sync()

    amounts = ("files_uploaded", "bytes", "files_found", "bytes_found")
    assert [sent[amount] for amount in amounts] == [1, size, 0, 0]
    assert [found[amount] for amount in amounts] == [0, 0, 1, size]
    assert text.startswith(f"0 files uploaded (0 B), 1 found there ({size} B), 1 row synced in ")


def test_after_a_kill_nothing_is_said_to_be_under_way(proxied: CommandLine, proxies: Proxies) -> None:
    """Goal: `status` tells what is true. Method: hold an image back; look, kill the process, look again."""
    store_run(proxied.folder)
    release = threading.Event()

    def hold(request: Request) -> None:
        if "/upload/" in request.path:
            release.wait(30)

    proxies.storage.rule = hold
    with proxied.start("sync", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: proxies.uploads == 1, "the image is on its way")
            before = proxied.status()
            process.send_signal(signal.SIGKILL)
            process.wait()
            after = proxied.status()
        finally:
            release.set()
            process.kill()

    assert [waiting["cause"] for waiting in before["waiting"]] == ["being uploaded"]
    assert counted(before, "files") == {"uploading": 1}
    looked_up = "being looked up in the bucket, which may hold files already"
    assert [waiting["cause"] for waiting in after["waiting"]] == [looked_up]
    assert counted(after, "files") == {"in_doubt": 1}


def test_what_needs_somebody_is_not_said_to_need_time(command_line: CommandLine) -> None:
    """Goal: no "in doubt" of a row that nobody sent, no "young" of a name that can never work.

    Method: an image's name and a run's name that no cloud takes, both new, copied in as far as it shows;
    then a run without images.
    """
    cautious = command_line.having(still_folder_seconds=3600, incomplete_after_seconds=3600)
    image = store_run(command_line.folder, "image", images=[(picture(), "a\nb.png")])
    name = store_run(command_line.folder, "na\nme")

    document = cautious.sync(expect=3)
    empty = store_run(command_line.folder, "empty", dataset="empty", images=0)
    unhurried = command_line.sync(expect=3)

    refused = "carriage return or line feed: GCS refuses both"
    assert all(refused in problem["cause"] for problem in document["problems"])
    # Of the run, its line is told.
    told = [f"{image.key}", f"{name.key.dataset_key}/{name.tracking.name}:2"]
    assert sorted(problem["run"] for problem in document["problems"]) == sorted(told)
    assert document["waiting"] == []
    problems = {problem["run"]: problem["state"] for problem in unhurried["problems"]}
    assert problems[str(empty.key)] == "quarantined"
    assert counted(unhurried, "rows") == {"quarantined": 3}
