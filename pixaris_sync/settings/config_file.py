"""The config file: which one is taken, and what it sets.

It is Pixaris' own ``config.yaml``, taken as it is; our keys may stand in it under ``pixaris_sync:``. Without
a word of the user's, one in the working folder is found: ``config.yaml``, else ``pixaris/config.yaml``. Many
programs have a ``config.yaml``, so a found one that holds nothing of Pixaris' and nothing of ours is passed
over. One that is no YAML at all might be meant, and is an error.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from msgspec import Struct, field

from pixaris_sync.errors import ConfigurationError
from pixaris_sync.settings.document import OPERATION, Document, read_document
from pixaris_sync.settings.fields import SETTINGS
from pixaris_sync.settings.names import (
    CONFIG_VARIABLE,
    PIXARIS_KEYS,
    SECTION,
    SETTINGS_PAGE,
    is_section,
    nearest,
)

#: What is looked for, in this order, below the working folder.
FOUND: Final = (Path("config.yaml"), Path("pixaris", "config.yaml"))
#: How a file came to be taken, where nobody named it.
BY_ITSELF: Final = "found in the working folder"
#: Keys of ours that any program's file may hold.
_COMMON: Final = frozenset({"listen", "log_format", "log_level", "quiet"})


class ConfigFile(Struct, frozen=True):
    """A file and what it sets.

    Attributes:
        path: the file.
        how: what named it: ``--config``, the variable's name, or `BY_ITSELF`.
        document: its content; None where it could not be read or understood.
        values: what it sets, as it stands there.
        lines: the line of each of them, from 1; 0 where it stands on none.
        faults: what is wrong with it.
        warnings: what may be meant otherwise.
    """

    path: Path
    how: str
    document: Document | None = None
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    faults: list[ConfigurationError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def named_file(config: Path | None, environ: Mapping[str, str]) -> ConfigFile | None:
    """The file that the flag names, else the variable, before it is read."""
    if config is not None:
        return ConfigFile(config, "--config")
    if variable := environ.get(CONFIG_VARIABLE):
        return ConfigFile(Path(variable), CONFIG_VARIABLE)
    return None


def find_file(
    config: Path | None, environ: Mapping[str, str], *, search: bool
) -> tuple[ConfigFile | None, list[Path]]:
    """The file to take, read, and those that were passed over.

    Args:
        config: what the command line names.
        environ: the environment; it counts only with `search`.
        search: look further where the command line names none.
    """
    named = named_file(config, environ if search else {})
    if named is not None:
        return _read(named), []
    passed_over: list[Path] = []
    for path in FOUND if search else ():
        if not os.path.isfile(path):  # noqa: PTH113 - `Path.is_file` raises where a folder may not be entered
            continue
        found = _read(ConfigFile(path, BY_ITSELF))
        if found.faults or _is_ours(found.document):
            return found, passed_over
        passed_over.append(path)
    return None, passed_over


def _read(file: ConfigFile) -> ConfigFile:
    """The file with what it sets."""
    if file.how == BY_ITSELF:
        hint = "correct it, or name another file with --config"
    elif file.how == CONFIG_VARIABLE:
        hint = f"let {CONFIG_VARIABLE} name Pixaris' config.yaml, or a file like it, or unset it"
    else:
        hint = "give Pixaris' config.yaml, or a file like it, with --config"
    try:
        document = read_document(file.path, hint=hint)
    except ConfigurationError as error:
        return ConfigFile(file.path, file.how, faults=[error])
    read = ConfigFile(file.path, file.how, document)
    if document.value is None or isinstance(document.value, dict):
        _take(read, document)
    elif file.how != BY_ITSELF:
        cause = "it is not a mapping of keys to values"
        read.faults.append(ConfigurationError(OPERATION, str(file.path), cause, hint=hint))
    return read


def _is_ours(document: Document | None) -> bool:
    """Whether a file that nobody named is about Pixaris or us."""
    if document is None:
        return False
    ours = {*PIXARIS_KEYS, *(SETTINGS.keys() - _COMMON)}
    return any(key in ours or is_section(key) for key in document.mapping)


def _take(file: ConfigFile, document: Document) -> None:
    """Fill in what the document sets and what is wrong with it."""
    path, top = file.path, document.mapping
    for key in PIXARIS_KEYS:
        if top.get(key) is not None:
            file.values[key], file.lines[key] = top[key], document.line(key)
    for key in top:
        if key in SETTINGS and key not in PIXARIS_KEYS:
            file.warnings.append(
                f"{path} line {document.line(key)}: {key} is ignored where it stands: "
                f"if it is meant for pixaris-sync, move it below {SECTION}:"
            )
        elif is_section(key) and key != SECTION:
            cause = f"line {document.line(key)}: unknown key {key!r}"
            file.faults.append(
                ConfigurationError(OPERATION, str(path), cause, hint=f"write {SECTION}: in its place")
            )
    section = top.get(SECTION)
    if not isinstance(section, dict | None):
        cause = (
            f"line {document.line(SECTION)}: what stands under {SECTION}: is not a mapping of keys to values"
        )
        hint = f"write each setting on a line of its own below {SECTION}:, indented, as key: value"
        file.faults.append(ConfigurationError(OPERATION, str(path), cause, hint=hint))
        return
    for key, value in (section or {}).items():
        line = document.line(SECTION, key)
        if key in SETTINGS:
            file.values[key], file.lines[key] = value, line
            continue
        meant = nearest(key)
        hint = f"{SETTINGS_PAGE} lists the keys"
        file.faults.append(
            ConfigurationError(
                OPERATION,
                str(path),
                f"line {line}: unknown key {key!r} under {SECTION}:",
                hint=f"perhaps {meant} is meant; {hint}" if meant else hint,
            )
        )
