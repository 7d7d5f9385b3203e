"""The Pixaris contract: local names to cloud names, tracking records to the cells of a row.

Facts about Pixaris were read from ``LocalExperimentHandler`` and ``GCPExperimentHandler`` (pixaris 0.11.4,
and 0.1.0 and 0.2.0 where records and folders looked otherwise); naming rules from Google's documentation of
GCS object names and of BigQuery's ``TableReference``. Everything here is a function of its arguments: no
disk, no network, no clock.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from pixaris_sync.errors import LocalFileError, NameRefusedError
from pixaris_sync.model import (
    INT64_MAX,
    INT64_MIN,
    Cell,
    ColumnType,
    DatasetKey,
    Destination,
    JsonValue,
    RecordFiles,
    RunKey,
    TrackingRecord,
)
from pixaris_sync.rules.names import component_fault, object_name_fault, table_id_fault
from pixaris_sync.text import is_utf8, printable

#: What the names of all objects of Pixaris begin with.
RESULTS: Final = "results"
RESULTS_PREFIX: Final = f"{RESULTS}/"
#: Folder of a run that holds its images.
GENERATED_IMAGES: Final = "generated_images"
#: What Pixaris 0.1.0 called it. Its images go where `GENERATED_IMAGES` go: Pixaris looks nowhere else today.
FIRST_IMAGES: Final = "images"
#: How LocalExperimentHandler begins the name of a run's folder: with the second in which it was stored.
STAMPED: Final = re.compile(r"\d{8}-\d{6}_", re.ASCII)
#: File of a run that holds the same record as its tracking line. It is never uploaded.
ARGS_FILE: Final = "args.json"
#: What LocalExperimentHandler lists as an image of a run.
IMAGE_SUFFIXES: Final = (".png", ".jpg", ".jpeg")
#: Other kinds of pictures and films, which Pixaris does not list: somebody may miss them.
UNLISTED_SUFFIXES: Final = (
    *(".avif", ".bmp", ".exr", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jxl", ".mkv", ".mov", ".mp4"),
    *(".psd", ".svg", ".tga", ".tif", ".tiff", ".webm", ".webp"),
)
#: Folder of a project that stands where a dataset would and holds feedback, not runs.
FEEDBACK_FOLDER: Final = "feedback_iterations"
#: The name LocalExperimentHandler gives tracking files unless told another.
DEFAULT_TRACKING_FILE: Final = "experiment_tracking.jsonl"
#: A project name that GCPExperimentHandler sets aside when it lists projects.
RESERVED_PROJECT: Final = "pickled_results"
#: The record's key for the run's name.
RUN_NAME_KEY: Final = "experiment_run_name"

#: Records nested deeper are refused. Python's own limit depends on the stack that it is met from: a record
#: could be read in one place and be too deep in the next.
NESTING_LEVELS_MAX: Final = 200

TABLE_SUFFIX: Final = "experiment_results"
_LINK_START: Final = "https://console.cloud.google.com/storage/browser/_details/"
_LINK_END: Final = "?project="
_TIMESTAMP_KEY: Final = "timestamp"
_OCTETS: Final = "application/octet-stream"
_CONTENT_TYPES: Final = MappingProxyType(
    {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".json": "application/json"}
)
#: What GCPExperimentHandler adds to a row that lacks it.
_DEFAULT_CELLS: Final = (
    Cell("hyperparameters", ColumnType.STRING, ""),
    Cell("generation_params", ColumnType.STRING, ""),
    Cell("workflow_apiformat_json", ColumnType.STRING, ""),
    Cell("workflow_pillow_image", ColumnType.STRING, ""),
    Cell("max_parallel_jobs", ColumnType.FLOAT, 0.0),
)
_RENAME_HINT: Final = "give it another name in a copy of the results folder, then sync that copy"
_LINE_HINT: Final = (
    "Pixaris writes one JSON object per line, with experiment_run_name; correct or remove the line"
)


def object_prefix(dataset: DatasetKey) -> str:
    """What the names of all objects of a dataset start with; ends with a slash."""
    return f"{RESULTS_PREFIX}{dataset.project}/{dataset.dataset}/"


def object_name(run: RunKey, path: str) -> str:
    """The object for a file of a run, `path` being relative to the run's folder, with forward slashes."""
    return f"{RESULTS_PREFIX}{run.project}/{run.dataset}/{run.run}/{path}"


def run_and_path(dataset: DatasetKey, name: str) -> tuple[str, str] | None:
    """The run, and the path in its folder, that an object of a dataset is of; None where it is of no run.

    A run's name may hold slashes. What is uploaded of a run lies in its folder, or among its images.
    """
    folder, _, file = name.removeprefix(object_prefix(dataset)).rpartition("/")
    run = folder.removesuffix(f"/{GENERATED_IMAGES}")
    if not run:
        return None
    return run, file if run == folder else f"{GENERATED_IMAGES}/{file}"


