"""Flags for settings, made from `Settings` itself so that names, help and defaults cannot drift apart."""

import inspect
from collections.abc import Callable
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from pixaris_sync.footprint import importing
from pixaris_sync.settings.fields import SETTINGS

#: Settings that every command needs to find its ledger; the others tune the engine.
WHERE = (
    "gcp_project_id",
    "gcp_bq_experiment_dataset",
    "gcp_pixaris_bucket_name",
    "local_results_folder",
    "state_dir",
    "dataset_tracking_file_name",
    "storage_emulator_host",
    "bigquery_emulator_host",
    "log_level",
    "log_format",
)
#: Those of them that are about the results folder.
FOLDER = ("local_results_folder", "state_dir", "dataset_tracking_file_name")

#: Settings of what runs for long.
OF_SERVICE = ("listen", "sync_at_stop")

#: Shorter names for flags.
ALIASES = {
    "drain_timeout_seconds": ("--drain-timeout",),
    "bandwidth_limit_bytes_per_second": ("--bandwidth-limit",),
}

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        help="Pixaris' config.yaml. Settings may stand in it under pixaris_sync:, with or without a flag. "
        "Else PIXARIS_SYNC_CONFIG names it, else config.yaml or pixaris/config.yaml in this folder is taken.",
        metavar="PATH",
    ),
]
_DATE_FORMATS = ["%Y-%m-%d"]
#: The panel of the flags that select runs, and what all of its patterns are.
SELECTION_PANEL = "Selection"
#: Flags that select runs, by the names that `selection_of` gives them, and what each of them means.
SELECTION = {
    "project": "Only projects that match: * is any characters, ? is one, [ab] is one of these. Repeatable.",
    "dataset": "Only datasets that match. Repeatable.",
    "run": "Only runs whose name or, for a pattern with a slash, project/dataset/run matches. Repeatable.",
    "exclude": "No runs that match as for --run; with a slash, no project/dataset either. Repeatable.",
    "since": "Only runs stored on or after this date.",
    "until": "Only runs stored before this date.",
}
#: Those of them that are dates; the others are patterns.
_DATES = ("since", "until")

JsonOption = Annotated[bool, typer.Option("--json", help="Print machine-readable output on stdout.")]


def shown_default(key: str) -> str:
    """What holds where a setting is given nowhere, as help shows it."""
    field = SETTINGS[key]
    if field.is_required:
        return "[required]"
    if isinstance(field.default, bool):
        return f"[default: {'on' if field.default else 'off'}]"
    if isinstance(field.default, float):
        return f"[default: {field.default:g}]"
    return f"[default: {'none' if field.default is None else field.default}]"


@cache
def _flag(key: str) -> inspect.Parameter:
    field = SETTINGS[key]
    is_switch = field.kind.__origin__ is bool
    name = key.replace("_", "-")
    option = typer.Option(
        f"--{name}/--no-{name}" if is_switch else f"--{name}",
        *ALIASES.get(key, ()),
        help=f"{field.description} {shown_default(key)}",
        show_default=False,
        metavar=None if is_switch else "VALUE",
        rich_help_panel="Where" if key in WHERE else "Tuning",
    )
    # Values stay text here: `Settings` parses them, whatever source they come from.
    kind = bool | None if is_switch else str | None
    return inspect.Parameter(
        key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option]
    )


def _selection_flag(name: str) -> inspect.Parameter:
    is_date = name in _DATES
    option = typer.Option(
        f"--{name}",
        help=SELECTION[name],
        metavar="YYYY-MM-DD" if is_date else "PATTERN",
        show_default=False,
        formats=_DATE_FORMATS if is_date else None,
        rich_help_panel=SELECTION_PANEL,
    )
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[(datetime if is_date else list[str]) | None, option],
    )


def with_settings(
    *, tuning: bool, service: bool = False, folder: bool = True, selection: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command flags for settings; it receives them as ``flags``, a dict of those that were given.

    Args:
        tuning: also the flags that tune the engine.
        service: also those of what runs for long.
        folder: also the flags about the results folder.
        selection: also those that select runs; it receives a `Selection` as ``selection``.
    """
    left_out = (*(() if service else OF_SERVICE), *(() if folder else FOLDER))

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        keys = [
            key
            for key in SETTINGS
            if (key in WHERE or (tuning and SETTINGS[key].has_flag)) and key not in left_out
        ]
        signature = inspect.signature(command)
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in signature.parameters.items()
            if name not in ("flags", "selection")
        ]

        def wrapper(**given: Any) -> None:  # noqa: ANN401 - whatever typer parsed
            flags = {key: given.pop(key) for key in keys}
            if selection:
                with importing():
                    from pixaris_sync.cli.selecting import selection_of
                given["selection"] = selection_of(**{name: given.pop(name) for name in SELECTION})
            command(**given, flags=flags)

        wrapper.__name__ = command.__name__
        wrapper.__doc__ = command.__doc__
        selecting = [_selection_flag(name) for name in SELECTION] if selection else []
        parameters = [*own, *selecting, *(_flag(key) for key in keys)]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapper

    return decorate
