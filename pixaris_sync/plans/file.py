"""A plan as a file: written once and whole, and read back only if nothing of it has changed."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec import Struct

from pixaris_sync.errors import ConfigurationError, SyncError
from pixaris_sync.ledger.foreseen import Fate, ForeseenFile, ForeseenRow, ForeseenRun
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.model import RunKey
from pixaris_sync.plans.plan import VERSION, Plan, PlannedTable, document_of
from pixaris_sync.rules.prices import Operations

_ANEW = "`pixaris-sync backfill --plan FILE` makes another one, where FILE is a new name"


class StoredPlan(Struct, frozen=True):
    """A plan as it was read: `checksum` tells it from every other one."""

    plan: Plan
    checksum: str


def check_place(path: Path, results: Path) -> None:
    """Make sure that a plan can be written to a place, before the work of making one.

    Raises:
        ConfigurationError: there is something, or it is in the results folder, or no folder is there.
    """
    place = path.absolute().parent.resolve()
    if place.is_relative_to(results.resolve()):
        cause, hint = "it is in the results folder, where Pixaris would list it", "name a file outside of it"
    elif path.exists() or path.is_symlink():
        cause, hint = "there is a file already", "name another file, or remove this one"
    elif not place.is_dir():
        cause, hint = "its folder is not there", f"make the folder {place} first"
    else:
        return
    raise ConfigurationError("write plan", str(path), cause, hint=hint)


def write_plan(path: Path, plan: Plan) -> None:
    """Write a plan to a new file, whole or not at all.

    Raises:
        ConfigurationError: it cannot be written, or there is a file by now.
    """
    document = document_of(plan)
    document["checksum"] = _checksum(document)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with fresh.open("x", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        # Unlike a rename it replaces nothing.
        os.link(fresh, path)
    except OSError as error:
        cause = error.strerror or str(error)
        hint = "name a file that can be written"
        raise ConfigurationError("write plan", str(path), cause, hint=hint) from error
    finally:
        with suppress(OSError):
            fresh.unlink()


def read_plan(path: Path) -> StoredPlan:
    """Read a plan.

    Raises:
        ConfigurationError: there is none that can be read.
        SyncError: it was changed or damaged, or another version has written it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        cause = error.strerror or str(error)
        raise ConfigurationError(
            "read plan", str(path), cause, hint="name the file that `--plan` wrote"
        ) from error
    except ValueError:
        text = ""
    try:
        document = json.loads(text)
        version, told = document["version"], document.pop("checksum")
        checksum = _checksum(document)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        raise SyncError("read plan", str(path), "it is no plan, or it is damaged", hint=_ANEW) from None
    if version != VERSION:
        cause = f"it is of version {version}, and this program writes and reads version {VERSION}"
        raise SyncError("read plan", str(path), cause, hint=_ANEW)
    if checksum != told:
        raise SyncError("read plan", str(path), "it was changed after it was written", hint=_ANEW)
    return StoredPlan(_plan_of(document), checksum)


def _checksum(document: Mapping[str, Any]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _plan_of(document: Mapping[str, Any]) -> Plan:
    asked = document["operations"]
    return Plan(
        made_at=document["made_at"],
        folder=document["folder"],
        bucket=document["bucket"],
        dataset=document["dataset"],
        selection=Selection.of_document(document["selection"]),
        full=document["full"],
        runs=tuple(map(_run_of, document["runs"])),
        tables=tuple(
            PlannedTable(
                one["table"],
                None if one["columns"] is None else tuple(one["columns"]),
                tuple(one["add"]),
                tuple(one["widen"]),
            )
            for one in document["tables"]
        ),
        left_out=tuple(document["left_out"]),
        summary=document["summary"],
        operations=Operations(
            asked["class_a_uploads"],
            asked["class_a_listings"],
            asked["class_b"],
            asked["load_jobs"],
            asked["queries"],
            asked["query_bytes"],
            asked["streamed_rows"],
        ),
    )


def _run_of(told: Mapping[str, Any]) -> ForeseenRun:
    return ForeseenRun(
        RunKey(**told["run"]),
        tuple(ForeseenFile(**{**one, "fate": Fate(one["fate"])}) for one in told["files"]),
        tuple(ForeseenRow(**{**one, "fate": Fate(one["fate"])}) for one in told["rows"]),
    )
