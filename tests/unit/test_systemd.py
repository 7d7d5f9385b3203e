"""The units: systemd understands them and rates them well, and they fit the program that they start."""

import re
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from pixaris_sync.cli.exits import Exit
from pixaris_sync.process.systemd import STATUS_INTERVAL_SECONDS_MAX
from pixaris_sync.settings.fields import SETTINGS
from pixaris_sync.settings.model import environment_variable

REPOSITORY = Path(__file__).parents[2]
UNITS = REPOSITORY / "systemd"
WATCHING = ("pixaris-sync.service", "pixaris-sync@.service", "user/pixaris-sync.service")
SYSTEM_SERVICES = ("pixaris-sync.service", "pixaris-sync@.service", "pixaris-sync-once.service")
#: What differs between the services: what they run, when, and how it may end.
OWN_KEYS = frozenset(
    {
        "EnvironmentFile",
        "ExecStart",
        "NotifyAccess",
        "Restart",
        "RestartPreventExitStatus",
        "RestartSec",
        "SuccessExitStatus",
        "TimeoutStartSec",
        "TimeoutStopSec",
        "Type",
        "WatchdogSec",
    }
)


def service(name: str, wanted: str = "[Service]") -> dict[str, list[str]]:
    """The [Service] section of a unit, or another one: key to values, in their order."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    section = ""
    for line in (UNITS / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            section = line
        elif section == wanted and line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key].append(value)
    return dict(found)


def seconds(span: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(s|min)", span).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "min": 60}[unit]


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine; CI installs it"
)
def test_systemd_understands_the_units_and_rates_the_sandbox_ok_or_better() -> None:
    """Goal: units that load, and a tight sandbox. Method: the check of CI, on systemd's own tools."""
    checked = subprocess.run(
        [REPOSITORY / ".ci" / "check-units"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count("understood") == len(list(UNITS.rglob("*.service"))) + 2
    assert checked.stdout.count("exposure level") == len(SYSTEM_SERVICES)


def test_all_services_have_the_same_sandbox_and_limits() -> None:
    """Goal: what was tightened in one unit is so in all. Method: compare what is not each unit's own."""
    shared = [
        {key: values for key, values in service(name).items() if key not in OWN_KEYS}
        for name in SYSTEM_SERVICES
    ]
    assert "SystemCallFilter" in shared[0]
    assert shared[1:] == shared[:-1]


def test_the_services_are_last_in_line_among_all_of_the_machine() -> None:
    """Goal: training that users start goes first. Method: one slice at the top, of the least weight."""
    for name in SYSTEM_SERVICES:
        unit = service(name)
        [slice_name] = unit["Slice"]
        # A dash makes a slice within another; within a slice, weights count among its own services alone.
        assert "-" not in slice_name
        assert not {"CPUWeight", "IOWeight"} & unit.keys()
        assert service(slice_name, "[Slice]") == {"CPUWeight": ["1"], "IOWeight": ["1"]}


@pytest.mark.parametrize("name", WATCHING)
def test_watch_tells_of_itself_and_is_given_the_time_it_needs(name: str) -> None:
    """Goal: no kill before a limit of our own. Method: the units' times against the defaults of settings."""
    unit = service(name)
    assert unit["Type"] == ["notify"]
    assert unit["NotifyAccess"] == ["main"]
    assert unit["ExecStart"][0].endswith("/bin/pixaris-sync watch")
    drain = SETTINGS["drain_timeout_seconds"].default
    request = SETTINGS["request_timeout_seconds"].default
    assert seconds(unit["TimeoutStopSec"][0]) > drain + request
    # Bucket and dataset are looked at before it says that it is ready.
    assert seconds(unit["TimeoutStartSec"][0]) > 2 * request
    assert seconds(unit["WatchdogSec"][0]) > 2 * STATUS_INTERVAL_SECONDS_MAX


@pytest.mark.parametrize("name", WATCHING)
def test_watch_is_started_again_unless_somebody_must_act_first(name: str) -> None:
    """Goal: no loop of hopeless starts, and no end at a passing trouble. Method: exit codes in the unit."""
    unit = service(name)
    assert unit["Restart"] == ["on-failure"]
    assert unit["RestartPreventExitStatus"] == [f"{Exit.USAGE:d} {Exit.CONFIGURATION:d}"]


def test_a_pass_that_leaves_work_for_the_next_is_no_failed_unit() -> None:
    """Goal: being offline raises no alarm. Method: the codes that the one-shot unit takes for success."""
    unit = service("pixaris-sync-once.service")
    assert unit["Type"] == ["oneshot"]
    accepted = {int(code) for code in unit["SuccessExitStatus"][0].split()}
    assert accepted == {Exit.PROBLEMS, Exit.WORK_LEFT, Exit.OWNED, Exit.INTERRUPTED}


def test_the_example_of_settings_names_settings() -> None:
    """Goal: the example works when filled in. Method: each variable is one that the program reads."""
    known = {environment_variable(key) for key in SETTINGS} | {"GOOGLE_APPLICATION_CREDENTIALS"}
    lines = (UNITS / "env.example").read_text(encoding="utf-8").splitlines()
    named = {line.partition("=")[0] for line in lines if line and not line.startswith("#")}
    required = {environment_variable(key) for key, field in SETTINGS.items() if field.is_required}
    assert required <= named <= known
