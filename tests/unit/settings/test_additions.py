"""Settings added to a config file: nothing of it is lost, and what comes out means what it should."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pixaris_sync.errors import ConfigurationError
from pixaris_sync.settings.additions import with_additions
from pixaris_sync.settings.document import parse_document

PATH = Path("config.yaml")
VALUES = {"gcp_project_id": "p", "local_results_folder": "/data/no: such"}
#: Files of all the shapes that people write.
FILES = {
    "empty": "",
    "comments": "# mine\n",
    "others": "gcp_location: here # why\nnested:\n  a: [1,\n    2]\n",
    "no line end": "a: 1",
    "dos": "a: 1\r\npixaris_sync:\r\n  quiet: false\r\n# end\r\n",
    "dos without line end": "pixaris_sync:\r\n  quiet: false",
    "section": "pixaris_sync:\n    # why\n    quiet: false   # so\n\n# after\nother: 1\n",
    "section at the end": "other: 1\npixaris_sync:\n  quiet: false",
    "empty section": "pixaris_sync: # soon\nother: 1\n",
    "empty section at the end": "other: 1\npixaris_sync:",
    "section of one line": "pixaris_sync: { quiet: false }\nother: 1\n",
    "empty section of one line": "pixaris_sync: {}\n",
    "many lines": "pixaris_sync:\n  listen: |\n    127.0.0.1:1\nother: 1\n",
    "folded": "pixaris_sync:\n  listen: >-\n    127.0.0.1:1\n\nother: 1\n",
    "quoted": "'pixaris_sync':\n  \"quiet\": 'false'\n",
    "indented": "  other: 1\n  pixaris_sync:\n     quiet: false\n",
    "an empty key": "gcp_project_id: # fill in\nother: 1\n",
    "two empty keys": "gcp_project_id:\npixaris_sync:\n",
    "merged": "base: &base {quiet: false}\npixaris_sync:\n  <<: *base\n  log_level: info # so\n",
    "begun": "---\nother: 1\n",
    "other letters": "name: Ünïcödé \N{SNOWMAN}\npixaris_sync:\n  quiet: false\n",
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keys", [["gcp_project_id"], ["local_results_folder"], [*VALUES]], ids="+".join)
def test_additions_lose_nothing(name: str, keys: list[str]) -> None:
    """Goal: every character stays, and every key. Method: shapes of files; what is there, in its order."""
    before = FILES[name]
    values = {key: VALUES[key] for key in keys}
    after = with_additions(parse_document(before, PATH, hint=""), values)
    assert _is_within(before, after)
    meant: dict[str, Any] = yaml.safe_load(before) or {}
    if "local_results_folder" in values:
        meant["pixaris_sync"] = {
            **(meant.get("pixaris_sync") or {}),
            "local_results_folder": VALUES["local_results_folder"],
        }
    if "gcp_project_id" in values:
        meant["gcp_project_id"] = "p"
    assert yaml.safe_load(after) == meant
    assert ("\r\n" in before) == ("\r\n" in after)
    assert after.count("\n") == after.count("\r\n") or "\r\n" not in before


@pytest.mark.parametrize(
    "before",
    [
        "a: 1\n...\n",
        "{a: 1}\n",
        "gcp_project_id: null\n",
        "gcp_project_id: other\n",
        "base: &base {quiet: false}\npixaris_sync: *base\n",
        "- a\n",
    ],
)
def test_what_cannot_be_added_to_is_left_to_a_person(before: str) -> None:
    """Goal: no file is broken. Method: shapes that lines cannot be added to; the hint tells the lines."""
    with pytest.raises(ConfigurationError) as refusal:
        with_additions(parse_document(before, PATH, hint=""), VALUES)
    assert "`gcp_project_id: p`" in refusal.value.hint
    assert "`local_results_folder: '/data/no: such'` below pixaris_sync:" in refusal.value.hint


def test_a_value_is_written_such_that_it_is_read_as_it_was() -> None:
    """Goal: text stays text. Method: values that YAML would take for something else."""
    for value in ("1", "true", "null", "#x", "a: b", "'", '"', "\N{SNOWMAN}", "x" * 300, "~", "- a", "*a"):
        text = with_additions(parse_document("", PATH, hint=""), {"gcp_project_id": value})
        assert yaml.safe_load(text) == {"gcp_project_id": value}


def _is_within(before: str, after: str) -> bool:
    """Whether all characters of the one stand in the other, in their order."""
    rest = iter(after)
    return all(character in rest for character in before)
