"""``config init``: asks for the settings that are missing, and writes them into the config file."""

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import typer

from pixaris_sync.cli.exits import CommandLineError, Exit
from pixaris_sync.errors import ConfigurationError
from pixaris_sync.settings.additions import with_additions
from pixaris_sync.settings.config_file import BY_ITSELF, FOUND, ConfigFile, named_file
from pixaris_sync.settings.document import Document
from pixaris_sync.settings.fields import SETTINGS
from pixaris_sync.settings.kinds import Secret
from pixaris_sync.settings.messages import shown, together
from pixaris_sync.settings.model import Settings
from pixaris_sync.settings.names import flag
from pixaris_sync.settings.sources import Found, find_settings
from pixaris_sync.text import counted, printable_line

#: What is asked for; everything else has a default that is good for most.
ASKED: Final = (
    "gcp_project_id",
    "gcp_bq_experiment_dataset",
    "gcp_pixaris_bucket_name",
    "local_results_folder",
)


def init_config(flags: Mapping[str, Any], config: Path | None) -> Exit:
    """Write the settings that are given as flags, and those of `ASKED`, unless the file sets them.

    Raises:
        CommandLineError: something must be asked for, and stdin is no terminal.
        ConfigurationError: a value is refused, the file sets it otherwise, or the file cannot be written.
        KeyboardInterrupt: whoever was asked gave no answer.
    """
    file, around = _target(config)
    document = file.document or Document(file.path, "", None, None)
    given = {key: value for key, value in flags.items() if value is not None}
    _refuse_changes(given, file)
    wanted = {key: value for key, value in given.items() if key not in file.values}
    _refuse_wrong({**file.values, **wanted}, wanted)
    open_keys = [key for key in ASKED if key not in file.values and key not in wanted]
    wanted |= _asked(open_keys, around, file) if sys.stdin.isatty() else _assumed(open_keys, around)
    settings = _checked(wanted, file)
    _refuse_inside(file.path, [settings.local_results_folder, wanted.get("local_results_folder")])
    if not wanted:
        print(printable_line(f"{file.path} sets all that is needed: nothing was written"))
        return Exit.OK
    before = document.text if file.document else None
    text = with_additions(document, {key: _plain(settings, key) for key in wanted})
    _write(file.path, before, text, private=any(SETTINGS[key].is_secret for key in wanted))
    print(printable_line(f"{file.path}: {counted(len(wanted), 'setting')} written: {', '.join(wanted)}"))
    named = (
        f" --config {shlex.quote(str(file.path))}"
        if file.how == "--config" and file.path not in FOUND
        else ""
    )
    print(printable_line(f"next: `pixaris-sync config show{named}` shows what holds now,"))
    print(printable_line(f"      `pixaris-sync sync{named}` carries what is in the results folder"))
    return Exit.OK


def _target(config: Path | None) -> tuple[ConfigFile, Found]:
    """The file to write, as it is, and what is known without any flag.

    Raises:
        ConfigurationError: it cannot be read, something in it is wrong, or it is another program's.
    """
    named = named_file(config, os.environ)
    if named is not None and not os.path.lexists(named.path):
        return named, find_settings({}, search=False)
    found = find_settings({}, config=config)
    if found.file is not None:
        if found.file.faults:
            raise together(found.file.faults)
        return found.file, found
    if FOUND[0] in found.passed_over:
        raise ConfigurationError(
            "write config",
            str(FOUND[0]),
            "it is another program's: it holds nothing of Pixaris' and nothing of pixaris-sync's",
            hint=f"name another file with --config; or, to add to this one, give --config {FOUND[0]}",
        )
    return ConfigFile(FOUND[0], BY_ITSELF), found


def _refuse_changes(given: Mapping[str, Any], file: ConfigFile) -> None:
    """Refuse flags that say otherwise than the file.

    Raises:
        ConfigurationError: there is one.
    """
    for key, value in given.items():
        there = file.values.get(key, value)
        if str(there) != str(value):
            raise ConfigurationError(
                "write setting",
                key,
                f"line {file.lines[key]} of {file.path} sets it already, to {shown(key, there)}",
                hint=f"change it there, or leave {flag(key)} out",
            )