def object_link(destination: Destination, name: str) -> str:
    """The console link to an object, byte for byte as GCPExperimentHandler writes it: nothing is quoted."""
    return f"{_LINK_START}{destination.bucket}/{name}{_LINK_END}{destination.gcp_project}"


def linked_object(text: str) -> str | None:
    """The name of the object that a console link leads to, whatever bucket and project it names."""
    if not text.startswith(_LINK_START):
        return None
    _, _, name = text.removeprefix(_LINK_START).partition("/")
    return name.rpartition(_LINK_END)[0] or None


def table_id(dataset: DatasetKey) -> str:
    """The bare id of a dataset's table."""
    return f"{dataset.project}_{dataset.dataset}_{TABLE_SUFFIX}"


def table_collisions(datasets: Iterable[DatasetKey]) -> dict[str, tuple[DatasetKey, ...]]:
    """Table ids that more than one dataset shares, each with its datasets in sorted order.

    The parts of a table id are joined with underscores, so ``a_b`` + ``c`` and ``a`` + ``b_c`` meet.
    """
    sharing: dict[str, list[DatasetKey]] = {}
    for dataset in sorted(set(datasets)):
        sharing.setdefault(table_id(dataset), []).append(dataset)
    return {table: tuple(keys) for table, keys in sharing.items() if len(keys) > 1}


def content_type(path: str) -> str:
    """The MIME type of a run's file, by its suffix in any case."""
    _, dot, suffix = path.rpartition(".")
    return _CONTENT_TYPES.get(f"{dot}{suffix.lower()}", _OCTETS)


def check_dataset_names(key: DatasetKey) -> None:
    """Make sure that a dataset can be carried under its names.

    `RESERVED_PROJECT` is refused because GCPExperimentHandler leaves it out of the projects that it collects
    and then looks it up among them. In 0.11.4 that lookup is out of reach, because the same method cuts
    names at every ``results/``; without that cut it would end every listing with a KeyError.

    Raises:
        NameRefusedError: a part is no single path component, is reserved by Pixaris, or makes an object name
            or table id that the services refuse. The cause names the rule.
    """
    for part, name in (("project", key.project), ("dataset", key.dataset)):
        if fault := component_fault(name):
            raise _refused("carry dataset", str(key), f"its {part} name {name!r} {fault}")
    if key.project == RESERVED_PROJECT:
        raise _refused("carry dataset", str(key), "Pixaris sets this project name aside and never lists it")
    if key.dataset == FEEDBACK_FOLDER:
        raise _refused("carry dataset", str(key), "Pixaris keeps feedback under this dataset name, not runs")
    if fault := object_name_fault(object_prefix(key)):
        raise _refused("carry dataset", str(key), f"its objects' prefix {fault}")
    if fault := table_id_fault(table_id(key)):
        raise _refused("carry dataset", str(key), f"its table id {table_id(key)!r} {fault}")


def listing_hazard(key: DatasetKey) -> str | None:
    """Why Pixaris' list of projects will show a dataset wrongly, or None where it will not.

    Projects and datasets are carried as their folders are spelled: Pixaris reads those names back from the
    bucket, whatever form of Unicode they have, and finds the table by them.

    ``GCPExperimentHandler.load_projects_and_datasets`` splits object names at every ``results/`` and keeps
    the second piece, so a name that ends in ``results`` is cut there. Reading by the right names works.
    """
    if key.project.endswith(RESULTS):
        return f"Pixaris does not list a project whose name ends in {RESULTS!r}; reading it by name works"
    if key.dataset.endswith(RESULTS):
        shown = key.dataset.removesuffix(RESULTS)
        return f"Pixaris lists this dataset as {shown!r}, cut before {RESULTS!r}; reading it by name works"
    for part in (key.project, key.dataset):
        if part != unicodedata.normalize("NFC", part):
            return (
                f"the letters of {part!r} stand apart from their marks, as on a Mac's disk: Pixaris keeps it"
                " beside one of the same look that was typed elsewhere"
            )
    return None


def check_run_name(key: RunKey) -> None:
    """Make sure that a run's name leads to a folder below its dataset's and that its files can be objects.

    A name with slashes makes folders in folders, as ``os.path.join`` in LocalExperimentHandler does, and
    object names that GCPExperimentHandler writes and reads like any other, unless they are those of another
    run's images.

    Raises:
        NameRefusedError: it does not; the cause names the rule.
    """
    for part in key.run.split("/"):
        if fault := component_fault(part):
            raise _refused("carry run", str(key), f"its name {part!r} {fault}")
        if part == GENERATED_IMAGES:
            raise _refused(
                "carry run", str(key), f"a part of its name is {part!r}, as another run's images are"
            )
    if fault := object_name_fault(object_name(key, "")):
        raise _refused("carry run", str(key), f"its objects' prefix {fault}")


