"""``watch --sync-at-stop`` beside a training that ends: what that stored last is in the cloud before.

So Kubernetes ends a pod: the container of its trainer ends, then its sidecar gets SIGTERM, and with the pod
its disk is gone. Trainer, sidecar and emulators are processes of their own.
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.support.command_line import TIMEOUT_SECONDS, CommandLine, Watching
from tests.support.proxy import Answer, Proxies, Request, unavailable
from tests.support.stored_runs import DATASET, PROJECT, Reader, StoredRun, store_run
from tests.support.trainer import IMAGES
from tests.support.waiting import eventually

#: Nothing but file events, and the signal, makes it look.
_SIDECAR = ("--sync-at-stop", "--rescan-interval-seconds", "86400", "--drain-timeout-seconds", "60")
#: How often it is stopped at an instant of chance.
STOPS = int(os.environ.get("PIXARIS_SYNC_TEST_STOPS", "2"))


def _late(seconds: float) -> Callable[[Request], Answer | None]:
    def rule(_: Request) -> None:
        time.sleep(seconds)

    return rule


def _last_line(watch: Watching) -> str:
    return watch.log().splitlines()[-1]


@pytest.mark.parametrize("latency_seconds", [pytest.param(0.0, marks=pytest.mark.large), 0.2])
def test_the_run_is_in_the_cloud_before_the_pod_may_end(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader, tmp_path: Path, latency_seconds: float
) -> None:
    """Goal: acceptance 5. Method: SIGTERM as soon as a real trainer has ended, near and far from the cloud.

    After the sidecar's end Pixaris reads every run of the trainer with all of its images, and nobody needs
    its ledger.
    """
    proxies.set_rule(_late(latency_seconds))
    with Watching(proxied, tmp_path, *_SIDECAR) as watch:
        watch.wait_until_ready()
        trainer = subprocess.run(
            [sys.executable, "-m", "tests.support.trainer", proxied.folder, "2"],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            check=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
        assert watch.end() == 0, watch.log()

    assert _last_line(watch).endswith("stopped: nothing waits")
    names = trainer.stdout.split()
    assert pixaris.runs() == sorted(names)
    objects = pixaris.objects()
    for name in names:
        folder = f"results/{PROJECT}/{DATASET}/{name}"
        images = {f"{folder}/generated_images/image_{at}.png" for at in range(IMAGES)}
        assert images | {f"{folder}/flow.json"} <= objects.keys()


@pytest.mark.timeout(120 + 20 * STOPS)
def test_whenever_it_is_stopped_what_was_stored_by_then_is_carried(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: no instant at which it loses a run.

    Method: a handler goes on storing while it is stopped, at instants of chance (PIXARIS_SYNC_TEST_STOPS of
    them); each run whose line was there when the signal was sent has its row at its end, and once.
    """
    chance = random.Random(os.environ.get("PIXARIS_SYNC_TEST_STOPS_SEED", "1"))  # noqa: S311 - no secret
    proxies.set_rule(_late(0.05))
    stored: list[StoredRun] = []
    for stop in range(STOPS):
        ended = threading.Event()

        def store(number: int, ended: threading.Event) -> None:
            while not ended.wait(0.02):
                stored.append(store_run(proxied.folder, f"stop{number}-{len(stored)}"))

        with Watching(proxied, tmp_path, *_SIDECAR) as watch:
            watch.wait_until_ready()
            trainer = threading.Thread(target=store, args=(stop, ended))
            trainer.start()
            try:
                # How long it takes from a line to its row, and longer.
                time.sleep(chance.uniform(0.0, 2.0))
                by_then = [run.name for run in stored]
                watch.process.send_signal(signal.SIGTERM)
                eventually(partial(watch.told, "STOPPING"), "it was told to stop")
            finally:
                ended.set()
                trainer.join(TIMEOUT_SECONDS)
            # What was stored after its last look is told by nobody: at most that waits.
            assert watch.process.wait(TIMEOUT_SECONDS) in (0, 5), watch.log()
        rows = pixaris.runs()
        assert set(by_then) <= set(rows), f"stop {stop}: {watch.log()}"
        assert len(rows) == len(set(rows))


def test_a_pause_ends_where_nobody_may_go_on_after_it(
    command_line: CommandLine, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: what was to wait is not lost. Method: `pause`, a run, SIGTERM: it is carried; the log says so."""
    with Watching(command_line, tmp_path, *_SIDECAR) as watch:
        watch.wait_until_ready()
        assert command_line.run("pause").code == 0
        run = store_run(command_line.folder)
        watch.until(lambda: command_line.status()["runs"]["pending"] == 1, "the run is found, and waits")
        assert watch.end() == 0, watch.log()

    assert "the pause is over" in watch.log()
    assert pixaris.runs() == [run.name]


def test_where_the_time_is_up_the_last_line_and_the_exit_code_say_what_is_left(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: nobody takes a lost run for a synced one.

    Method: an outage that outlasts the time that it has; it exits with 5 in time, and a later pass, where
    the disk is still there, carries the run.
    """
    flags = (*_SIDECAR[:-1], "2")
    eager = proxied.having(retry_delay_seconds_min=0.05, retry_delay_seconds_max=0.2)
    with Watching(eager, tmp_path, *flags) as watch:
        watch.wait_until_ready()
        proxies.set_rule(lambda _: unavailable())
        run = store_run(proxied.folder)
        begun = time.monotonic()
        assert watch.end() == 5, watch.log()
        assert time.monotonic() - begun >= 1.6

    assert "not all could be carried within 1.6 s" in watch.log()
    assert _last_line(watch).endswith("stopped: 1 run waits")
    proxies.set_rule(lambda _: None)
    assert proxied.having(doubt_settle_seconds=1).sync()["runs"]["synced"] == 1
    assert pixaris.runs() == [run.name]


def test_a_run_that_somebody_must_look_at_is_told(command_line: CommandLine, tmp_path: Path) -> None:
    """Goal: exit codes of `sync`. Method: an image that is cut short, and counts as old at once."""
    hasty = command_line.having(young_file_seconds=0)
    run = store_run(command_line.folder)
    for image in (run.folder / "generated_images").iterdir():
        image.write_bytes(image.read_bytes()[:40])
    with Watching(hasty, tmp_path, *_SIDECAR) as watch:
        watch.wait_until_ready()
        assert watch.end() == 3, watch.log()

    assert _last_line(watch).endswith("stopped: 1 run needs attention")


@pytest.mark.large
def test_a_second_signal_ends_it_at_once_and_claims_nothing(
    proxied: CommandLine, proxies: Proxies, pixaris: Reader, tmp_path: Path
) -> None:
    """Goal: a person in haste. Method: an upload that is held for ever, two SIGTERMs: 5, not 0."""
    release = threading.Event()

    def held(_: Request) -> None:
        release.wait(TIMEOUT_SECONDS)

    with Watching(proxied, tmp_path, *_SIDECAR) as watch:
        try:
            watch.wait_until_ready()
            proxies.set_rule(held)
            run = store_run(proxied.folder)
            watch.process.send_signal(signal.SIGTERM)
            watch.until(lambda: watch.told("STOPPING"), "it says that it stops")
            assert watch.end() == 5, watch.log()
        finally:
            release.set()

    proxies.set_rule(lambda _: None)
    assert proxied.having(doubt_settle_seconds=1).sync()["runs"]["synced"] == 1
    assert pixaris.runs() == [run.name]
