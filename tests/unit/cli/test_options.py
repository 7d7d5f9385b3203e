"""Flags are made from the settings, so that names, help and defaults cannot drift apart."""

from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from pixaris_sync.cli import inspect, passes
from pixaris_sync.cli.app import _needed, app
from pixaris_sync.cli.exits import Exit
from pixaris_sync.cli.options import FOLDER, OF_SERVICE, WHERE, shown_default
from pixaris_sync.settings.fields import SETTINGS

#: Typer carries its own click: what it makes of commands is looked at by attributes, not by class.
GROUP: Any = typer.main.get_command(app)
TUNED = ("doctor", "watch", "sync", "backfill")
ASKING = ("status", "verify", "retry", "limit", "pause", "resume", "prune", "pull")


def options(name: str) -> dict[str, Any]:
    return {flag: one for one in GROUP.commands[name].params for flag in one.opts}


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"})


def test_every_command_of_the_table_is_there() -> None:
    """Goal: nothing promised is missing. Method: the command group's names."""
    assert set(GROUP.commands) == {*TUNED, *ASKING, "config", "ui", "sandbox", "demo"}


@pytest.mark.parametrize("name", TUNED)
def test_settings_are_flags_of_the_same_name(name: str) -> None:
    """Goal: one name everywhere. Method: look each key up; its help is the setting's own description."""
    flags = options(name)
    for key, field in SETTINGS.items():
        flag = f"--{key.replace('_', '-')}"
        if not field.has_flag or (key in OF_SERVICE and name != "watch"):
            assert flag not in flags
            continue
        option = flags[flag]
        assert option.name == key
        assert option.default is None, "an absent flag must not hide environment or file"
        assert option.help.startswith(field.description), key
        assert option.help.endswith(shown_default(key)), key


def test_the_shown_default_is_that_of_the_setting() -> None:
    """Goal: help tells the truth. Method: a setting of each kind."""
    kinds = {
        "gcp_project_id": "[required]",
        "state_dir": "[default: none]",
        "local_results_folder": "[default: local_results]",
        "upload_concurrency_limit": "[default: 192]",
        "drain_timeout_seconds": "[default: 30]",
        "accept_runs_without_images": "[default: off]",
        "quiet": "[default: on]",
    }
    assert {key: shown_default(key) for key in kinds} == kinds


def test_what_a_machine_is_told_once_has_no_flag() -> None:
    """Goal: a short --help. Method: the settings that only the environment and the file set."""
    assert {key for key in SETTINGS if not SETTINGS[key].has_flag} == {
        "bigquery_endpoint",
        "bulk_spacing_seconds",
        "doubt_settle_seconds",
        "gcp_bq_feedback_table",
        "job_timeout_seconds",
        "load_rows_limit",
        "load_spacing_seconds",
        "loads_per_day_limit",
        "resumable_threshold_bytes",
        "retry_delay_seconds_max",
        "retry_delay_seconds_min",
        "storage_endpoint",
        "stream_rows_limit",
        "table_settle_seconds",
        "visibility_timeout_seconds",
        "warehouse_threads_limit",
    }


@pytest.mark.parametrize("name", ASKING)
def test_commands_that_ask_take_what_finds_the_ledger(name: str) -> None:
    """Goal: short help. Method: flags for where, none for tuning."""
    flags = set(options(name))
    assert {f"--{key.replace('_', '-')}" for key in WHERE} <= flags
    assert "--chunk-bytes" not in flags


def test_the_ui_takes_what_finds_the_cloud() -> None:
    """Goal: short help. Method: flags for the destination, none for a folder that it does not read."""
    flags = options("ui")
    assert {f"--{key.replace('_', '-')}" for key in WHERE if key not in FOLDER} <= flags.keys()
    assert not {f"--{key.replace('_', '-')}" for key in FOLDER} & flags.keys()


@pytest.mark.parametrize("name", [*TUNED, *ASKING, "ui"])
def test_every_command_takes_pixaris_config(name: str) -> None:
    """Goal: `--config config.yaml` everywhere. Method: look it up."""
    assert "--config" in options(name)


@pytest.mark.parametrize("name", ["sync", "backfill", *ASKING])
def test_every_command_that_reports_speaks_json(name: str) -> None:
    """Goal: machines are served. Method: look the flag up."""
    assert "--json" in options(name)