def same_name(name: str) -> str:
    """What names of a run have in common that one folder may have on different systems.

    A Mac may take letters with marks apart (NFD); what Windows separates by a backslash is a folder in a
    folder.
    """
    return unicodedata.normalize("NFC", name).replace("\\", "/")


def stamped_name(values: Mapping[str, JsonValue], name: str) -> str | None:
    """The folder of a record whose `name` does not begin with its ``timestamp``, as Pixaris 0.1.0 made it.

    Until 0.2.0 a record had the name that the run was given, and its folder had the time before it.

    Returns:
        ``<timestamp>_<name>``; None where the name begins so already, or the record has no such time.
    """
    stamp = values.get(_TIMESTAMP_KEY)
    if not isinstance(stamp, str) or not STAMPED.fullmatch(f"{stamp}_") or name.startswith(f"{stamp}_"):
        return None
    return f"{stamp}_{name}"


def in_folder(record: TrackingRecord, folder: str) -> TrackingRecord | None:
    """A record of which the run's folder is known; None where it is another run's.

    Where the record has the name without the time, it is given the folder's: that is what
    GCPExperimentHandler finds the run's objects by. Its digest stays that of its line.
    """
    name = record.run.run
    if same_name(folder) == same_name(name):
        return record
    stamp = STAMPED.match(folder)
    if stamp is None or same_name(folder[stamp.end() :]) != same_name(name):
        return None
    whole = f"{stamp[0]}{name}"
    run = RunKey(record.run.project, record.run.dataset, whole)
    return TrackingRecord(run, {**record.values, RUN_NAME_KEY: whole}, record.digest, record.line)


def check_object_name(name: str) -> None:
    """Make sure that GCS takes an object of this name.

    Raises:
        NameRefusedError: it does not; the cause names the rule.
    """
    if fault := object_name_fault(name):
        raise _refused("name object", name, f"the name {fault}")


def parse_record(dataset: DatasetKey, values: JsonValue, line: int) -> TrackingRecord:
    """Turn a parsed tracking line into a record.

    Args:
        dataset: whose tracking file it is.
        values: what ``json.loads`` returned.
        line: its 1-based number, for messages.

    Raises:
        LocalFileError: it is no object, lacks ``experiment_run_name`` or has another type there, or is nested
            too deeply.
        NameRefusedError: the run's name cannot be used.
    """
    operation, subject = "read tracking record", printable(f"{dataset}, line {line}")
    if not isinstance(values, dict):
        cause = f"it is no JSON object but of type {type(values).__name__}"
        raise LocalFileError(operation, subject, cause, hint=_LINE_HINT)
    name = values.get(RUN_NAME_KEY)
    if not isinstance(name, str):
        fault = f"is of type {type(name).__name__}, not a string" if RUN_NAME_KEY in values else "is missing"
        raise LocalFileError(operation, subject, f"{RUN_NAME_KEY} {fault}", hint=_LINE_HINT)
    run = RunKey(dataset.project, dataset.dataset, name)
    check_run_name(run)
    if _nested_too_deeply(values):
        raise LocalFileError(operation, subject, "nested too deeply", hint=_LINE_HINT)
    return TrackingRecord(run, values, record_digest(values), line)


def _nested_too_deeply(values: JsonValue) -> bool:
    level = [values]
    for _ in range(NESTING_LEVELS_MAX):
        inner = (one.values() if isinstance(one, dict) else one for one in level)
        level = [value for one in inner for value in one if isinstance(value, dict | list)]
        if not level:
            return False
    return True


def record_digest(values: Mapping[str, JsonValue]) -> str:
    """Hex SHA-256 of a record's canonical JSON: its identity, independent of key order and spacing.

    Integers, floats and booleans stay distinct, NaN and infinities are written bare, and everything outside
    ASCII is escaped, so that lone surrogates have a digest too.

    Raises:
        LocalFileError: the record is nested too deeply, or holds a number too long to print.
    """
    try:
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    except (RecursionError, ValueError) as error:
        raise _unprintable(str(values.get(RUN_NAME_KEY)), error) from None
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def own_file(run: RunKey, key: str, value: object) -> str | None:
    r"""Recognise the path of a run's own saved file in a record.

    LocalExperimentHandler puts ``<folder>/<project>/<dataset>/<run>/<key>.png`` (or ``.json``) in place of an
    image or a dict. The path is as the training process saw it, and project or dataset may have been renamed
    or copied since, so only the run's folder and the name of the file say anything.

    Args:
        run: whose record it is.
        key: the argument's name.
        value: its value in the record.

    Returns:
        The file's name in the run's folder; None where the value is anything else, where `key` holds a slash,
        a backslash or NUL, and for `ARGS_FILE`, which Pixaris overwrites with the record.
    """
    if not isinstance(value, str) or not value.endswith((".png", ".json")) or "\0" in value:
        return None
    *folders, name = value.replace("\\", "/").split("/")
    if name == ARGS_FILE or name not in (f"{key}.png", f"{key}.json"):
        return None
    of_run = run.run.replace("\\", "/").split("/")
    return name if folders[-len(of_run) :] == of_run else None


