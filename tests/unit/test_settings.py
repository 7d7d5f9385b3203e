"""Where settings come from, their bounds, and where ledgers lie."""

import os
from pathlib import Path
from typing import Any

import pytest

from pixaris_sync.errors import ConfigurationError
from pixaris_sync.rules.addresses import host_and_port
from pixaris_sync.settings.fields import SETTINGS
from pixaris_sync.settings.model import Settings, environment_variable
from pixaris_sync.settings.sources import load_settings

REQUIRED = {
    "gcp_project_id": "project",
    "gcp_bq_experiment_dataset": "project.dataset",
    "gcp_pixaris_bucket_name": "bucket",
}
#: As Pixaris ships it: its own keys beside those that mean something to us.
PIXARIS_CONFIG = """\
gcp_project_id: 'file-project'
gcp_pixaris_bucket_name: 'file-bucket'
gcp_bq_experiment_dataset: 'file-project.file_dataset'
gcp_bq_feedback_table: 'file-project.file_dataset.feedback_tracking'
gcp_feedback_bucket: "feedback"
example:
  nested: [1, 2]
"""


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    monkeypatch.chdir(tmp_path)


def load(config: Any = None, environ: Any = None, **flags: Any) -> Settings:
    return load_settings({**REQUIRED, **flags}, config=config, environ=environ or {})


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_flags_go_before_environment_before_file_before_defaults(tmp_path: Path) -> None:
    """Goal: the promised precedence. Method: take the sources away one by one."""
    config = written(tmp_path, "pixaris_sync: {stream_rows_limit: 3}")
    environ = {"PIXARIS_SYNC_STREAM_ROWS_LIMIT": "2"}
    assert load(config, environ, stream_rows_limit="1").stream_rows_limit == 1
    assert load(config, environ, stream_rows_limit=None).stream_rows_limit == 2
    assert load(config).stream_rows_limit == 3
    assert load().stream_rows_limit == SETTINGS["stream_rows_limit"].default


def test_pixaris_own_config_is_taken_as_it_is(tmp_path: Path) -> None:
    """Goal: no second file to write. Method: Pixaris' keys, others beside them, our section empty or not."""
    for text in (PIXARIS_CONFIG, PIXARIS_CONFIG + "pixaris_sync:\n"):
        settings = load_settings({}, config=written(tmp_path, text), environ={})
        assert settings.gcp_project_id == "file-project"
        assert settings.gcp_pixaris_bucket_name == "file-bucket"
        assert settings.gcp_bq_experiment_dataset == "file-project.file_dataset"
        assert settings.gcp_bq_feedback_table == "file-project.file_dataset.feedback_tracking"
        assert settings.destination.bq_dataset_id == "file_dataset"


def test_our_section_goes_before_pixaris_keys(tmp_path: Path) -> None:
    """Goal: the section is the more particular. Method: one key in both places."""
    text = PIXARIS_CONFIG + "pixaris_sync:\n  gcp_project_id: ours\n  accept_runs_without_images: true\n"
    settings = load_settings({}, config=written(tmp_path, text), environ={})
    assert (settings.gcp_project_id, settings.accept_runs_without_images) == ("ours", True)


def test_our_keys_outside_their_section_are_not_ours(tmp_path: Path) -> None:
    """Goal: Pixaris' file may hold anything. Method: a name of ours with nonsense, at the top."""
    settings = load(written(tmp_path, "stream_rows_limit: nonsense"))
    assert settings.stream_rows_limit == SETTINGS["stream_rows_limit"].default


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pixaris_sync: {stream_row_limit: 3}", "unknown key 'stream_row_limit'"),
        ("pixaris_sync: {1: 3}", "unknown key 1"),
        ("pixaris_sync: [1]", "not a mapping"),
        ("- a", "not a mapping"),
        ("a: [", "not valid YAML"),
        ("a: \x00", "not valid YAML"),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    """Goal: one line that says what and where. Method: one fault each."""
    path = written(tmp_path, text)
    with pytest.raises(ConfigurationError) as refusal:
        load(path)
    assert words in refusal.value.cause
    assert refusal.value.subject == str(path)
    assert "\n" not in str(refusal.value)
    assert refusal.value.hint


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """Goal: exit 4 with a hint. Method: a missing file, a folder, bytes that are no text."""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xfa")
    for path in (tmp_path / "missing.yaml", tmp_path, tmp_path / "bytes"):
        with pytest.raises(ConfigurationError) as refusal:
            load(path)
        assert (refusal.value.subject, bool(refusal.value.hint)) == (str(path), True)


