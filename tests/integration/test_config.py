"""Configuration through the real command: found by itself, shown, asked for, and each mistake explained."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from pixaris_sync.settings.fields import SETTINGS
from pixaris_sync.settings.model import environment_variable
from tests.support.command_line import CommandLine, Outcome, Watching
from tests.support.stored_runs import store_run
from tests.support.terminals import PLAIN, Terminal
from tests.support.waiting import eventually

COLUMNS = 80
ENV = shutil.which("env") or "env"
REQUIRED = [key for key, field in SETTINGS.items() if field.is_required]
_LOCAL = "local_results"
#: What a training machine's folder may hold that was never meant for us.
FOREIGN = ("services:\n  web:\n    image: nginx\nlog_level: loud\n", "- a\n- b\n", "just words\n", "")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that commands run in."""
    made = tmp_path / "work"
    made.mkdir()
    return made


@pytest.fixture
def bare(folder: Path, tmp_path: Path) -> CommandLine:
    """The real command in that folder, without a setting in its environment."""
    command_line = CommandLine(tmp_path / "results", tmp_path / "state", {})
    unset = {environment_variable(key): None for key in SETTINGS}
    state = {"XDG_STATE_HOME": str(tmp_path / "state"), "STATE_DIRECTORY": None}
    return command_line.but(**{**unset, **PLAIN, **state}).within(ENV, "-C", str(folder))


@pytest.fixture
def destined(bare: CommandLine, command_line: CommandLine) -> CommandLine:
    """The same, with emulators, and a file that names a bucket and a dataset in them."""
    hosts = {
        name: command_line.environment[name] for name in ("STORAGE_EMULATOR_HOST", "BIGQUERY_EMULATOR_HOST")
    }
    return bare.but(**hosts)


def destination(command_line: CommandLine, **more: str) -> str:
    """A config file for the test's bucket and dataset."""
    lines = [f"{key}: {command_line.environment[environment_variable(key)]}" for key in REQUIRED]
    section = {"quiet": "false", "still_folder_seconds": "0", **more}
    return "\n".join([*lines, "pixaris_sync:", *(f"  {key}: {value}" for key, value in section.items()), ""])


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def seen(command_line: CommandLine, *arguments: str) -> tuple[int, list[str]]:
    """Exit code and lines, as somebody sees them on a terminal of 80 columns."""
    with Terminal(command_line, *arguments, columns=COLUMNS) as terminal:
        code = terminal.wait()
        return code, terminal.seen.lines()


