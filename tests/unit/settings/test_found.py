"""What all sources together say, also where much of it is wrong."""

from pathlib import Path
from typing import Any

import pytest

from pixaris_sync.cli.console import print_error
from pixaris_sync.errors import ConfigurationError, SettingsError
from pixaris_sync.settings.bounds import bounds
from pixaris_sync.settings.document import parse_document
from pixaris_sync.settings.fields import SETTINGS
from pixaris_sync.settings.names import Origin
from pixaris_sync.settings.sources import Found, find_settings, load_settings

DESTINATION = "gcp_project_id: p\ngcp_bq_experiment_dataset: p.d\ngcp_pixaris_bucket_name: b\n"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    monkeypatch.chdir(tmp_path)


def found(text: str = "", environ: dict[str, str] | None = None, **flags: Any) -> Found:
    Path("config.yaml").write_text(text, encoding="utf-8")
    return find_settings(flags, environ=environ or {})


def test_values_and_origins_of_each_source() -> None:
    """Goal: whoever shows or checks settings needs no other source. Method: one value of each."""
    told = found(
        f"{DESTINATION}pixaris_sync:\n  quiet: false\n",
        {"PIXARIS_SYNC_LOAD_ROWS_LIMIT": "7"},
        upload_concurrency_limit="9",
    )
    assert told.settings is not None
    assert (told.faults, told.warnings, told.passed_over) == ((), (), ())
    assert told.origins["gcp_pixaris_bucket_name"] == Origin("file", "config.yaml", 3)
    assert told.origins["quiet"] == Origin("file", "config.yaml", 5)
    assert told.origins["load_rows_limit"] == Origin("environment", "PIXARIS_SYNC_LOAD_ROWS_LIMIT")
    assert told.origins["upload_concurrency_limit"] == Origin("command line", "--upload-concurrency-limit")
    assert told.origins["chunk_bytes"] == Origin("defaults")
    assert told.values.keys() == told.origins.keys() == SETTINGS.keys()
    assert (told.values["load_rows_limit"], told.values["upload_concurrency_limit"]) == (7, 9)


def test_what_is_right_is_known_beside_what_is_wrong() -> None:
    """Goal: nothing hides anything. Method: missing and refused ones, a file's fault; the sound values."""
    told = found("gcp_project_id: p\npixaris_sync: {quit: 1, chunk_bytes: 1}\n", load_rows_limit="7")
    assert told.settings is None
    assert [fault.subject for fault in told.faults] == [
        "config.yaml",
        "gcp_bq_experiment_dataset",
        "gcp_pixaris_bucket_name",
        "chunk_bytes",
    ]
    assert (told.values["gcp_project_id"], told.values["load_rows_limit"]) == ("p", 7)
    wrong = {"gcp_bq_experiment_dataset", "gcp_pixaris_bucket_name", "chunk_bytes"}
    assert not wrong & told.values.keys()
    assert told.origins["chunk_bytes"] == Origin("file", "config.yaml", 2)
    with pytest.raises(SettingsError) as refusal:
        told.demand()
    assert refusal.value.faults == told.faults


def test_a_default_that_does_not_fit_is_told_and_not_shown() -> None:
    """Goal: no endless search for what fits. Method: a limit below the defaults that it bounds."""
    told = found(DESTINATION, inflight_bytes_limit="1048576")
    assert {fault.subject for fault in told.faults} == {"resumable_threshold_bytes", "chunk_bytes"}
    assert all("from the defaults)" in fault.cause for fault in told.faults)
    assert told.values["gcp_project_id"] == "p"