def _refuse_wrong(values: Mapping[str, Any], judged: Mapping[str, Any]) -> None:
    """Refuse values that are wrong, by the rules of every command.

    Raises:
        ConfigurationError: some of those that are judged are wrong.
    """
    found = find_settings(values, environ={}, search=False)
    faults = [fault for fault in found.faults if fault.subject in judged]
    if faults:
        raise together(faults)


def _known(key: str, around: Found) -> str:
    """What holds for a setting now; empty where nothing does."""
    value = around.values.get(key)
    return "" if value is None else str(value)


def _assumed(keys: list[str], around: Found) -> dict[str, Any]:
    """What is known of the settings.

    Raises:
        CommandLineError: of some nothing is known.
    """
    unknown = [key for key in keys if not _known(key, around)]
    if unknown:
        raise CommandLineError(
            "ask for",
            ", ".join(unknown),
            "stdin is no terminal",
            hint=f"give {', '.join(f'{flag(key)} VALUE' for key in unknown)}",
        )
    return {key: _known(key, around) for key in keys}


def _asked(keys: list[str], around: Found, file: ConfigFile) -> dict[str, Any]:
    """What somebody says who is asked; a wrong answer is told and asked for again."""
    answers: dict[str, Any] = {}
    if keys:
        print(printable_line(f"for {file.path}; Enter takes what stands in brackets"))
    for key in keys:
        while key not in answers:
            question = f"{key}: {SETTINGS[key].description}"
            try:
                answer = typer.prompt(question, default=_known(key, around) or None)
            except typer.Abort:
                raise KeyboardInterrupt from None
            try:
                _refuse_wrong({**file.values, **answers, key: answer}, {key: answer})
            except ConfigurationError as error:
                # Who has just written it knows what and where.
                print(printable_line(f"  {error.cause.partition(' (got ')[0]}"))
            else:
                answers[key] = answer
    return answers


def _checked(wanted: Mapping[str, Any], file: ConfigFile) -> Settings:
    """All settings as they will be with those that are wanted.

    Raises:
        ConfigurationError: some are missing or refused.
    """
    return find_settings(wanted, config=file.path if file.document else None, search=False).demand()


def _plain(settings: Settings, key: str) -> object:
    """A setting as a file holds it."""
    value = getattr(settings, key)
    if isinstance(value, Secret):
        return value.reveal()
    return value if isinstance(value, bool | int | float | None) else str(value)


def _refuse_inside(path: Path, folders: list[Any]) -> None:
    """Refuse to write into a results folder: Pixaris shows everything there as a project.

    Raises:
        ConfigurationError: the path lies in one of the folders.
    """
    for folder in folders:
        if folder is not None and path.resolve().is_relative_to(Path(folder).expanduser().resolve()):
            raise ConfigurationError(
                "write config",
                str(path),
                f"it lies inside the results folder {folder}, where nothing is written",
                hint="choose another place with --config",
            )


def _write(path: Path, before: str | None, text: str, *, private: bool) -> None:
    """Write the file in one step, unless it has changed; its mode stays, and so does a link to it.

    `private`: a new one is for its user alone.

    Raises:
        ConfigurationError: it cannot be written, or has changed.
    """
    place = path.resolve()
    fresh = place.with_name(f".{place.name}.{os.getpid()}.new")
    try:
        with fresh.open("x", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        now = place.read_bytes().decode("utf-8", "replace") if place.exists() else None
        if now != before:
            cause, hint = "it has changed meanwhile", "run `pixaris-sync config init` again"
            raise ConfigurationError("write config", str(path), cause, hint=hint)
        if before is not None:
            shutil.copymode(place, fresh)
            status = place.stat()
            with suppress(OSError):
                os.chown(fresh, status.st_uid, status.st_gid)
        elif private:
            fresh.chmod(0o600)
        fresh.replace(place)
    except OSError as error:
        raise ConfigurationError(
            "write config",
            str(path),
            error.strerror or type(error).__name__,
            hint="let its folder be there and be writable, or choose another place with --config",
        ) from None
    finally:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