#: Of each mistake: the file, the environment, the flags; and what is said of it, with its remedy.
MISTAKES: dict[str, tuple[str, Mapping[str, str], tuple[str, ...], tuple[str, ...]]] = {
    "a number below its bounds": (
        "",
        {},
        ("--upload-concurrency-limit", "0"),
        (
            (
                "error: cannot use setting upload_concurrency_limit: it must be a whole number, at least 1 "
                "and at most 1024 (got '0' from flag --upload-concurrency-limit)"
            ),
            "hint: deploy/settings.md of the repository lists keys, units and bounds",
        ),
    ),
    "seconds beyond their bounds": (
        "pixaris_sync:\n  # patience\n  job_timeout_seconds: 99999999\n",
        {},
        (),
        (
            (
                "error: cannot use setting job_timeout_seconds: it must be a number of seconds, more than 0 "
                "and at most 2592000 (30 days) (got 99999999 from config.yaml line 6)"
            ),
        ),
    ),
    "bytes that are no multiple": (
        "",
        {"PIXARIS_SYNC_CHUNK_BYTES": "300000"},
        (),
        (
            (
                "error: cannot use setting chunk_bytes: it must be a whole number of bytes, at least 262144 "
                "(256 KiB) and a multiple of 262144 (256 KiB) (got '300000' from environment variable "
                "PIXARIS_SYNC_CHUNK_BYTES)"
            ),
        ),
    ),
    "a rate that is too low": (
        "",
        {},
        ("--bandwidth-limit", "1KiB"),
        (
            (
                "error: cannot use setting bandwidth_limit_bytes_per_second: it must be a whole number of "
                "bytes per second, at least 65536 (64 KiB) (got '1KiB' from flag "
                "--bandwidth-limit-bytes-per-second)"
            ),
        ),
    ),
    "no number": (
        "",
        {"PIXARIS_SYNC_LOAD_ROWS_LIMIT": "many"},
        (),
        (
            (
                "error: cannot use setting load_rows_limit: it must be a whole number, at least 1 and at "
                "most 1000000 (got 'many' from environment variable PIXARIS_SYNC_LOAD_ROWS_LIMIT)"
            ),
        ),
    ),
    "none of the words": (
        "",
        {},
        ("--log-level", "loud"),
        (
            (
                "error: cannot use setting log_level: it must be debug, info, warning or error (got 'loud' "
                "from flag --log-level)"
            ),
        ),
    ),
    "neither true nor false": (
        "pixaris_sync: {quiet: perhaps}\n",
        {},
        (),
        (
            (
                "error: cannot use setting quiet: it must be true or false (got 'perhaps' "
                "from config.yaml line 4)"
            ),
        ),
    ),
    "an address for a bucket": (
        "",
        {"PIXARIS_SYNC_GCP_PIXARIS_BUCKET_NAME": "gs://mine"},
        (),
        (
            (
                "error: cannot use setting gcp_pixaris_bucket_name: it must be the bucket's name alone, "
                "without gs:// and without a folder (got 'gs://mine' from environment variable "
                "PIXARIS_SYNC_GCP_PIXARIS_BUCKET_NAME)"
            ),
        ),
    ),
    "an unknown key": (
        "pixaris_sync:\n  chunk_byte: 262144\n",
        {},
        (),
        (
            "error: cannot read config config.yaml: line 5: unknown key 'chunk_byte' under pixaris_sync:",
            "hint: perhaps chunk_bytes is meant; deploy/settings.md of the repository lists the keys",
        ),
    ),
    "a misspelt section": (
        "pixaris-sync:\n  chunk_bytes: 262144\n",
        {},
        (),
        (
            "error: cannot read config config.yaml: line 4: unknown key 'pixaris-sync'",
            "hint: write pixaris_sync: in its place",
        ),
    ),
    "a section that is a list": (
        "pixaris_sync:\n- quiet\n",
        {},
        (),
        (
            (
                "error: cannot read config config.yaml: line 4: what stands under pixaris_sync: is not a "
                "mapping of keys to values"
            ),
            "hint: write each setting on a line of its own below pixaris_sync:, indented, as key: value",
        ),
    ),
    "no YAML": (
        "pixaris_sync:\n  quiet: [true\n",
        {},
        (),
        (
            (
                "error: cannot read config config.yaml: it is not valid YAML: line 6, column 1: expected ',' "
                "or ']', but got '<stream end>'"
            ),
            "hint: correct it, or name another file with --config",
        ),
    ),
    "a date that is none": (
        "gcp_location: 2026-13-45\n",
        {},
        (),
        (
            "error: cannot read config config.yaml: it is not valid YAML: month must be in 1..12",
            "hint: correct it, or name another file with --config",
        ),
    ),
    "a named file that is missing": (
        "",
        {},
        ("--config", "mine.yaml"),
        (
            "error: cannot read config mine.yaml: No such file or directory",
            "hint: give Pixaris' config.yaml, or a file like it, with --config",
        ),
    ),
    "a file of the environment that is missing": (
        "",
        {"PIXARIS_SYNC_CONFIG": "/nowhere/mine.yaml"},
        (),
        (
            "error: cannot read config /nowhere/mine.yaml: No such file or directory",
            "hint: let PIXARIS_SYNC_CONFIG name Pixaris' config.yaml, or a file like it, or unset it",
        ),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_its_remedy_and_ends_with_4(
    bare: CommandLine, folder: Path, name: str
) -> None:
    """Goal: nobody hunts for it. Method: one mistake each, beside a destination, on 80 columns."""
    text, environment, flags, said = MISTAKES[name]
    write(folder / "config.yaml", "".join(f"{key}: here\n" for key in REQUIRED) + text)
    command = "sync" if flags and not flags[0].startswith(("--config", "--log")) else "status"
    code, lines = seen(bare.but(**environment), command, *flags)
    assert code == 4, lines
    for line in said:
        assert line in lines
    if name.endswith("missing") and not flags:
        return
    errors = [line for line in lines if line.startswith("error:")]
    # A file that cannot be read sets nothing, so that more is told then.
    assert errors[0] == said[0]
    assert all("is set nowhere" in line for line in errors[1:])


def test_all_that_is_missing_and_all_that_is_refused_is_told_at_once(bare: CommandLine) -> None:
    """Goal: one round of mending. Method: no setting at all but three wrong ones; every line of it."""
    wrong = bare.but(PIXARIS_SYNC_LOAD_ROWS_LIMIT="0", PIXARIS_SYNC_QUIET="x")
    code, lines = seen(wrong, "sync", "--sync-attempts-limit", "1000")
    assert code == 4
    errors = [line for line in lines if line.startswith("error:")]
    assert len(errors) == 6
    for key in REQUIRED:
        at = lines.index(f"error: cannot find setting {key}: it is set nowhere")
        assert lines[at + 1] == (
            f"hint: set {environment_variable(key)}, or give --{key.replace('_', '-')}, or write {key} into "
            "config.yaml: `pixaris-sync config init` asks for it"
        )
    for key in ("load_rows_limit", "quiet", "sync_attempts_limit"):
        assert [line for line in errors if line.startswith(f"error: cannot use setting {key}: it must be ")]
    told = bare.run("sync", "--json").document["error"]
    assert told["subject"] == ", ".join(REQUIRED)
    assert told["exit_code"] == 4


def test_each_of_the_three_ways_mends_what_is_missing(
    destined: CommandLine, command_line: CommandLine, folder: Path
) -> None:
    """Goal: the hint is true. Method: a key by its variable, one by its flag, one in the file; ``sync``."""
    (folder / _LOCAL).mkdir()
    by_variable, by_flag, by_file = REQUIRED
    values = {key: command_line.environment[environment_variable(key)] for key in REQUIRED}
    write(folder / "config.yaml", f"{by_file}: {values[by_file]}\n")
    mended = destined.but(**{environment_variable(by_variable): values[by_variable]})
    outcome = mended.run("sync", f"--{by_flag.replace('_', '-')}", values[by_flag])
    assert outcome.code == 0, str(outcome)


def test_what_a_missing_key_may_be_called_is_told(bare: CommandLine, folder: Path) -> None:
    """Goal: a slip is seen. Method: a required key misspelt at the top of the file; another's file beside."""
    write(folder / "config.yaml", "gcp_bq_experiment_dataset: a.b\ngcp_projectid: p\n")
    _, lines = seen(bare, "status")
    assert (
        "error: cannot find setting gcp_project_id: it is set nowhere "
        "(line 2 of config.yaml says gcp_projectid)"
    ) in lines
    write(folder / "config.yaml", FOREIGN[0])
    _, lines = seen(bare, "status")
    assert (
        "error: cannot find setting gcp_project_id: it is set nowhere (config.yaml was passed over: it holds "
        "nothing of Pixaris' and nothing of pixaris-sync's)"
    ) in lines
    flags = [word for key in REQUIRED for word in (f"--{key.replace('_', '-')}", "x")]
    [hint, *_] = re.findall(r"`pixaris-sync (config init.*?)`", "\n".join(lines))
    outcome = bare.run(*hint.split(), *flags)
    assert outcome.code == 0, str(outcome)
    [shows, _] = re.findall(r"`pixaris-sync (.*?)`", outcome.stdout)
    assert bare.run(*shows.split()).code == 0
    assert (folder / "config.yaml").read_text() == FOREIGN[0]


def test_misspelt_variables_are_pointed_out_once(command_line: CommandLine) -> None:
    """Goal: no setting is ignored without a word. Method: near misses and an unknown one; ``sync`` works."""
    lists = "deploy/settings.md of the repository lists those that are"
    meant = {
        "PIXARIS_SYNC_BUCKETNAME": "PIXARIS_SYNC_GCP_PIXARIS_BUCKET_NAME",
        "PIXARIS_SYNC_CONFIGS": "PIXARIS_SYNC_CONFIG",
        "PIXARIS_SYNC_FLAVOUR": "",
        "PIXARIS_SYNC_STATE_DIRECTORY": "PIXARIS_SYNC_STATE_DIR",
        "PIXARIS_SYNC_STORAGE_EMULATOR_HOST": "STORAGE_EMULATOR_HOST",
        "PIXARIS_SYN_STATE_DIR": "PIXARIS_SYNC_STATE_DIR",
        "pixaris_sync_quiet": "PIXARIS_SYNC_QUIET",
    }
    outcome = command_line.but(**dict.fromkeys(meant, "x")).run("sync")
    assert outcome.code == 0, str(outcome)
    told = [line.partition(" WARNING ")[2] for line in outcome.stderr.splitlines() if "WARNING" in line]
    assert told == [
        f"the environment variable {name} is no setting and is ignored: "
        + (f"perhaps {other} is meant" if other else lists)
        for name, other in meant.items()
    ]


def test_variables_of_tests_and_of_others_are_nobodys_business(command_line: CommandLine) -> None:
    """Goal: no noise. Method: a variable of the tests, one of Pixaris', one of a neighbour."""
    others = {"PIXARIS_SYNC_TEST_LARGE": "1", "PIXARIS_HOME": "/x", "PIXART_SYNC_STATE": "x", "SYNC": "1"}
    outcome = command_line.but(**others).run("sync")
    assert "WARNING" not in outcome.stderr


def test_a_key_of_ours_at_the_wrong_level_is_pointed_out(
    destined: CommandLine, command_line: CommandLine, folder: Path
) -> None:
    """Goal: no setting is ignored without a word. Method: a key at the top; move it as told, and it holds."""
    (folder / _LOCAL).mkdir()
    text = destination(command_line)
    write(folder / "config.yaml", f"{text}load_rows_limit: 7\n")
    line = len(text.splitlines()) + 1
    outcome = destined.run("sync")
    assert outcome.code == 0, str(outcome)
    assert (
        f"WARNING config.yaml line {line}: load_rows_limit is ignored where it stands: if it is meant for "
        "pixaris-sync, move it below pixaris_sync:"
    ) in outcome.stderr
    write(folder / "config.yaml", f"{text}  load_rows_limit: 7\n")
    assert "WARNING" not in destined.run("sync").stderr
    assert "load_rows_limit = 7" in destined.run("config", "show").stdout


def test_a_file_is_found_in_four_ways_the_strongest_first(
    bare: CommandLine, folder: Path, tmp_path: Path
) -> None:
    """Goal: the promised order, and it is said. Method: all four there; take one away after the other."""
    named = write(tmp_path / "named.yaml", "gcp_project_id: by-flag\n")
    of_environment = write(tmp_path / "variable.yaml", "gcp_project_id: by-variable\n")
    here = write(folder / "config.yaml", "gcp_project_id: here\n")
    below = write(folder / "pixaris" / "config.yaml", "gcp_project_id: below\n")
    environment = bare.but(PIXARIS_SYNC_CONFIG=str(of_environment))

    def shown(command_line: CommandLine, *arguments: str) -> tuple[object, object, object]:
        document = command_line.run("config", "show", "--json", *arguments).document
        [project] = [one for one in document["settings"] if one["key"] == "gcp_project_id"]
        return project["value"], document["file"]["path"], document["file"]["how"]

    by_itself = "found in the working folder"
    assert shown(environment, "--config", str(named)) == ("by-flag", str(named), "--config")
    assert shown(environment) == ("by-variable", str(of_environment), "PIXARIS_SYNC_CONFIG")
    assert shown(bare) == ("here", str(here), by_itself)
    here.unlink()
    assert shown(bare) == ("below", str(below), by_itself)
    below.unlink()
    assert bare.run("config", "show", "--json").document["file"] is None


def test_another_programs_config_is_passed_over(
    destined: CommandLine, command_line: CommandLine, folder: Path
) -> None:
    """Goal: it neither breaks nor misleads. Method: files of others, Pixaris' behind them; show, sync."""
    (folder / _LOCAL).mkdir()
    behind = write(folder / "pixaris" / "config.yaml", destination(command_line))
    for text in FOREIGN:
        write(folder / "config.yaml", text)
        document = destined.run("config", "show", "--json").document
        assert (document["passed_over"], document["file"]["path"]) == (["config.yaml"], str(behind))
        assert document["exit_code"] == 0
    outcome = destined.run("sync")
    assert outcome.code == 0, str(outcome)
    assert f"INFO settings are taken from {behind} (found in the working folder)" in outcome.stderr


def test_a_found_file_that_cannot_be_read_is_an_error(bare: CommandLine, folder: Path) -> None:
    """Goal: it might have been meant. Method: no leave to read it; a folder of that name is no file."""
    write(folder / "config.yaml", "gcp_project_id: p\n").chmod(0)
    outcome = bare.run("status", powerless=True)
    assert outcome.code == 4
    assert "error: cannot read config config.yaml: Permission denied" in outcome.stderr
    (folder / "config.yaml").unlink()
    (folder / "config.yaml").mkdir()
    assert "cannot read config" not in bare.run("status").stderr


def test_watch_and_the_passes_say_which_file_was_taken(
    destined: CommandLine, command_line: CommandLine, folder: Path, tmp_path: Path
) -> None:
    """Goal: no riddle why it goes where it goes. Method: each of them on a found file; others."""
    store_run(folder / _LOCAL)
    path = write(folder / "config.yaml", destination(command_line))
    said = f"settings are taken from {path} (found in the working folder)"
    for command in ("sync", "backfill"):
        outcome = destined.run(command)
        assert outcome.code == 0, str(outcome)
        assert said in outcome.stderr
    with Watching(destined, tmp_path) as watch:
        watch.wait_until_ready()
        watch.end()
        assert said in watch.log()
    outcome = destined.run("status")
    assert (outcome.code, outcome.stderr) == (0, ""), str(outcome)


def test_config_show_tells_each_origin_within_80_columns(bare: CommandLine, folder: Path) -> None:
    """Goal: whence each value is. Method: one of each origin, a secret; the lines, with and without --all."""
    write(folder / "config.yaml", "gcp_project_id: p\npixaris_sync:\n  gcp_pixaris_bucket_name: b\n")
    given = bare.but(
        PIXARIS_SYNC_GCP_BQ_EXPERIMENT_DATASET="p.d",
        PIXARIS_SYNC_BANDWIDTH_LIMIT_BYTES_PER_SECOND="10MiB",
        PIXARIS_SYNC_HEARTBEAT_URL="https://example.org/secret-token",
    )
    code, lines = seen(given, "config", "show", "--no-quiet")
    more = len(SETTINGS) - 6
    assert code == 0
    assert lines == [
        f"file: {folder}/config.yaml (found in the working folder)"
        if len(f"file: {folder}/config.yaml (found in the working folder)") <= COLUMNS
        else lines[0],
        *lines[1 : lines.index("Where")],
        "Where",
        "  gcp_project_id = p, from config.yaml line 1",
        "  gcp_bq_experiment_dataset = p.d",
        "      from environment variable PIXARIS_SYNC_GCP_BQ_EXPERIMENT_DATASET",
        "  gcp_pixaris_bucket_name = b, from config.yaml line 3",
        "Tuning",
        "  bandwidth_limit_bytes_per_second = 10485760 (10 MiB)",
        "      from environment variable PIXARIS_SYNC_BANDWIDTH_LIMIT_BYTES_PER_SECOND",
        "  quiet = false, from flag --quiet",
        "  heartbeat_url = [...], from environment variable PIXARIS_SYNC_HEARTBEAT_URL",
        f"{more} more settings have their defaults: --all shows them",
    ]
    every = given.run("config", "show", "--all").stdout
    assert all(f"  {key} = " in every for key in SETTINGS if key != "quiet")
    assert "  chunk_bytes = 4194304 (4 MiB), by default\n" in every
    assert "secret-token" not in every
    wide = [line for line in every.splitlines() if len(line) > COLUMNS and str(folder) not in line]
    assert not wide
    assert "secret-token" not in given.run("config", "show", "--all", "--json").stdout


def test_config_show_works_with_what_is_missing_or_wrong(bare: CommandLine, folder: Path) -> None:
    """Goal: it helps most where most is wrong. Method: something of each kind; all of it, and exit code 4."""
    write(
        folder / "config.yaml",
        "gcp_project_id: p\npixaris_sync:\n  heartbeat_url: secret-token\n  quiets: 1\n",
    )
    wrong = bare.but(PIXARIS_SYNC_BUCKETNAME="b")
    code, lines = seen(wrong, "config", "show", "--chunk-bytes", "1")
    assert code == 4
    text = "\n".join(lines)
    for part in (
        "  gcp_project_id = p, from config.yaml line 1\n",
        "! gcp_pixaris_bucket_name is set nowhere\n",
        "! chunk_bytes is refused, from flag --chunk-bytes\n",
        "! heartbeat_url is refused, from config.yaml line 3\n",
        "Wrong\n",
        "  gcp_pixaris_bucket_name: it is set nowhere\n    hint: set PIXARIS_SYNC_GCP_PIXARIS_BUCKET_NAME,",
        "  config.yaml: line 4: unknown key 'quiets' under pixaris_sync:\n",
        "Ignored\n  the environment variable PIXARIS_SYNC_BUCKETNAME is no setting",
    ):
        assert part in text, text
    assert "secret-token" not in text
    outcome = wrong.run("config", "show", "--json", "--chunk-bytes", "1")
    states = {one["key"]: one["state"] for one in outcome.document["settings"]}
    assert (outcome.code, outcome.document["exit_code"], outcome.stderr) == (4, 4, "")
    assert states["gcp_project_id"] == "set"
    assert states["gcp_pixaris_bucket_name"] == "missing"
    assert states["chunk_bytes"] == "refused"


def init(command_line: CommandLine, *arguments: str) -> Outcome:
    return command_line.run("config", "init", *arguments)


def test_config_init_can_be_scripted(destined: CommandLine, command_line: CommandLine, folder: Path) -> None:
    """Goal: a machine can be set up by a script. Method: flags and no terminal; what it says next works."""
    values = [command_line.environment[environment_variable(key)] for key in REQUIRED]
    flags = [
        word
        for key, value in zip(REQUIRED, values, strict=True)
        for word in (f"--{key.replace('_', '-')}", value)
    ]
    outcome = init(destined, *flags, "--no-quiet")
    assert outcome.code == 0, str(outcome)
    assert (folder / "config.yaml").read_text().splitlines()[1:] == [
        *(f"{key}: {value}" for key, value in zip(REQUIRED, values, strict=True)),
        "pixaris_sync:",
        "  quiet: false",
        "  local_results_folder: local_results",
    ]
    (folder / _LOCAL).mkdir()
    for command in ("pixaris-sync config show", "pixaris-sync sync"):
        assert f"`{command}`" in outcome.stdout
        assert destined.run(*command.split()[1:]).code == 0
    again = init(destined)
    assert (again.code, again.stdout) == (0, "config.yaml sets all that is needed: nothing was written\n")


def test_config_init_without_a_terminal_says_which_flags_to_give(bare: CommandLine, folder: Path) -> None:
    """Goal: no script hangs. Method: no flag, then those that it names; a known value is taken."""
    known = bare.but(PIXARIS_SYNC_GCP_PROJECT_ID="p")
    outcome = init(known)
    assert outcome.code == 2
    hint = "give --gcp-bq-experiment-dataset VALUE, --gcp-pixaris-bucket-name VALUE"
    assert outcome.stderr.splitlines()[1] == f"hint: {hint}"
    assert not list(folder.iterdir())
    flags = hint.removeprefix("give ").replace(",", "").split()
    assert init(known, *flags, "--heartbeat-url", "https://example.org/secret").code == 0
    assert (folder / "config.yaml").stat().st_mode & 0o077 == 0, "it holds a secret"
    assert "gcp_project_id: p\n" in (folder / "config.yaml").read_text()


def test_config_init_keeps_every_byte_and_every_value(bare: CommandLine, folder: Path) -> None:
    """Goal: it can be run on Pixaris' own file. Method: comments; another value for what is there."""
    before = b"# mine\ngcp_project_id: p # so\r\nother: {a: 1}\npixaris_sync:\n  # why\n  quiet: false\n# end"
    path = folder / "config.yaml"
    path.write_bytes(before)
    path.chmod(0o640)
    refused = init(bare, "--gcp-project-id", "q")
    assert refused.code == 4
    assert (
        "error: cannot write setting gcp_project_id: line 2 of config.yaml sets it already, to 'p'\n"
        in refused.stderr
    )
    assert "hint: change it there, or leave --gcp-project-id out\n" in refused.stderr
    assert path.read_bytes() == before
    outcome = init(bare, "--gcp-bq-experiment-dataset", "p.d", "--gcp-pixaris-bucket-name", "b")
    assert outcome.code == 0, str(outcome)
    after = path.read_bytes()
    rest = iter(after)
    assert all(byte in rest for byte in before)
    assert after.startswith(before.removesuffix(b"# end"))
    assert path.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in folder.iterdir()] == ["config.yaml"]
    assert bare.run("config", "show").code == 0


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        ("", ("--gcp-pixaris-bucket-name", "gs://b"), "the bucket's name alone"),
        ("", ("--chunk-bytes", "1"), "it must be a whole number of bytes"),
        ("pixaris_sync: {quiets: 1}\n", (), "unknown key 'quiets'"),
        ("a: [\n", (), "not valid YAML"),
        ("theirs: 1\n", (), "it is another program's"),
        ("", ("--local-results-folder", "."), "it lies inside the results folder"),
        ("", ("--config", "no/such/config.yaml"), "No such file or directory"),
        ("{gcp_project_id: p}\n", (), "nothing can be added to without a person"),
    ],
)
def test_config_init_writes_nothing_where_something_is_wrong(
    bare: CommandLine, folder: Path, text: str, arguments: tuple[str, ...], said: str
) -> None:
    """Goal: whole or not at all. Method: one reason each; code 4, the cause, and the file as it was."""
    if text:
        write(folder / "config.yaml", text)
    known = bare.but(**{environment_variable(key): "x" for key in REQUIRED if key not in text})
    outcome = init(known, *arguments)
    assert outcome.code == 4, str(outcome)
    assert said in outcome.stderr
    left = [path.read_text() for path in folder.iterdir()]
    assert left == ([text] if text else [])


