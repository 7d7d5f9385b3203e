"""Metrics, alerts, dashboard and heartbeat of real processes, judged by the real Prometheus."""

import json
import math
import os
import re
import socket
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pixaris_sync.cli.exits import Exit
from tests.support.beacon import UNTOLD, Beacon, running_beacon
from tests.support.command_line import CommandLine, Watching
from tests.support.documents import DEPLOY
from tests.support.mounts import mounted_memory
from tests.support.prometheus import prometheus, promtool
from tests.support.proxy import Proxies, unavailable
from tests.support.recorded_metrics import Frame, Recording, check_alerts, hasty, parsed
from tests.support.stored_runs import store_run
from tests.support.waiting import eventually

MONITORING = DEPLOY / "monitoring"
ALERTS = MONITORING / "alerts.yml"
_EVENTS_ONLY = ("--rescan-interval-seconds", "86400")
_EAGER = {"retry_delay_seconds_min": 0.05, "retry_delay_seconds_max": 0.1, "table_settle_seconds": 0}
_SMALL_DISK_BYTES = 32 * 1024 * 1024


@pytest.fixture
def beacon() -> Iterator[Beacon]:
    with running_beacon() as beacon:
        yield beacon


@pytest.fixture
def textfile(tmp_path: Path) -> Path:
    return tmp_path / "pixaris_sync.prom"


@pytest.fixture
def told(textfile: Path, beacon: Beacon, command_line: CommandLine) -> CommandLine:
    """The command line with a textfile and a heartbeat."""
    return command_line.having(metrics_textfile=textfile, heartbeat_url=beacon.url, **_EAGER)


def value(frame: Frame, name: str, **labels: str) -> float:
    """What a metric says, summed up over the labels that are not given."""
    found = [
        value
        for (known, own), value in frame.items()
        if known == f"pixaris_sync_{name}" and labels.items() <= dict(own).items()
    ]
    assert found, f"{name} {labels} is not told"
    return sum(found)


def damage_run(folder: Path) -> None:
    """Store a run of which an image is cut short, and has been for long."""
    [image] = (store_run(folder, "damaged").folder / "generated_images").iterdir()
    image.write_bytes(image.read_bytes()[:-20])
    os.utime(image, (0, 0))


def test_a_pass_writes_metrics_and_beats_only_when_everything_is_synced(
    told: CommandLine, textfile: Path, beacon: Beacon, tmp_path: Path
) -> None:
    """Goal: timers are monitored. Method: a pass that ends well, one that does not, one that cannot write."""
    store_run(told.folder, images=2)
    assert told.run("sync").code == Exit.OK
    assert beacon.asked == [f"/{UNTOLD}?key={UNTOLD}"]
    frame = parsed(textfile.read_text())
    assert textfile.stat().st_mode & 0o777 == 0o644
    assert value(frame, "runs", state="synced") == value(frame, "rows_synced_total") == 1
    assert (
        value(frame, "files_sent_total") == value(frame, "requests_total", kind="upload", outcome="ok") == 2
    )
    assert value(frame, "at_work") == value(frame, "requests_total", outcome="transient") == 0
    assert value(frame, "line_to_row_seconds_count") == 1
    assert value(frame, "bandwidth_limit_bytes_per_second") == math.inf

    beacon.status = 503
    outcome = told.run("sync")
    assert outcome.code == Exit.OK
    assert "at 127.0.0.1 was not reached: it answered 503" in outcome.stderr
    assert UNTOLD not in outcome.stdout + outcome.stderr
    assert len(beacon.asked) == 2

    damage_run(told.folder)
    assert told.run("sync").code == Exit.PROBLEMS
    frame = parsed(textfile.read_text())
    assert (value(frame, "runs", state="quarantined"), value(frame, "files_sent_total")) == (1, 2)
    assert len(beacon.asked) == 2

    nowhere = told.having(metrics_textfile=tmp_path / "nowhere" / "x.prom", heartbeat_url=beacon.address)
    outcome = nowhere.run("sync")
    assert outcome.code == Exit.PROBLEMS
    assert outcome.stderr.count("metrics cannot be written to") == 1


