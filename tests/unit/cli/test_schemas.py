"""The schemas of what commands print for machines: whole, in use, and true to the words of the code.

Whatever a command prints with ``--json`` in any test is held against them; see `CommandLine.run`.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from pixaris_sync.cli.exits import Exit
from pixaris_sync.cli.report import limits_document
from pixaris_sync.model import FileState, RowState, RunState
from pixaris_sync.process.live_limits import InForce, LiveLimits
from pixaris_sync.verify import Finding, Kind, Sign
from tests.support.documents import COMMANDS
from tests.support.schemas import COMMON, ERROR, OF_COMMANDS, OF_FILES, misfit, misfit_in, schemas

NAMES = sorted(schemas())


def parts(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema and all that it is made of."""
    if isinstance(schema, dict):
        yield schema
        for one in schema.values():
            yield from parts(one)
    elif isinstance(schema, list):
        for one in schema:
            yield from parts(one)


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_is_strict_and_explained(name: str) -> None:
    """Goal: no key without a word on it, none that is not promised. Method: each part of each schema."""
    schema = schemas()[name]
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("/draft/2020-12/schema")
    assert schema["$id"] == f"{name}.json"
    for part in parts(schema):
        if part.get("type") == "object":
            assert part["additionalProperties"] is False
            assert set(part["required"]) <= set(part["properties"])
            for key, of in part["properties"].items():
                target = schemas()[COMMON]["$defs"][of["$ref"].rpartition("/")[2]] if "$ref" in of else of
                assert of.get("description") or target.get("description") or target.get("type") == "object", (
                    key
                )
        if "$ref" in part:
            assert part["$ref"].rpartition("/")[2] in schemas()[COMMON]["$defs"]


def test_every_schema_is_in_use_and_every_command_has_one() -> None:
    """Goal: none is forgotten. Method: commands with ``--json``, and the files of schemas."""
    with_json = {name for name, of in COMMANDS.items() if "--json" in {o for p in of.params for o in p.opts}}
    assert with_json == set(OF_COMMANDS)
    assert {*(name for names in OF_COMMANDS.values() for name in names), *OF_FILES, ERROR, COMMON} == set(
        NAMES
    )
    named = {
        part["$ref"].rpartition("/")[2] for of in schemas().values() for part in parts(of) if "$ref" in part
    }
    assert named == set(schemas()[COMMON]["$defs"])


def test_states_and_codes_are_those_of_the_code() -> None:
    """Goal: a new state cannot be forgotten. Method: each enumeration against its enum."""
    common = schemas()[COMMON]["$defs"]
    for name, kind in (("run", RunState), ("file", FileState), ("row", RowState)):
        assert common[f"{name}_state"]["enum"] == [str(state) for state in kind]
        assert common[f"{name}s"]["required"] == [str(state) for state in kind]
    assert common["exit_code"]["enum"] == [int(code) for code in Exit]
    assert common["finding"]["properties"]["sign"]["enum"] == [str(sign) for sign in Sign]
    assert common["finding"]["properties"]["kind"]["enum"] == [str(kind) for kind in Kind]
    summary = schemas()["verify"]["oneOf"][1]["properties"]["summary"]
    assert summary["required"] == [sign.name.lower() for sign in Sign]
    assert misfit("limit", limits_document(InForce(pid=1, limits=LiveLimits()))) == ""


def test_what_does_not_fit_is_found() -> None:
    """Goal: the checks can fail. Method: a key too many, one too few, another type, no JSON document."""
    finding = Finding(Sign.SAME, Kind.ROW, "t:run", "").document
    assert misfit("verify", finding) == ""
    assert misfit("verify", {**finding, "more": 1})
    assert misfit("retry", {"owner": None})
    assert "'1' is not of type 'integer'" in misfit("retry", {"released": "1", "owner": None})
    assert misfit_in("retry", 0, '{"released": 1, "owner": null}\n') == ""
    assert re.match("none of retry: ", misfit_in("retry", 0, '{"error": {}}\n'))
    assert misfit_in("retry", 2, "") == "nothing was printed"
    assert misfit_in("retry", -9, "{") == ""