def test_an_empty_file_and_empty_variables_set_nothing(tmp_path: Path) -> None:
    """Goal: `KEY= command` is as good as unset. Method: both empty."""
    assert load(written(tmp_path, "# nothing\n"), {"PIXARIS_SYNC_STATE_DIR": ""}).state_dir is None


@pytest.mark.parametrize("key", sorted(REQUIRED))
def test_what_is_set_nowhere_is_named_with_all_the_ways_to_set_it(key: str) -> None:
    """Goal: the next step is in the message. Method: leave each required key out."""
    flags = {name: value for name, value in REQUIRED.items() if name != key}
    with pytest.raises(ConfigurationError) as refusal:
        load_settings(flags, environ={})
    assert refusal.value.subject == key
    for word in (f"PIXARIS_SYNC_{key.upper()}", f"--{key.replace('_', '-')}", "config.yaml"):
        assert word in refusal.value.hint


def test_a_refused_value_is_named_with_its_source(tmp_path: Path) -> None:
    """Goal: nobody hunts for it. Method: the same bad value from each source."""
    path = written(tmp_path, "pixaris_sync: {stream_rows_limit: 0}")
    for settings, source in (
        ({"config": path}, str(path)),
        ({"environ": {"PIXARIS_SYNC_STREAM_ROWS_LIMIT": "0"}}, "environment"),
        ({"stream_rows_limit": "0"}, "command line"),
    ):
        with pytest.raises(ConfigurationError) as refusal:
            load(**settings)
        assert refusal.value.subject == "stream_rows_limit"
        assert source in refusal.value.cause
        assert "deploy/settings.md" in refusal.value.hint


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10MB", 10_000_000),
        ("1.5 MiB/s", 1_572_864),
        ("500kib", 512_000),
        ("500KB", 500_000),
        ("2GB", 2_000_000_000),
        ("70000", 70_000),
        ("70000 B", 70_000),
        (65_536, 65_536),
        ("none", None),
        (" None ", None),
    ],
)
def test_rates_are_written_as_people_write_them(tmp_path: Path, text: Any, rate: int | None) -> None:
    """Goal: no counting of noughts. Method: decimal and binary units, none; as flag, in a file."""
    assert load(bandwidth_limit_bytes_per_second=text).bandwidth_limit_bytes_per_second == rate
    config = written(tmp_path, f"pixaris_sync: {{bandwidth_limit_bytes_per_second: {text!r}}}")
    assert load(config).bandwidth_limit_bytes_per_second == rate