def files_of(record: TrackingRecord) -> RecordFiles:
    """The files that GCPExperimentHandler would have stored for a record: saved args, and dicts inline in it.

    A saved file stands here even when its name makes an object name that GCS refuses: `check_object_name`
    tells, and the run cannot go before somebody acts.

    Raises:
        LocalFileError: a dict is nested too deeply, or holds a number too long to print.
    """
    run, saved, inline = record.run, [], {}
    for key, value in record.values.items():
        if isinstance(value, dict):
            if name := _inline_file(run, key):
                inline[name] = _as_json(run, key, value).encode("ascii")
        elif name := own_file(run, key, value):
            saved.append(name)
    return RecordFiles(tuple(saved), inline)


def cells_of(record: TrackingRecord, destination: Destination) -> tuple[Cell, ...]:
    r"""Map a record to the row that GCPExperimentHandler would have stored for the same call.

    Cells come in this order, which is that of columns in a new table: ``timestamp``, ``experiment_run_name``,
    the rest as in the record, then the defaults that are missing. Where the handler's rule would lose or
    refuse something:

    - An integer beyond 64 bits becomes its decimal text.
    - A dict whose key makes no object name (empty, with a slash, too long, ...) stands in its cell as JSON.
    - A string with lone surrogates, which UTF-8 cannot carry, is sent with its backslashes doubled and each
      surrogate as a ``\uXXXX`` escape. Any other string is sent as it is.

    Raises:
        LocalFileError: a value is nested too deeply, or is a number too long to print.
    """
    values = record.values
    first = [key for key in (_TIMESTAMP_KEY, RUN_NAME_KEY) if key in values]
    keys = [*first, *(key for key in values if key not in first)]
    cells = [_cell(record.run, key, values[key], destination) for key in keys]
    return (*cells, *(cell for cell in _DEFAULT_CELLS if cell.key not in values))


def default_value(key: str) -> JsonValue:
    """What a row has under a key that its record lacks; None: nothing."""
    return next((cell.value for cell in _DEFAULT_CELLS if cell.key == key), None)


def _cell(run: RunKey, key: str, value: JsonValue, destination: Destination) -> Cell:
    is_dict = isinstance(value, dict)
    if name := _inline_file(run, key) if is_dict else own_file(run, key, value):
        return Cell(key, ColumnType.STRING, object_link(destination, object_name(run, name)))
    if is_dict:
        return Cell(key, ColumnType.STRING, _as_json(run, key, value))
    try:
        return _plain_cell(key, value)
    except (RecursionError, ValueError) as error:
        raise _unprintable(f"{run}, {key}", error) from None


def _as_json(run: RunKey, key: str, value: JsonValue) -> str:
    try:
        return json.dumps(value)
    except (RecursionError, ValueError) as error:
        raise _unprintable(f"{run}, {key}", error) from None


def _plain_cell(key: str, value: JsonValue) -> Cell:
    match value:
        case None:
            return Cell(key, ColumnType.STRING, None)
        case bool():
            return Cell(key, ColumnType.BOOLEAN, value)
        case int() if INT64_MIN <= value <= INT64_MAX:
            return Cell(key, ColumnType.INTEGER, value)
        case float():
            return Cell(key, ColumnType.FLOAT, value)
        case _:
            return Cell(key, ColumnType.STRING, _sendable(str(value)))


def _inline_file(run: RunKey, key: str) -> str | None:
    """The file that a dict metric is stored as; None where its key makes no object name."""
    name = f"{key}.json"
    usable = (
        key
        and "\\" not in key
        and not component_fault(name)
        and not object_name_fault(object_name(run, name))
    )
    return name if usable else None


def _sendable(text: str) -> str:
    return text if is_utf8(text) else printable(text.replace("\\", "\\\\"))


def _refused(operation: str, subject: str, cause: str) -> NameRefusedError:
    return NameRefusedError(operation, printable(subject), cause, hint=_RENAME_HINT)


def _unprintable(subject: str, error: Exception) -> LocalFileError:
    cause = "nested too deeply" if isinstance(error, RecursionError) else "holds a number too long to print"
    return LocalFileError("read tracking record", printable(subject), cause, hint=_LINE_HINT)