def test_watch_tells_how_it_is_and_beats_while_all_is_well(
    told: CommandLine, textfile: Path, beacon: Beacon, tmp_path: Path
) -> None:
    """Goal: both while it works. Method: a run arrives, limits are in force; a damaged one ends the beats."""
    recording = Recording(textfile)
    with Watching(
        hasty(told), tmp_path, *_EVENTS_ONLY, "--bandwidth-limit", "5MB", "--max-cpu-percent", "50"
    ) as watch:
        watch.wait_until_ready()
        store_run(told.folder)
        recording.record(2, until=lambda frame: value(frame, "runs", state="synced") == 1)
        watch.until(lambda: len(beacon.asked) >= 2, "it beats")
        damage_run(told.folder)
        recording.record(1, until=lambda frame: value(frame, "runs", state="quarantined") == 1)
        recording.record(1)
        asked = len(beacon.asked)
        recording.record(20)
        assert len(beacon.asked) - asked <= 1, "one may have been on its way"
        frame = parsed(textfile.read_text())
        assert value(frame, "at_work") == 1
        assert value(frame, "bandwidth_limit_bytes_per_second") == 5e6
        assert value(frame, "processor_limit_cores") == 0.5
        assert value(frame, "uploads_limit") >= 1
        assert watch.end() == 0
    assert value(parsed(textfile.read_text()), "at_work") == 0
    assert UNTOLD not in watch.log()