def test_one_fault_is_told_as_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: no frame around one. Method: one, then two; what is printed has a hint for each."""
    with pytest.raises(ConfigurationError) as one:
        found(DESTINATION, quiet="x").demand()
    assert not isinstance(one.value, SettingsError)
    with pytest.raises(ConfigurationError) as both:
        found(DESTINATION, quiet="x", log_level="x").demand()
    assert both.value.subject == "quiet, log_level"
    print_error(both.value)
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == ["error", "hint"] * 2


def test_the_python_api_takes_no_file_by_itself() -> None:
    """Goal: a training process is configured by its code. Method: a file here, and one that is named."""
    Path("config.yaml").write_text("a: [", encoding="utf-8")
    destination = dict(line.split(": ") for line in DESTINATION.splitlines())
    assert load_settings(destination, environ={"PIXARIS_SYNC_CONFIG": "nowhere"}).gcp_project_id == "p"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("a: 1\nb: [1\n", "line 3, column 1: expected ',' or ']', but got '<stream end>'"),
        ("a:\n\tb: 1\n", "line 2, column 1: found character '\\t' that cannot start any token"),
        ("a: 1\nb: \x00\n", "line 2: a character that no YAML file may hold"),
        ("a: 1\n---\nb: 1\n", "line 2, column 1: but found another document"),
        ("a: 2026-13-01\n", "month must be in 1..12"),
        (
            "a: !!python/object:os.system 1\n",
            "line 1, column 4: could not determine a constructor for the tag",
        ),
        ("? [a]\n: 1\n", "line 1, column 3: found unhashable key"),
        ("[" * 5000, "it is nested too deeply"),
        (f"a: {'9' * 5000}\n", "Exceeds the limit"),
    ],
)
def test_what_is_no_yaml_is_told_with_its_place(text: str, cause: str) -> None:
    """Goal: line and column, and never a traceback. Method: a file of each kind of fault."""
    with pytest.raises(ConfigurationError) as refusal:
        parse_document(text, Path("config.yaml"), hint="mend it")
    assert refusal.value.cause.startswith("it is not valid YAML: ")
    assert cause in refusal.value.cause
    assert "\n" not in refusal.value.cause
    assert refusal.value.hint == "mend it"


def test_bytes_that_are_no_text_are_told_with_their_line() -> None:
    """Goal: the same for what is no text. Method: Latin-1 in the second line."""
    Path("config.yaml").write_bytes(b"a: 1\nb: \xe4\n")
    [fault, *_] = find_settings({}, environ={}).faults
    assert fault.cause == "it is not valid YAML: line 2 is no UTF-8"


def test_lines_are_those_that_an_editor_shows() -> None:
    """Goal: the line is found. Method: comments, blank lines, a merge, a key that stands twice."""
    document = parse_document(
        "# head\n\na: 1\nbase: &base {x: 1}\nours:\n\n  <<: *base\n  y: 2\na: 3\n", Path("c"), hint=""
    )
    assert (document.line("a"), document.line("ours"), document.line("ours", "y")) == (9, 5, 8)
    assert (document.line("ours", "x"), document.line("none"), document.line("a", "b")) == (4, 0, 0)
    assert document.value["ours"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("upload_concurrency_limit", "a whole number, at least 1 and at most 1024"),
        ("inflight_bytes_limit", "a whole number of bytes, at least 1048576 (1 MiB)"),
        (
            "request_timeout_seconds",
            "a number of seconds, more than 0 and at most 2592000 (30 days)",
        ),
        ("max_cpu_percent", "a number of percent, at least 1"),
        ("quiet", "true or false"),
        ("log_format", "text or json"),
        ("log_level", "debug, info, warning or error"),
        ("gcp_project_id", "text, and not empty"),
        ("local_results_folder", "a path"),
        ("heartbeat_url", "text"),
    ],
)
def test_bounds_are_told_in_words(key: str, words: str) -> None:
    """Goal: nobody guesses. Method: a setting of each kind."""
    assert bounds(key) == words


def test_every_setting_has_bounds_in_words() -> None:
    """Goal: none is forgotten. Method: each of them; none of its words is the library's."""
    for key in SETTINGS:
        assert bounds(key)
        assert "Input" not in bounds(key)
