"""Row values as ``tabledata.insertAll`` and load jobs of newline-delimited JSON take them: pure functions.

The rules follow BigQuery's documented JSON representation: numbers may come as strings, NaN and the
infinities come as strings, a field that the table does not have makes the row invalid. Column types other
than STRING, INTEGER, FLOAT and BOOLEAN, and REPEATED columns, are handed on unchanged.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

_INT64_MIN = -(2**63)
_INT64_MAX = 2**63 - 1


class Field(Protocol):
    """A column as the emulator's catalog describes it."""

    @property
    def name(self) -> str:
        """Its name, in the case the table was created with."""
        ...

    @property
    def type(self) -> str:
        """Its type, by its legacy or its standard name."""
        ...

    @property
    def mode(self) -> str:
        """NULLABLE, REQUIRED or REPEATED."""
        ...


class Problem(Struct, frozen=True):
    """Why a row cannot be taken: the field and the service's words."""

    location: str
    message: str


class CheckedRow(Struct, frozen=True):
    """A row under the table's own column names, and what is wrong with it."""

    values: Mapping[str, Any]
    problems: Sequence[Problem]


def check_row(
    values: Mapping[str, Any],
    fields: Sequence[Field],
    *,
    ignore_unknown: bool = False,
) -> CheckedRow:
    """Convert one row to the table's types; columns that it does not name stay out.

    Args:
        values: the row as parsed JSON.
        fields: the table's columns.
        ignore_unknown: drop fields that are no columns instead of refusing the row.
    """
    columns = {field.name.casefold(): field for field in fields}
    converted: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, value in values.items():
        field = columns.get(key.casefold())
        if field is None:
            if not ignore_unknown:
                problems.append(Problem(key, f"no such field: {key}."))
            continue
        try:
            converted[field.name] = convert_value(value, field)
        except ValueError as error:
            problems.append(Problem(field.name, str(error)))
    problems.extend(
        Problem(field.name, f"Missing required field: {field.name}.")
        for field in fields
        if field.mode == "REQUIRED" and converted.get(field.name) is None
    )
    return CheckedRow(converted, problems)


def convert_value(value: Any, field: Field) -> Any:  # noqa: ANN401 - any JSON value in, any cell out
    """One JSON value as the column's Python value; None stays None.

    Raises:
        ValueError: BigQuery would not take it; the message is in the service's words.
    """
    if field.mode == "REPEATED" or value is None:
        return value
    convert = _CONVERTERS.get(field.type.upper())
    return value if convert is None else convert(value)


def _to_string(value: Any) -> str:  # noqa: ANN401 - any JSON value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise _bad_value("string", value)


def _to_integer(value: Any) -> int:  # noqa: ANN401 - any JSON value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _bad_value("integer", value)
    try:
        number = int(value)
    except (ValueError, OverflowError):
        raise _bad_value("integer", value) from None
    if (isinstance(value, float) and number != value) or not _INT64_MIN <= number <= _INT64_MAX:
        raise _bad_value("integer", value)
    return number


def _to_float(value: Any) -> float:  # noqa: ANN401 - any JSON value
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _bad_value("floating point", value)
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise _bad_value("floating point", value) from None
    if isinstance(value, float) and not math.isfinite(value):
        # Bare NaN and Infinity are no JSON: only the strings are values.
        raise _bad_value("floating point", value)
    return number


def _to_boolean(value: Any) -> bool:  # noqa: ANN401 - any JSON value
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.casefold() in ("true", "false"):
        return value.casefold() == "true"
    raise _bad_value("boolean", value)


def _bad_value(type_name: str, value: Any) -> ValueError:  # noqa: ANN401 - any JSON value
    return ValueError(f"Cannot convert value to {type_name} (bad value): {value}")


_CONVERTERS: Mapping[str, Callable[[Any], Any]] = {
    "STRING": _to_string,
    "INTEGER": _to_integer,
    "INT64": _to_integer,
    "FLOAT": _to_float,
    "FLOAT64": _to_float,
    "BOOLEAN": _to_boolean,
    "BOOL": _to_boolean,
}
