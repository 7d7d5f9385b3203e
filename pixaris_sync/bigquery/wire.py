"""Rows as BigQuery wants them on the wire, where they go, and what it answers read back into ours. Pure."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pixaris_sync.model import (
    FLOAT_WORDS,
    INT64_MAX,
    INT64_MIN,
    ColumnType,
    JsonValue,
    OutgoingRow,
    RowRefusal,
)
from pixaris_sync.ports import DatasetFacts
from pixaris_sync.text import scrub

#: Limits of one ``tabledata.insertAll`` (https://cloud.google.com/bigquery/quotas#streaming_inserts).
INSERT_BYTES_MAX = 10_000_000
INSERT_ROWS_MAX = 50_000

#: Integers beyond it are sent as text: the API's JSON numbers are doubles
#: (https://cloud.google.com/bigquery/docs/loading-data-cloud-storage-json, "Limitations").
EXACT_INTEGER_MAX = 2**53 - 1

_ROW_OVERHEAD_BYTES = len('{"json": , "insertId": ""}, ')

#: What ``insertErrors`` calls a row that was left out only because a neighbour is wrong.
REASON_STOPPED = "stopped"

#: Kinds of datasets in which no table can be made.
_READ_ONLY: Final = frozenset({"LINKED", "EXTERNAL"})
_MS_PER_SECOND: Final = 1000


class Address(NamedTuple):
    """Where requests go.

    Attributes:
        project: the project that the dataset belongs to.
        dataset: the dataset's bare id.
        billing_project: the project that jobs run in.
        root: where the API is served.
    """

    project: str
    dataset: str
    billing_project: str
    root: str

    def __str__(self) -> str:
        return f"{self.project}.{self.dataset}"


def read_facts(resource: Any) -> DatasetFacts:  # noqa: ANN401 - JSON of a service
    """Read a dataset resource.

    Raises:
        ValueError: it is none.
    """
    try:
        seconds = [
            int(resource[key]) / _MS_PER_SECOND if resource.get(key) else None
            for key in ("defaultTableExpirationMs", "defaultPartitionExpirationMs")
        ]
        return DatasetFacts(
            location=resource.get("location") or "",
            table_seconds=seconds[0],
            partition_seconds=seconds[1],
            key=(resource.get("defaultEncryptionConfiguration") or {}).get("kmsKeyName") or "",
            read_only=resource.get("type") in _READ_ONLY,
        )
    except (AttributeError, TypeError) as error:
        raise ValueError("no dataset resource") from error


def wire_value(value: JsonValue) -> JsonValue:
    """`value` as JSON that BigQuery reads without loss: large integers and non-finite floats as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return FLOAT_WORDS[str(value)]
    if isinstance(value, int) and abs(value) > EXACT_INTEGER_MAX:
        return str(value)
    return value


def wire_cells(row: OutgoingRow) -> dict[str, JsonValue]:
    """The row's cells for the wire."""
    return {name: wire_value(value) for name, value in row.cells.items()}


def insert_size(rows: Sequence[OutgoingRow], cells: Sequence[Mapping[str, JsonValue]]) -> int:
    """Length in bytes of an ``insertAll`` of these rows, rounded up."""
    return sum(
        len(json.dumps(values)) + len(json.dumps(row.row_id)) + _ROW_OVERHEAD_BYTES
        for row, values in zip(rows, cells, strict=True)
    )


def load_body(rows: Sequence[OutgoingRow]) -> bytes:
    """The rows as newline-delimited JSON."""
    lines = (json.dumps(wire_cells(row), ensure_ascii=False, allow_nan=False) for row in rows)
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")


def fits(value: JsonValue, column: ColumnType) -> bool:
    """Whether BigQuery takes `value` for a column of this type as it is. Never for OTHER."""
    match column:
        case ColumnType.STRING:
            return isinstance(value, str)
        case ColumnType.BOOLEAN:
            return isinstance(value, bool)
        case ColumnType.INTEGER:
            return type(value) is int and INT64_MIN <= value <= INT64_MAX
        case ColumnType.FLOAT:
            return type(value) in (int, float) or value in FLOAT_WORDS.values()
        case ColumnType.OTHER:
            return False


def unknown_columns(row: OutgoingRow, columns: Mapping[str, ColumnType]) -> list[str]:
    """The row's keys for which there is no column. `columns` has casefolded names: BigQuery ignores case."""
    return [name for name in row.cells if name.casefold() not in columns]


def row_refusals(
    insert_errors: Sequence[Mapping[str, Any]],
    rows: Sequence[OutgoingRow],
    columns: Mapping[str, ColumnType],
) -> tuple[RowRefusal, ...]:
    """Read the ``insertErrors`` of an answer to these rows.

    BigQuery gives a value of the wrong type and a field it does not know the same reason, ``invalid``, with
    the field as location. They are told apart by the table's columns: the field is unknown when no column
    has its name, and also when there is one whose type the value fits: then ``tables.get`` knows a column
    that streaming has not heard of yet.

    Args:
        insert_errors: as the client returns them: ``index`` and ``errors`` each.
        rows: the rows of the request.
        columns: the table's columns by casefolded name.
    """
    refusals = []
    for entry in insert_errors:
        row = rows[entry["index"]]
        reasons = [error for error in entry["errors"] if error.get("reason") != REASON_STOPPED]
        if not reasons:
            refusals.append(RowRefusal(entry["index"], REASON_STOPPED, stopped=True))
            continue
        refusals.append(
            RowRefusal(
                entry["index"],
                one_line("; ".join(map(error_text, reasons))),
                stopped=False,
                unknown_column=any(_is_unknown_column(error, row, columns) for error in reasons),
            )
        )
    return tuple(sorted(refusals, key=lambda refusal: refusal.index))


def _is_unknown_column(error: Mapping[str, Any], row: OutgoingRow, columns: Mapping[str, ColumnType]) -> bool:
    if error.get("reason") != "invalid":
        return False
    location = (error.get("location") or "").casefold()
    values = {name.casefold(): value for name, value in row.cells.items()}
    if location not in values:
        return bool(unknown_columns(row, columns))
    return location not in columns or fits(values[location], columns[location])


def error_text(error: Mapping[str, Any]) -> str:
    """An ``ErrorProto`` as text: location, message, reason; what is there of them."""
    message, location = error.get("message"), error.get("location")
    text = message or error.get("reason") or "no reason given"
    return f"{location}: {text}" if location and location not in text else text


def one_line(text: str, *, length_max: int = 500) -> str:
    """`text` on one line, cut at `length_max` characters."""
    line = " ".join(scrub(text).split())
    return line if len(line) <= length_max else f"{line[: length_max - 1]}…"
