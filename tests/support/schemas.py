"""The schemas of what commands print for machines, and whether a document fits them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

import pixaris_sync.cli

FOLDER = Path(pixaris_sync.cli.__file__).parent / "schemas"
#: What commands print with ``--json``. Any of them may print `ERROR` instead.
OF_COMMANDS = {
    "backfill": ("pass", "preview", "differences"),
    "config show": ("config",),
    "doctor": ("doctor",),
    "limit": ("limit",),
    "pause": ("pause",),
    "resume": ("pause",),
    "prune": ("prune",),
    "pull": ("pull",),
    "retry": ("retry",),
    "status": ("status", "story", "ledgers", "shards", "forgotten"),
    "sync": ("pass",),
    "verify": ("verify",),
}
ERROR = "error"
#: What commands write to files.
OF_FILES = ("plan",)
#: What only other schemas name.
COMMON = "common"


@cache
def schemas() -> dict[str, Any]:
    """All schemas by the names of their files."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


@cache
def validator(name: str) -> Draft202012Validator:
    """What tells whether documents fit a schema."""
    known = [(f"{one}.json", Resource.from_contents(schema)) for one, schema in schemas().items()]
    return Draft202012Validator(schemas()[name], registry=Registry().with_resources(known))


def misfit(name: str, document: object) -> str:
    """What of a document does not fit a schema; empty where all does."""
    return "; ".join(f"{one.json_path}: {one.message}" for one in validator(name).iter_errors(document))


def misfit_in(command: str, code: int, printed: str) -> str:
    """What of a command's output does not fit; empty where each line is a document that fits.

    A command that was killed may have printed a part, and one that fails an error.
    """
    if code < 0:
        return ""
    names = [*OF_COMMANDS.get(command, ()), *([ERROR] if code else [])]
    for line in printed.splitlines():
        found = [misfit(name, json.loads(line)) for name in names]
        if all(found):
            return f"none of {', '.join(names)}: {min(found, key=len)}"
    return "" if printed else "nothing was printed"
