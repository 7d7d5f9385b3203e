"""The command ``status``: what it says of everything, and of one run."""

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.command_line import CommandLine
from tests.support.proxy import Proxies, Request
from tests.support.stored_runs import append_line, store_run
from tests.support.waiting import eventually


@contextmanager
def held_back(proxied: CommandLine, proxies: Proxies, *arguments: str, uploads: int) -> Iterator[None]:
    """A command at work: so many uploads are on their way and do not arrive. It is killed at the end."""
    release = threading.Event()

    def hold(request: Request) -> None:
        if "/upload/" in request.path:
            release.wait(30)

    proxies.forget()
    proxies.storage.rule = hold
    with proxied.start(*arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: proxies.uploads == uploads, "uploads are on their way")
            yield
        finally:
            process.send_signal(signal.SIGKILL)
            release.set()


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

    leaves = "`pixaris-sync backfill --project a`, which is at work, leaves it out: run `pixaris-sync sync` "
    assert f"1 pending: {leaves}afterwards\n" in during
    assert "1 pending: its files are being uploaded\n" in during
    assert "(pixaris-sync backfill --project a, since " in document["owner"]
    assert f"\nwork  {document['owner']}\n" in during
    nobody = "no process works on this folder: `pixaris-sync sync` or `pixaris-sync watch` carries what waits"
    assert f"\nwork  {nobody}\n" in after
    assert "leaves it out" not in after
    torn = f"{other.key.dataset_key}/{other.tracking.name}"
    assert f"\ntorn  the last line of {torn} is unfinished\n" in after
    assert (document["torn_files"], document["torn_lines"]) == ([torn], 1)