def test_the_promised_short_flag_for_draining_is_there() -> None:
    """Goal: `--drain-timeout` as documented. Method: it is the setting's other name."""
    assert options("watch")["--drain-timeout"].name == "drain_timeout_seconds"


def test_the_promised_short_flag_for_bandwidth_is_there() -> None:
    """Goal: `--bandwidth-limit` as documented. Method: look it up, also in `limit`."""
    assert options("sync")["--bandwidth-limit"].name == "bandwidth_limit_bytes_per_second"
    assert {"--bandwidth-limit", "--max-cpu-percent"} <= options("limit").keys()


@pytest.mark.parametrize("name", [*TUNED, *ASKING, "sandbox", "demo"])
def test_help_is_answered_without_work(name: str) -> None:
    """Goal: help needs no settings. Method: ask each command; its first line is the docstring's."""
    found = run(name, "--help")
    assert found.exit_code == 0
    first_line = GROUP.commands[name].help.strip().splitlines()[0]
    assert first_line
    assert first_line[:40] in found.output


def test_flags_reach_the_settings_and_absent_ones_do_not(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Goal: precedence is decided in one place. Method: catch what `sync` hands on."""
    seen: dict[str, Any] = {}

    def catch(name: str, mode: Any, flags: dict[str, Any], config: Path | None, **options: bool) -> Exit:
        seen.update(name=name, full=mode.full, flags=flags, config=config, **options)
        return Exit.PROBLEMS

    monkeypatch.setattr(passes, "run_pass", catch)
    config = tmp_path / "config.yaml"
    flags = ["--chunk-bytes", "262144", "--no-accept-runs-without-images", "--config", str(config), "--json"]
    found = run("sync", "--full", *flags)
    assert found.exit_code == Exit.PROBLEMS
    given = {key: value for key, value in seen.pop("flags").items() if value is not None}
    assert given == {"chunk_bytes": "262144", "accept_runs_without_images": False}
    assert seen == {"name": "sync", "full": True, "config": config, "as_json": True, "repair": False}
    run("sync", "--repair")
    assert (seen["full"], seen["repair"]) == (False, True)
    assert run("backfill", "--repair").exit_code == Exit.USAGE


def test_retry_takes_names_or_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: runs can be named. Method: catch what `retry` hands on."""
    seen: list[tuple[list[str], bool]] = []

    def catch(names: list[str], *_: Any, all_runs: bool, as_json: bool) -> Exit:
        assert not as_json
        seen.append((names, all_runs))
        return Exit.OK

    monkeypatch.setattr(inspect, "retry", catch)
    assert run("retry", "a/b/c", "d").exit_code == 0
    assert run("retry", "--all").exit_code == 0
    assert seen == [(["a/b/c", "d"], False), ([], True)]


@pytest.mark.parametrize(
    "arguments", [("sink",), ("sync", "--no-such-flag"), ("demo", "--runs", "0"), ("sync", "--chunk-bytes")]
)
def test_a_wrong_command_line_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    """Goal: exit 2. Method: an unknown command, an unknown flag, a value out of range, a missing one."""
    assert run(*arguments).exit_code == Exit.USAGE


def test_the_version_is_told() -> None:
    """Goal: bug reports name it. Method: `--version`."""
    found = run("--version")
    assert (found.exit_code, found.output.split()[0]) == (0, "pixaris-sync")


@pytest.mark.parametrize("name", [*TUNED, *ASKING, "ui", "sandbox", "demo"])
def test_a_command_alone_is_what_it_is_among_all(name: str) -> None:
    """Goal: what is built for one command lacks nothing of it. Method: its help, alone and in the whole."""
    alone: Any = typer.main.get_command(_needed([name, "--help"]))
    assert set(alone.commands) == {name}
    told = [
        CliRunner().invoke(one, [name, "--help"], prog_name="pixaris-sync").output
        for one in (_needed([name]), app)
    ]
    assert told[0] == told[1]


@pytest.mark.parametrize("arguments", [[], ["--help"], ["config", "show"], ["syn"], ["--version"], ["Sync"]])
def test_what_names_no_command_of_the_first_level_gets_the_whole(arguments: list[str]) -> None:
    """Goal: help, completion and suggestions know all commands. Method: such command lines."""
    assert _needed(arguments) is app
