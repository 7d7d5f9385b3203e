"""Where the values of `Settings` come from.

Precedence: flags, then environment, then the config file, then the defaults. Every key may be set in the
environment as ``PIXARIS_SYNC_<KEY>``.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pixaris_sync.errors import ConfigurationError
from pixaris_sync.settings.config_file import ConfigFile, find_file
from pixaris_sync.settings.fields import SETTINGS, read_values
from pixaris_sync.settings.messages import missing, refused, together
from pixaris_sync.settings.model import Settings, environment_variable
from pixaris_sync.settings.names import Origin, flag, nearest, unknown_variables

_INIT = "pixaris-sync config init"


class Found(NamedTuple):
    """What all sources together say, also where that is wrong.

    Attributes:
        settings: all settings; None where there are faults.
        values: the value of each setting, defaults included, without those that are missing or refused.
        origins: where each value comes from; of a refused one, too; of a missing one, nothing.
        file: the config file that was taken, if any.
        passed_over: files that were found and hold nothing of Pixaris' nor of ours.
        faults: what is wrong. The subject of one about a setting is its key.
        warnings: what may be meant otherwise than it is taken, one line each.
    """

    settings: Settings | None
    values: Mapping[str, Any]
    origins: Mapping[str, Origin]
    file: ConfigFile | None
    passed_over: tuple[Path, ...]
    faults: tuple[ConfigurationError, ...]
    warnings: tuple[str, ...]

    def demand(self) -> Settings:
        """The settings.

        Raises:
            ConfigurationError: there are faults; a `SettingsError` where there are several.
        """
        if self.settings is None:
            raise together(self.faults)
        return self.settings


def load_settings(
    flags: Mapping[str, Any], *, config: Path | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Merge flags, environment, the named file and defaults into validated settings.

    Args:
        flags: values given on the command line; None means not given.
        config: Pixaris' ``config.yaml`` or a file like it. None is searched for.
        environ: the environment; that of the process unless given.

    Raises:
        ConfigurationError: the file cannot be read or understood, a value is missing or out of bounds, or
            the state folder lies inside the results folder; a `SettingsError` where several are wrong.
    """
    return find_settings(flags, config=config, environ=environ, search=False).demand()


def find_settings(
    flags: Mapping[str, Any],
    *,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
    search: bool = True,
) -> Found:
    """Merge flags, environment, a config file and defaults, and raise nothing.

    Args:
        flags: values given on the command line; None means not given.
        config: the file that the command line names.
        environ: the environment; that of the process unless given.
        search: where the command line names no file, take the one that the environment names, or one in the
            working folder.
    """
    environ = os.environ if environ is None else environ
    file, passed_over = find_file(config, environ, search=search)
    given, origins = _merged(flags, environ, file)
    faults = list(file.faults) if file else []
    values, wrong = read_values(given)
    absent = [key for key, setting in SETTINGS.items() if setting.is_required and key not in given]
    faults += [_missing(key, file, passed_over) for key in absent]
    faults += refused(wrong, given, origins)
    settings = None if absent or wrong else Settings(**values)
    if settings is not None:
        faults += _misplaced(settings)
    return Found(
        settings=None if faults else settings,
        values=values,
        origins=origins,
        file=file,
        passed_over=tuple(passed_over),
        faults=tuple(faults),
        warnings=(*(file.warnings if file else ()), *unknown_variables(environ)),
    )


def _merged(
    flags: Mapping[str, Any], environ: Mapping[str, str], file: ConfigFile | None
) -> tuple[dict[str, Any], dict[str, Origin]]:
    """The strongest value of each setting that is given anywhere, and where each setting's comes from."""
    values: dict[str, Any] = {}
    origins = {key: Origin("defaults") for key, setting in SETTINGS.items() if not setting.is_required}
    if file:
        values.update(file.values)
        origins.update({key: Origin("file", str(file.path), line) for key, line in file.lines.items()})
    for key in SETTINGS:
        variable = environment_variable(key)
        if environ.get(variable):
            values[key], origins[key] = environ[variable], Origin("environment", variable)
    for key, value in flags.items():
        if value is not None:
            values[key], origins[key] = value, Origin("command line", flag(key))
    return values, origins


def _missing(key: str, file: ConfigFile | None, passed_over: list[Path]) -> ConfigurationError:
    """A required setting that nothing sets, with what may explain it."""
    remark = ""
    document = file.document if file else None
    if document is not None:
        others = [name for name in document.mapping if isinstance(name, str) and name != key]
        near = next((name for name in others if nearest(name) == key), "")
        remark = f"line {document.line(near)} of {document.path} says {near}" if near else ""
    elif passed_over:
        remark = (
            f"{passed_over[0]} was passed over: it holds nothing of Pixaris' and nothing of pixaris-sync's"
        )
    if file is not None:
        named = f" --config {shlex.quote(str(file.path))}" if file.how == "--config" else ""
        return missing(key, file=str(file.path), asks=f"{_INIT}{named}", remark=remark)
    if passed_over:
        # What is another program's is not added to without a word.
        place = "a file that --config names"
        return missing(key, file=place, asks=f"{_INIT} --config pixaris-sync.yaml", remark=remark)
    return missing(key, file="config.yaml", asks=_INIT, remark=remark)


def _misplaced(settings: Settings) -> list[ConfigurationError]:
    """What would be written into the results folder."""
    try:
        results, state = _real(settings.local_results_folder), _real(settings.state_folder)
        textfile = settings.metrics_textfile
        metrics = _real(textfile.parent) if textfile is not None else None
    except ConfigurationError as error:
        return [error]
    found = []
    if state.is_relative_to(results):
        found.append(
            ConfigurationError(
                "use state folder",
                str(settings.state_folder),
                f"it lies inside the results folder {results}, where Pixaris would show it as a project",
                hint="choose another folder with --state-dir or PIXARIS_SYNC_STATE_DIR",
            )
        )
    if metrics is not None and metrics.is_relative_to(results):
        found.append(
            ConfigurationError(
                "use metrics file",
                str(textfile),
                f"it lies inside the results folder {results}, where nothing is written",
                hint="choose another place with --metrics-textfile or PIXARIS_SYNC_METRICS_TEXTFILE",
            )
        )
    return found


def _real(folder: Path) -> Path:
    """The absolute path of a folder, without links.

    Raises:
        ConfigurationError: there is no such path.
    """
    try:
        return folder.resolve()
    except (OSError, RuntimeError, ValueError):
        raise ConfigurationError(
            "find",
            str(folder),
            "its links lead in a circle, or no path can be written so",
            hint="correct local_results_folder, or choose another --state-dir",
        ) from None
