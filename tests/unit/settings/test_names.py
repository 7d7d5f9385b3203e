"""Names of settings, and what may be meant by others."""

import pytest

from pixaris_sync.settings.fields import SETTINGS
from pixaris_sync.settings.model import environment_variable
from pixaris_sync.settings.names import Origin, flag, is_section, nearest, unknown_variables


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("stream_row_limit", "stream_rows_limit"),
        ("STREAM-ROWS-LIMIT", "stream_rows_limit"),
        ("bucketname", "gcp_pixaris_bucket_name"),
        ("project_id", "gcp_project_id"),
        ("results_folder", "local_results_folder"),
        ("local_result_folder", "local_results_folder"),
        ("bandwidth_limit", "bandwidth_limit_bytes_per_second"),
        ("state_directory", "state_dir"),
        ("quietly", "quiet"),
        ("qiet", "quiet"),
        ("flavour", ""),
        ("", ""),
        ("_", ""),
        (1, ""),
        (None, ""),
    ],
)
def test_the_nearest_name_is_found_or_none(name: object, meant: str) -> None:
    """Goal: a hint that helps, and none that misleads. Method: slips, parts, longer names, other words."""
    assert nearest(name) == meant


def test_every_setting_is_nearest_to_itself() -> None:
    """Goal: no setting shadows another. Method: each key, as it is and without its last letter."""
    for key in SETTINGS:
        assert nearest(key) == key
        assert nearest(key[:-1]) in [other for other in SETTINGS if other.startswith(key[:-1])]


def test_known_variables_and_those_of_others_give_no_warning() -> None:
    """Goal: no noise. Method: all that are ours, those of tests, Pixaris', near names of others."""
    ours = [environment_variable(key) for key in SETTINGS]
    others = [
        "PIXARIS_SYNC_CONFIG",
        "PIXARIS_SYNC_TEST_ANYTHING",
        "PIXARIS",
        "PIXARIS_HOME",
        "PATH",
        "CONFIG",
    ]
    assert unknown_variables(dict.fromkeys([*ours, *others], "x")) == []


def test_each_unknown_variable_gives_one_warning() -> None:
    """Goal: all are told, in a fixed order. Method: two, given in another order."""
    told = unknown_variables({"PIXARIS_SYNC_QUIETT": "", "PIXARIS_SYNC_": "", "PIXARISSYNC_LISTEN": "x"})
    assert [line.split()[3] for line in told] == [
        "PIXARISSYNC_LISTEN",
        "PIXARIS_SYNC_",
        "PIXARIS_SYNC_QUIETT",
    ]
    assert told[0].endswith("perhaps PIXARIS_SYNC_LISTEN is meant")
    assert told[2].endswith("perhaps PIXARIS_SYNC_QUIET is meant")


@pytest.mark.parametrize(
    "name", ["pixaris_sync", "pixaris-sync", "PixarisSync", "pixaris sync", "pixaris_snyc"]
)
def test_a_misspelt_section_is_one(name: str) -> None:
    """Goal: a whole section is not lost. Method: ways to write it; others are none."""
    assert is_section(name)
    for other in ("pixaris", "sync", "pixaris_ui", 1, None):
        assert not is_section(other)


def test_an_origin_says_where_to_look() -> None:
    """Goal: nobody hunts for it. Method: one of each kind."""
    assert str(Origin("command line", flag("chunk_bytes"))) == "flag --chunk-bytes"
    assert str(Origin("command line", flag("load_rows_limit"))) == "the command line"
    assert str(Origin("environment", "PIXARIS_SYNC_QUIET")) == "environment variable PIXARIS_SYNC_QUIET"
    assert str(Origin("file", "config.yaml", 3)) == "config.yaml line 3"
    assert str(Origin("file", "config.yaml")) == "config.yaml"
    assert str(Origin("defaults")) == "the defaults"