def test_rules_and_examples_are_what_prometheus_takes() -> None:
    """Goal: they can be copied. Method: promtool's checks, and the unit tests of the rules."""
    for command in (
        ["check", "rules", "--lint-fatal", ALERTS.name],
        ["check", "config", "prometheus.yml"],
        ["test", "rules", "alerts_test.yml"],
    ):
        checked = subprocess.run(
            [promtool(), *command], cwd=MONITORING, capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.large
def test_no_alert_fires_on_what_a_healthy_process_tells(
    told: CommandLine, textfile: Path, tmp_path: Path
) -> None:
    """Goal: no false alarm. Method: some runs arrive; then nothing happens for two hours of scrapes."""
    recording = Recording(textfile)
    # Emulators take a second to show a row: that must not count as an hour.
    with Watching(hasty(told, look_seconds=0.05), tmp_path, *_EVENTS_ONLY) as watch:
        watch.wait_until_ready()
        for number in range(3):
            store_run(told.folder, f"run-{number}")
            recording.record(10)
        recording.record(120, until=lambda frame: value(frame, "runs", state="synced") == 3)
        assert watch.end() == 0
    for scraped in (True, False):
        check_alerts(ALERTS, recording.series(answers=0, scraped=scraped), set(), tmp_path)


@pytest.mark.large
def test_each_alert_fires_on_what_a_process_in_trouble_tells(
    told: CommandLine, textfile: Path, beacon: Beacon, proxies: Proxies, tmp_path: Path
) -> None:
    """Goal: acceptance 2. Method: a heartbeat is refused, a damaged run, an outage, a kill; a small disk.

    One process has all of that, one after the other. It is judged as it is scraped, and by its textfile.
    """
    recording, state = Recording(textfile), tmp_path / "small"
    beacon.status = 500
    with (
        mounted_memory(state, _SMALL_DISK_BYTES),
        Watching(
            hasty(told.but(**proxies.environment).having(state_dir=state)), tmp_path, *_EVENTS_ONLY
        ) as watch,
    ):
        watch.wait_until_ready()
        recording.record(35, until=lambda frame: value(frame, "heartbeats_total", outcome="failed") > 0)
        damage_run(told.folder)
        recording.record(20, until=lambda frame: value(frame, "runs", state="quarantined") == 1)
        proxies.set_rule(lambda _: unavailable())
        store_run(told.folder)
        recording.record(90, until=lambda frame: value(frame, "degraded", cause="bucket") == 1)
        assert value(parsed(textfile.read_text()), "retries_total") >= 3
        watch.kill()
    expected = {
        "PixarisSyncNothingSynced",
        "PixarisSyncOldestPending",
        "PixarisSyncRunsNeedAttention",
        "PixarisSyncDegraded",
        "PixarisSyncRequestsFail",
        "PixarisSyncLedgerDisk",
        "PixarisSyncHeartbeatFails",
    }
    killed = {"PixarisSyncDown", "PixarisSyncAbsent"}
    named = set(re.findall(r"alert: (\w+)", ALERTS.read_text()))
    check_alerts(ALERTS, recording.series(answers=30, scraped=True), expected | killed, tmp_path)
    check_alerts(
        ALERTS, recording.series(answers=30, scraped=False), expected | {"PixarisSyncSilent"}, tmp_path
    )
    assert named == expected | killed | {"PixarisSyncSilent"}


@pytest.mark.large
def test_every_query_of_the_dashboard_has_an_answer(
    told: CommandLine, textfile: Path, tmp_path: Path
) -> None:
    """Goal: no empty panel. Method: a real Prometheus scrapes a real process, and is asked each query."""
    with (
        Watching(hasty(told), tmp_path, *_EVENTS_ONLY) as watch,
        running_beacon() as exporter,
        running_prometheus(exporter.address, tmp_path) as server,
    ):
        watch.wait_until_ready()
        for number in range(2):
            store_run(told.folder, f"run-{number}")
        recording = Recording(textfile)
        recording.record(1, until=lambda frame: value(frame, "runs", state="synced") == 2)

        def up_to_date() -> float:
            exporter.content = textfile.read_bytes()
            found = ask(server, 'count_over_time(pixaris_sync_runs{state="synced"}[1m])')
            return float(found[0]["value"][1]) if found else 0

        eventually(lambda: up_to_date() >= 5, "it was scraped some times")
        queries = dashboard_queries()
        assert len(queries) >= 15
        empty = [query for query in queries if not ask(server, query)]
        rules = get(f"{server}/api/v1/rules")["data"]["groups"][0]["rules"]
        watch.end()
    assert empty == []
    assert {rule["health"] for rule in rules} == {"ok"}


def dashboard_queries() -> list[str]:
    """What the dashboard asks, as Grafana does for all instances."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    for name, meant in (
        ("$__rate_interval", "10s"),
        ("$instance", ".*"),
        ("$folder", ".*"),
        ("$__range", "1m"),
    ):
        queries = [query.replace(name, meant) for query in queries]
    assert not [query for query in queries if "$" in query]
    return queries


def ask(server: str, query: str) -> list[dict[str, Any]]:
    found = get(f"{server}/api/v1/query?{urllib.parse.urlencode({'query': query})}")
    assert found["status"] == "success", found
    result: list[dict[str, Any]] = found["data"]["result"]
    return result


def get(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - on loopback
        found: dict[str, Any] = json.load(answer)
    return found


@contextmanager
def running_prometheus(target: str, scratch: Path) -> Iterator[str]:
    """A real Prometheus that scrapes an address ten times a second, with our rules; its own address."""
    config, data = scratch / "prometheus.yml", scratch / "prometheus"
    config.write_text(
        "global: {scrape_interval: 200ms, evaluation_interval: 200ms}\n"
        f"rule_files: [{json.dumps(str(ALERTS))}]\n"
        "scrape_configs: [{job_name: pixaris-sync, static_configs: "
        f"[{{targets: [{json.dumps(target.removeprefix('http://'))}]}}]}}]\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (scratch / "prometheus.log").open("w")
    with (
        log,
        subprocess.Popen(
            [
                prometheus(),
                f"--config.file={config}",
                f"--storage.tsdb.path={data}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        ) as process,
    ):
        server = f"http://127.0.0.1:{port}"
        try:
            eventually(lambda: is_ready(server), "Prometheus is ready")
            yield server
        finally:
            process.terminate()


def is_ready(server: str) -> bool:
    try:
        with urllib.request.urlopen(f"{server}/-/ready", timeout=5) as answer:  # noqa: S310 - on loopback
            return bool(answer.status == 200)
    except OSError:
        return False
