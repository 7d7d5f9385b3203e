"""The command ``status``: what it says of everything, and of one run."""

import json
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import CommandLine
from tests.support.proxy import UPLOADS, Answer, Proxies, Request, unavailable
from tests.support.schemas import misfit
from tests.support.stored_runs import append_line, store_run
from tests.support.terminals import Terminal
from tests.support.waiting import eventually


@contextmanager
def held_back(proxied: CommandLine, proxies: Proxies, *arguments: str, uploads: int) -> Iterator[None]:
    """A command at work: so many uploads are on their way. They never arrive, and it is killed at the end."""
    release = threading.Event()

    def hold(request: Request) -> Answer | None:
        if not request.matches(UPLOADS):
            return None
        release.wait(30)
        return unavailable()

    proxies.forget()
    usual, proxies.storage.rule = proxies.storage.rule, hold
    with proxied.start(*arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: proxies.uploads == uploads, "uploads are on their way")
            yield
        finally:
            process.send_signal(signal.SIGKILL)
            release.set()
            proxies.storage.rule = usual


def test_status_says_who_carries_what_waits_and_who_does_not(proxied: CommandLine, proxies: Proxies) -> None:
    """Goal: nobody waits for what nobody carries; the torn file is named; one is "1 run", not "1 runs".

    Method: two projects, of one a `backfill` that is held back; then it is killed, and nobody is at work.
    """
    store_run(proxied.folder, project="a")
    other = store_run(proxied.folder, project="b")
    append_line(other.tracking, '{"experiment_run_name": "20')
    with held_back(proxied, proxies, "sync", uploads=2):
        pass
    with held_back(proxied, proxies, "backfill", "--project", "a", uploads=1):
        during, document = proxied.run("status").stdout, proxied.status()
    after = proxied.run("status").stdout

    left_out = "left out by `pixaris-sync backfill --project a`, which is at work: run `pixaris-sync sync` "
    assert f"1 pending: {left_out}afterwards\n" in during
    assert "1 pending: being uploaded\n" in during
    assert "(pixaris-sync backfill --project a, since " in document["owner"]
    assert f"\nwork  {document['owner']}\n" in during
    nobody = "no process works on this folder: `pixaris-sync sync` or `pixaris-sync watch` carries what waits"
    assert f"\nwork  {nobody}\n" in after
    assert "left out by" not in after
    torn = f"{other.key.dataset_key}/{other.tracking.name}"
    assert f"\ntorn  the last line of {torn} is unfinished\n" in after
    assert (document["torn_files"], document["torn_lines"]) == ([torn], 1)


def test_status_of_a_run_tells_its_story(proxied: CommandLine, proxies: Proxies) -> None:
    """Goal: what became of this run? Method: a synced run and a waiting one, by both of their names.

    Then two runs of one name, and a name that nobody has.
    """
    run = store_run(proxied.folder, images=2)
    proxied.sync()
    twin = proxied.folder / run.key.project / "twin"
    shutil.copytree(run.folder.parent, twin)
    proxies.storage.rule = lambda request: unavailable() if request.matches(UPLOADS) else None
    proxied.having(sync_attempts_limit=1).sync(expect=5)

    outcome = proxied.run("status", str(run.key))
    assert outcome.code == 0, str(outcome)
    assert outcome.stdout.startswith(f"{run.key}: synced (since 20")
    bucket = proxied.environment["PIXARIS_SYNC_GCP_PIXARIS_BUCKET_NAME"]
    assert f"\n  bucket  gs://{bucket}/results/{run.key}/\n" in outcome.stdout
    told = proxied.run("status", "--json", run.name, str(run.key)).document["runs"]
    assert [(one["run"], one["state"]) for one in told] == [
        (str(run.key), "synced"),
        (f"{run.key.project}/twin/{run.name}", "failing"),
    ]
    synced, failing = told
    assert 0 < synced["seconds"] < 60
    assert {one["path"]: one["state"] for one in synced["files"]} == {
        "generated_images/image_0.png": "uploaded",
        "generated_images/image_1.png": "uploaded",
    }
    [row] = synced["rows"]
    assert (row["line"], row["state"], row["sends"]) == (1, "synced", 1)
    assert row["found_at"] <= row["accepted_at"] <= row["since"]
    assert failing["cause"]
    assert {one["attempts"] for one in failing["files"]} == {1}

    unknown, of_retry = proxied.run("status", "nobody"), proxied.run("retry", "nobody")
    assert unknown.code == of_retry.code == 1
    cause = "cannot tell of run nobody: the ledger knows no run of this name\n"
    hint = "hint: name it as project/dataset/run, as `pixaris-sync status` does\n"
    assert unknown.stderr == f"error: {cause}{hint}"


@pytest.mark.large
def test_status_watch_shows_everything_as_it_changes(
    proxied: CommandLine, proxies: Proxies, tmp_path: Path
) -> None:
    """Goal: one looks instead of asking. Method: terminals of three widths, and a pipe, through a pass.

    At first nothing was ever synced; then uploads are held back, then all is synced. One terminal is resized
    meanwhile. In the end the last view stands there, and the cursor is back.
    """
    runs = [store_run(proxied.folder, f"run-{number}", dataset=f"set_{number}") for number in range(3)]
    with ExitStack() as stack:
        terminals = [
            stack.enter_context(Terminal(proxied, "status", "--watch", columns=columns, rows=40))
            for columns in (80, 120, 200)
        ]
        printed = tmp_path / "printed"
        piped = stack.enter_context(Terminal(proxied, "status", "--watch", "--json", stdout=printed))

        def all_show(*patterns: str) -> bool:
            return all(
                re.search(one, "\n".join(of.seen.rows()), re.MULTILINE)
                for of in terminals
                for one in patterns
            )

        eventually(lambda: all_show(r"waiting for the\s+first pass"), "nothing was synced yet")
        with held_back(proxied, proxies, "sync", uploads=3):
            eventually(
                lambda: all_show(
                    r"^work +process \d+ on .*\(pixaris-sync sync,",
                    r"^now +3 files .* and 3 rows left",
                    r"^project/set_1 +0 +1 +0 ",
                    r"^all +0 +3 +0 ",
                ),
                "three runs are under way",
            )
            terminals[0].resize(100)
        eventually(lambda: all_show("^work +no process works on this folder$"), "it was killed")
        proxied.sync()
        done = [r"^all +3 +0 +0 ", r"^now +everything is synced", rf"{runs[2].name} +1 "]
        eventually(lambda: all_show(*done), "everything is synced")

        def documents() -> list[dict[str, Any]]:
            return [json.loads(line) for line in printed.read_text().splitlines()]

        eventually(
            lambda: [one["runs"]["synced"] for one in documents()[-1:]] == [3], "the last document says so"
        )
        assert [misfit("status", one) for one in documents()] == [""] * len(documents())
        for terminal in terminals:
            lines = terminal.seen.rows()
            assert lines[0].startswith("from    ")
            assert [line[:8].rstrip() for line in lines if re.match(r"[a-z]+ {2,8}\S", line[:9])].count(
                "now"
            ) == 1
            assert len([line for line in lines if line.startswith("project/set_1/")]) == 1
            assert "line to row" in next(line for line in lines if line.startswith("last synced"))
            assert not terminal.seen.cursor_shows

        for terminal in (*terminals, piped):
            terminal.process.send_signal(signal.SIGINT)
        assert [terminal.wait() for terminal in (*terminals, piped)] == [0] * 4
        assert all_show(*done)
        assert all(terminal.seen.cursor_shows for terminal in terminals)
