"""``status --ledgers`` and ``status --forget``: every ledger of the state folder, and the end of one."""

import fcntl
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pixaris_sync.cli import report
from pixaris_sync.cli.exits import CommandLineError, Exit
from pixaris_sync.cli.wiring import settings_for
from pixaris_sync.errors import ConfigurationError, FolderOwnedError
from pixaris_sync.ledger.listing import KnownLedger, forget, known_ledgers
from pixaris_sync.model import JsonValue, RunState
from pixaris_sync.process.ownership import LOCK_SUFFIX, Owner, read_owner
from pixaris_sync.settings.fields import SETTINGS
from pixaris_sync.text import bytes_text, counted, printable_line

_LIST_HINT = "`pixaris-sync status --ledgers` lists them"
_NO_DESTINATION = "none"


def show_ledgers(flags: Mapping[str, Any], config: Path | None, *, as_json: bool) -> Exit:
    """Print all ledgers of the state folder; no destination need be set.

    Raises:
        ConfigurationError: the state folder cannot be listed.
    """
    folder = _state_folder(flags, config)
    documents = [_document(ledger) for ledger in _ledgers(folder)]
    if as_json:
        print(report.as_json({"state_folder": str(folder), "ledgers": documents}))
        return Exit.OK
    print(f"{counted(len(documents), 'ledger')} in {printable_line(str(folder))}")
    for document in documents:
        print(f"\n{printable_line(document['name'])}\n{_text(document)}")
    return Exit.OK


def forget_ledger(
    name: str, flags: Mapping[str, Any], config: Path | None, *, is_agreed: bool, as_json: bool
) -> Exit:
    """Forget one ledger, once somebody has agreed to it.

    Raises:
        CommandLineError: nobody agreed, and nobody can be asked.
        ConfigurationError: there is no ledger of this name, or it cannot be removed.
        FolderOwnedError: a process works with it.
    """
    folder = _state_folder(flags, config)
    ledger = next((one for one in _ledgers(folder) if one.path.name == name), None)
    if ledger is None:
        raise ConfigurationError(
            "forget ledger", name, f"there is none of this name in {folder}", hint=_LIST_HINT
        )
    with _unused(ledger):
        if not is_agreed:
            _ask(ledger)
            if not _agreed():
                print("nothing was changed")
                return Exit.OK
        try:
            removed = forget(ledger)
        except OSError as error:
            raise ConfigurationError(
                "forget ledger",
                str(ledger.path),
                error.strerror or str(error),
                hint="do it as the user that the service runs as",
            ) from None
    names = [path.name for path in removed]
    if as_json:
        print(report.as_json({"forgotten": name, "files": names}))
    else:
        print(f"{printable_line(name)} is forgotten: {counted(len(names), 'file')} removed")
    return Exit.OK


def _ask(ledger: KnownLedger) -> None:
    """Say what it would mean.

    Raises:
        CommandLineError: nobody can be asked.
    """
    if not sys.stdin.isatty():
        cause = "there is no terminal to ask whether you mean it"
        raise CommandLineError("forget ledger", ledger.path.name, cause, hint="give --yes if you do")
    print(_text(_document(ledger)))
    print(
        "A ledger is only a cache. Once it is forgotten, the next `pixaris-sync sync` of\n"
        "its folder asks the cloud what is there: that takes time, and nothing is sent\n"
        "twice."
    )


def _agreed() -> bool:
    print("Forget it? [y/N] ", end="", flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@contextmanager
def _unused(ledger: KnownLedger) -> Iterator[None]:
    """Keep others from working with a ledger.

    Raises:
        FolderOwnedError: one does.
    """
    if ledger.set_aside:
        yield
        return
    try:
        handle = os.open(ledger.path.with_suffix(LOCK_SUFFIX), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(
            "forget ledger",
            str(ledger.path),
            error.strerror or str(error),
            hint="do it as the user that the service runs as",
        ) from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderOwnedError(
                "forget ledger",
                ledger.path.name,
                f"it is used by {_owner(ledger) or 'another process'}",
                hint="stop it first",
            ) from None
        yield
    finally:
        os.close(handle)


def _state_folder(flags: Mapping[str, Any], config: Path | None) -> Path:
    # Which destination is meant does not matter here: none need be set.
    needed = [key for key, setting in SETTINGS.items() if setting.is_required]
    given = {key: value for key, value in flags.items() if value is not None}
    return settings_for({**given, **dict.fromkeys(needed, _NO_DESTINATION)}, config).state_folder


def _ledgers(folder: Path) -> list[KnownLedger]:
    try:
        return known_ledgers(folder)
    except OSError as error:
        raise ConfigurationError(
            "list ledgers in",
            str(folder),
            error.strerror or str(error),
            hint="choose another folder with --state-dir, or do it as the user that the service runs as",
        ) from None


def _owner(ledger: KnownLedger) -> Owner | None:
    return None if ledger.set_aside else read_owner(ledger.path.with_suffix(".owner"))


def _document(ledger: KnownLedger) -> dict[str, Any]:
    home, numbers, owner = ledger.home, ledger.numbers, _owner(ledger)
    names = ("bucket", "bq_project", "bq_dataset", "storage_emulator_host", "bigquery_emulator_host")
    destination: dict[str, JsonValue] | None = None
    if home is not None:
        destination = {name: value or None for name, value in zip(names, home.destination, strict=True)}
    runs = None if numbers is None else numbers.runs
    return {
        "name": ledger.path.name,
        "folder": None if home is None else home.folder,
        "folder_is_there": ledger.folder_is_there,
        "shard": None if home is None else home.shard or None,
        "destination": destination,
        "worked_with_at": report.when(home.owned_at or None) if home is not None else None,
        "last_synced_at": report.when(numbers.last_synced_at) if numbers is not None else None,
        "bytes": ledger.bytes,
        "runs": runs,
        "set_aside": ledger.set_aside,
        "trouble": ledger.trouble or None,
        "owner": None if owner is None else str(owner),
    }


def _text(document: Mapping[str, Any]) -> str:
    to, runs = document["destination"], document["runs"]
    folder = document["folder"] or "not known: an older version made it, or it cannot be read"
    if document["folder"] is not None and not document["folder_is_there"]:
        folder += " (not there now)"
    rows = [("folder", folder)]
    rows += [("shard", f"{document['shard']}: files of its runs alone")] if document["shard"] else []
    if to is not None:
        emulators = [to[name] for name in ("storage_emulator_host", "bigquery_emulator_host") if to[name]]
        rows.append(("to", f"gs://{to['bucket']} and {to['bq_project']}.{to['bq_dataset']}"))
        rows += [("at", f"emulators {' and '.join(emulators)}")] if emulators else []
    if runs is not None:
        waiting = runs[RunState.PENDING] + runs[RunState.FAILING]
        needy = runs[RunState.QUARANTINED] + runs[RunState.INCOMPLETE]
        rows.append(("runs", f"{runs[RunState.SYNCED]} synced, {waiting} waiting, {needy} to act on"))
    if document["trouble"]:
        rows.append(("trouble", document["trouble"]))
    rows.append(("size", bytes_text(document["bytes"])))
    rows.append(("last", document["worked_with_at"] or "not known"))
    if document["owner"]:
        rows.append(("work", document["owner"]))
    return "\n".join(f"  {line}" for line in report.table_text(rows).splitlines())