@pytest.mark.parametrize(("text", "percent"), [("25", 25.0), ("12.5", 12.5), ("none", None), (50, 50.0)])
def test_a_share_of_the_processor_is_a_number_or_none(text: Any, percent: float | None) -> None:
    """Goal: a limit that can be lifted where a file sets one. Method: numbers as text, none."""
    assert load(max_cpu_percent=text).max_cpu_percent == percent


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("max_cpu_percent", " 25 ", 25.0),
        ("fleet_size", " 3 ", 3),
        ("upload_concurrency_limit", "1_0", 10),
        ("upload_concurrency_limit", "10.0", 10),
        ("request_timeout_seconds", "1e2", 100.0),
        ("quiet", "No", False),
        ("quiet", "T", True),
        ("gcp_project_id", " 7 ", " 7 "),
        ("gcp_bq_feedback_table", "null", "null"),
        ("state_dir", "null", Path("null")),
        ("state_dir", "7", Path("7")),
    ],
)
def test_numbers_and_switches_may_be_texts_and_texts_stay_as_they_are(
    key: str, text: str, value: object
) -> None:
    """Goal: environment and flags know only texts. Method: how people write them; texts that look so."""
    assert getattr(load(**{key: text}), key) == value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_cpu_percent", "null"),
        ("fleet_size", "null"),
        ("upload_concurrency_limit", "1e2"),
        ("upload_concurrency_limit", "10.5"),
        ("upload_concurrency_limit", "\u0661"),
        ("quiet", " yes "),
        ("bandwidth_limit_bytes_per_second", "65535"),
        ("bandwidth_limit_bytes_per_second", "-10MB"),
        ("bandwidth_limit_bytes_per_second", "10Mbit"),
        ("bandwidth_limit_bytes_per_second", "fast"),
        ("bandwidth_limit_bytes_per_second", "1e9"),
        ("bandwidth_limit_bytes_per_second", "10 MB per minute"),
        ("bandwidth_limit_bytes_per_second", "9" * 5000),
        ("max_cpu_percent", "0"),
        ("max_cpu_percent", "nan"),
        ("max_cpu_percent", "half"),
        ("max_cpu_percent", str(100 * (os.cpu_count() or 1) + 1)),
        ("quiet", "perhaps"),
        ("upload_concurrency_limit", "0"),
        ("upload_concurrency_limit", "many"),
        ("loads_per_day_limit", "1501"),
        ("chunk_bytes", str(256 * 1024 + 1)),
        ("request_timeout_seconds", "0"),
        ("request_timeout_seconds", "nan"),
        ("request_timeout_seconds", "inf"),
        ("drain_timeout_seconds", "-1"),
        ("log_level", "loud"),
        ("gcp_project_id", ""),
        ("dataset_tracking_file_name", "../x.jsonl"),
        ("dataset_tracking_file_name", ".."),
        ("accept_runs_without_images", "perhaps"),
        ("inflight_bytes_limit", "1048576"),
        ("resumable_threshold_bytes", str(2**40)),
    ],
)
def test_values_out_of_bounds_are_refused_at_start(key: str, value: str) -> None:
    """Goal: bounded, and checked at start. Method: one value beyond each kind of bound."""
    with pytest.raises(ConfigurationError):
        load(**{key: value})


def test_limits_that_fit_each_other_may_be_small() -> None:
    """Goal: small machines are served. Method: lower memory with everything that it must hold."""
    settings = load(inflight_bytes_limit="1048576", resumable_threshold_bytes="524288", chunk_bytes="262144")
    assert settings.chunk_bytes == 262144


def test_every_duration_and_size_has_its_unit_last() -> None:
    """Goal: no guessing. Method: each number's name ends in a unit, or in what it limits."""
    for key, field in SETTINGS.items():
        if field.kind.__origin__ in (int, float):
            assert key.endswith(("_seconds", "_seconds_min", "_seconds_max", "_bytes", "_limit")), key
        assert field.description, key


def test_settings_are_frozen() -> None:
    """Goal: one truth for the whole run. Method: try to change one."""
    with pytest.raises(AttributeError, match="immutable"):
        load().gcp_project_id = "other"  # type: ignore[misc]


def test_emulators_keep_the_names_that_googles_clients_know() -> None:
    """Goal: one export serves Pixaris and us. Method: set both, beside a name with our prefix."""
    environ = {
        "STORAGE_EMULATOR_HOST": "http://s",
        "BIGQUERY_EMULATOR_HOST": "http://b",
        "PIXARIS_SYNC_STORAGE_EMULATOR_HOST": "http://no",
    }
    settings = load(environ=environ)
    assert (settings.storage_emulator_host, settings.bigquery_emulator_host) == ("http://s", "http://b")
    assert environment_variable("state_dir") == "PIXARIS_SYNC_STATE_DIR"