def test_config_init_asks_on_a_terminal(bare: CommandLine, folder: Path) -> None:
    """Goal: set up by answering. Method: a pseudo-terminal; a known value taken, a wrong one asked again."""
    known = bare.but(PIXARIS_SYNC_GCP_PROJECT_ID="p")
    with Terminal(known, "config", "init", columns=COLUMNS, answers=True) as terminal:
        terminal.answer("gcp_project_id: ", "")
        terminal.answer("gcp_bq_experiment_dataset: ", "p.d")
        terminal.answer("gcp_pixaris_bucket_name: ", "gs://b")
        terminal.answer("gcp_pixaris_bucket_name: ", "b", times=2)
        terminal.answer("local_results_folder: ", "")
        code, lines = terminal.wait(), terminal.seen.lines()
    assert code == 0, lines
    assert "gcp_project_id: Google Cloud project [p]: " in [f"{line} " for line in lines]
    assert "  it must be the bucket's name alone, without gs:// and without a folder" in lines
    assert (folder / "config.yaml").read_text().splitlines()[1:] == [
        "gcp_project_id: p",
        "gcp_bq_experiment_dataset: p.d",
        "gcp_pixaris_bucket_name: b",
        "pixaris_sync:",
        "  local_results_folder: local_results",
    ]


def test_config_init_that_gets_no_answer_writes_nothing(bare: CommandLine, folder: Path) -> None:
    """Goal: it can be left. Method: the end of the input at the second question; exit code 130."""
    with Terminal(bare, "config", "init", columns=COLUMNS, answers=True) as terminal:
        terminal.answer("gcp_project_id: ", "p")
        eventually(lambda: any("gcp_bq_" in line for line in terminal.seen.lines()), "it asks again")
        terminal.type("\x04")
        assert terminal.wait() == 130
    assert not list(folder.iterdir())


@pytest.mark.large
def test_the_ui_over_a_sandbox_takes_no_file(folder: Path, bare: CommandLine) -> None:
    """Goal: trying it out is not configured. Method: a file that would end every other command."""
    write(folder / "config.yaml", "pixaris_sync: {no: such}\n")
    assert bare.run("status").code == 4
    outcome = bare.run("ui", "--sandbox", "--host", "no.such.host.invalid")
    assert "config.yaml" not in outcome.stderr
    assert "storing some runs in the sandbox" in outcome.stderr
