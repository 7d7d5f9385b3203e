"""Where the values of `Settings` come from.

Precedence: flags, then environment, then the config file, then the defaults. The config file is Pixaris' own
``config.yaml``, taken as it is; our keys may stand in it under ``pixaris_sync:``. Every key may be set in the
environment as ``PIXARIS_SYNC_<KEY>``.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from pixaris_sync.errors import ConfigurationError
from pixaris_sync.settings.model import SecretAddress, Settings, environment_variable
from pixaris_sync.text import MASK

#: The keys that Pixaris' own config.yaml holds and that mean the same to us.
PIXARIS_KEYS: Final = (
    "gcp_project_id",
    "gcp_bq_experiment_dataset",
    "gcp_pixaris_bucket_name",
    "gcp_bq_feedback_table",
)
SECTION: Final = "pixaris_sync"

_SECRETS = [key for key, field in Settings.model_fields.items() if field.annotation == SecretAddress]


def load_settings(
    flags: Mapping[str, Any], *, config: Path | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Merge flags, environment, file and defaults into validated settings.

    Args:
        flags: values given on the command line; None means not given.
        config: Pixaris' ``config.yaml`` or a file like it.
        environ: the environment; that of the process unless given.

    Raises:
        ConfigurationError: the file cannot be read or understood, a value is missing or out of bounds, or
            the state folder lies inside the results folder.
    """
    found = find_settings(flags, config=config, environ=environ)
    if found.settings is None:
        raise found.faults[0]
    return found.settings


@dataclass(frozen=True, slots=True)
class Found:
    """What all sources together say, also where that is wrong.

    Attributes:
        settings: all settings; None where there are faults.
        values: the value of each setting, defaults included, without those that are missing or refused.
        origins: where each value comes from.
        faults: what is wrong. The subject of one about a setting is its key.
        warnings: what may be meant otherwise than it is taken, one line each.
    """

    settings: Settings | None
    values: Mapping[str, Any]
    origins: Mapping[str, object]
    faults: tuple[ConfigurationError, ...]
    warnings: tuple[str, ...] = ()


def find_settings(
    flags: Mapping[str, Any], *, config: Path | None = None, environ: Mapping[str, str] | None = None
) -> Found:
    """Merge flags, environment, file and defaults, and raise nothing; arguments as of `load_settings`."""
    environ = os.environ if environ is None else environ
    origin: dict[str, str] = dict.fromkeys(Settings.model_fields, "defaults")
    given: dict[str, Any] = {}
    faults: list[ConfigurationError] = []
    in_file: dict[str, Any] = {}
    try:
        in_file = _from_file(config) if config else {}
    except ConfigurationError as error:
        faults.append(error)
    for source, found in (
        (str(config), in_file),
        ("environment", _from_environment(environ)),
        ("command line", {key: value for key, value in flags.items() if value is not None}),
    ):
        given.update(found)
        origin.update(dict.fromkeys(found, source))
    settings = None
    try:
        settings = Settings(**given)
        faults += _misplaced(settings)
        values = {key: getattr(settings, key) for key in Settings.model_fields}
    except ValidationError as error:
        wrong = {str(one["loc"][0]) for one in error.errors()}
        faults += explain_all(error, origin)
        sound = {key: value for key, value in given.items() if key not in wrong}
        stand_ins: dict[str, Any] = {key: "-" for key in wrong if Settings.model_fields[key].is_required()}
        settings = Settings(**sound, **stand_ins)
        values = {key: getattr(settings, key) for key in Settings.model_fields if key not in wrong}
    return Found(None if faults else settings, values, origin, tuple(faults))


def _misplaced(settings: Settings) -> list[ConfigurationError]:
    """What would be written into the results folder."""
    try:
        results, state = _real(settings.local_results_folder), _real(settings.state_folder)
        textfile = settings.metrics_textfile
        metrics = None if textfile is None else _real(textfile.parent)
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


def _from_file(path: Path) -> dict[str, Any]:
    import yaml  # noqa: PLC0415 - often there is no file

    operation, hint = "read config", "give Pixaris' config.yaml, or a file like it, with --config"
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(operation, str(path), error.strerror or str(error), hint=hint) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        cause = " ".join(str(error).split())
        raise ConfigurationError(operation, str(path), f"not valid YAML: {cause}", hint=hint) from None
    if document is None:
        return {}
    section = document.get(SECTION) if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(section, dict | None):
        raise ConfigurationError(operation, str(path), "not a mapping of keys to values", hint=hint)
    found = {key: document[key] for key in PIXARIS_KEYS if document.get(key) is not None}
    for key, value in (section or {}).items():
        if key not in Settings.model_fields:
            raise ConfigurationError(
                operation,
                str(path),
                f"unknown key {key!r} under {SECTION}:",
                hint="deploy/settings.md of the repository lists the keys",
            )
        found[key] = value
    return found


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    found = {key: environ.get(environment_variable(key), "") for key in Settings.model_fields}
    return {key: value for key, value in found.items() if value}


def explain(error: ValidationError, origin: Mapping[str, str]) -> ConfigurationError:
    """The first of the values that were refused; `origin` says where each came from."""
    return explain_all(error, origin)[0]


def explain_all(error: ValidationError, origin: Mapping[str, str]) -> list[ConfigurationError]:
    """Each of the values that were refused."""
    return [_explain(one, origin) for one in error.errors()]


def _explain(one: Mapping[str, Any], origin: Mapping[str, str]) -> ConfigurationError:
    key = str(one["loc"][0]) if one["loc"] else ""
    if one["type"] == "missing":
        return ConfigurationError(
            "find setting",
            key,
            "it is set nowhere",
            hint=f"set {environment_variable(key)}, or give --{key.replace('_', '-')}, "
            "or name Pixaris' config.yaml with --config",
        )
    return ConfigurationError(
        "use setting",
        key,
        f"{one['msg']} (got {_shown(key, one['input'])} from {origin.get(key, 'the defaults')})",
        hint="deploy/settings.md of the repository lists keys, units and bounds",
    )


def _shown(key: str, value: object) -> str:
    """What was given for a setting; a secret is not shown."""
    return MASK if key in _SECRETS else repr(value)