def test_state_lies_where_it_is_told_then_systemds_then_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the promised order. Method: take the sources away one by one."""
    assert load().state_folder == tmp_path / "xdg" / "pixaris-sync"
    monkeypatch.setenv("STATE_DIRECTORY", f"{tmp_path}/systemd:{tmp_path}/second")
    assert load().state_folder == tmp_path / "systemd"
    assert load(state_dir=str(tmp_path / "told")).state_folder == tmp_path / "told"
    assert list(tmp_path.iterdir()) == []


def test_without_a_home_the_state_folder_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no folder called "~". Method: a home that Python cannot find, as that of an unknown user."""
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", str)
    with pytest.raises(ConfigurationError) as caught:
        _ = load().state_folder
    assert caught.value.cause == "this user has no home folder"
    assert "--state-dir" in caught.value.hint


@pytest.mark.parametrize("inside", ["", "state", "project/dataset"])
def test_state_inside_the_results_folder_is_refused(tmp_path: Path, inside: str) -> None:
    """Goal: Pixaris never shows our state as a project. Method: the folder itself, within, through a link."""
    results = tmp_path / "results"
    results.mkdir()
    (tmp_path / "link").symlink_to(results)
    for state in (results / inside, tmp_path / "link" / inside, tmp_path / "x" / ".." / "results" / inside):
        with pytest.raises(ConfigurationError) as refusal:
            load(local_results_folder=str(results), state_dir=str(state))
        assert "--state-dir" in refusal.value.hint
    load(local_results_folder=str(results), state_dir=str(tmp_path / "results-state"))


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("127.0.0.1:9465", ("127.0.0.1", 9465)),
        ("[::1]:0", ("::1", 0)),
        ("gpu1.example.org:65535", ("gpu1.example.org", 65535)),
    ],
)
def test_an_address_is_a_host_and_a_port(written: str, address: tuple[str, int]) -> None:
    """Goal: where to listen. Method: numbers of both kinds, a name; by default, and by "none", nowhere."""
    listen = load(listen=written).listen
    assert listen is not None
    assert host_and_port(listen) == address
    assert load().listen is None
    assert load(listen="none").listen is None


@pytest.mark.parametrize(
    "written",
    ["9465", ":9465", "127.0.0.1", "127.0.0.1:", "::1:9465", "[]:1", "a:65536", "a:-1", "a:1x", "a:\u0661"],
)
def test_an_address_that_is_none_is_refused(written: str) -> None:
    """Goal: a typing error is told, not guessed at. Method: parts that are missing or wrong."""
    with pytest.raises(ConfigurationError, match="listen"):
        load(listen=written)


def test_metrics_inside_the_results_folder_are_refused(tmp_path: Path) -> None:
    """Goal: nothing is written among the results. Method: a file right in it, and one beside it."""
    results = tmp_path / "results"
    with pytest.raises(ConfigurationError, match="where nothing is written"):
        load(local_results_folder=results, metrics_textfile=results / "m.prom")
    with pytest.raises(ConfigurationError, match="must name a file"):
        load(metrics_textfile="/")
    beside = tmp_path / "m.prom"
    assert load(local_results_folder=results, metrics_textfile=beside).metrics_textfile == beside


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/secret-token",
        "secret-token",
        "https://",
        "https://[::1/secret-token",
        "http://h:0/",
    ],
)
def test_a_heartbeat_is_an_address_and_is_never_shown(url: str) -> None:
    """Goal: it may hold a secret. Method: what is refused says not what it was; what is taken shows none."""
    with pytest.raises(ConfigurationError, match="must be an address") as raised:
        load(environ={"PIXARIS_SYNC_HEARTBEAT_URL": url})
    assert "secret-token" not in str(raised.value)
    assert "from environment" in str(raised.value)
    good = load(heartbeat_url="https://example.org/secret-token")
    assert "secret-token" not in repr(good)
    assert good.heartbeat_url is not None
    assert good.heartbeat_url.reveal() == "https://example.org/secret-token"
