"""The GoogleSQL statements of the warehouse, and the names of its column types. Pure.

Table and column names come from folder names and record keys, that is from anywhere. Every one is put between
backticks with BigQuery's escapes, part by part, so that no name can end its quotes or reach another dataset
(https://cloud.google.com/bigquery/docs/reference/standard-sql/lexical, "Quoted identifiers").
"""

from collections.abc import Sequence

from pixaris_sync.model import Column, ColumnType

#: The query parameter of `rows_of_runs` and `names_of_runs`: an array of experiment_run_names.
RUNS_PARAMETER = "runs"

_SQL_TYPES = {
    ColumnType.STRING: "STRING",
    ColumnType.BOOLEAN: "BOOL",
    ColumnType.INTEGER: "INT64",
    ColumnType.FLOAT: "FLOAT64",
}

#: What the API may call a type; everything else is OTHER.
_API_TYPES = {
    "STRING": ColumnType.STRING,
    "BOOLEAN": ColumnType.BOOLEAN,
    "BOOL": ColumnType.BOOLEAN,
    "INTEGER": ColumnType.INTEGER,
    "INT64": ColumnType.INTEGER,
    "FLOAT": ColumnType.FLOAT,
    "FLOAT64": ColumnType.FLOAT,
}

_ESCAPES = str.maketrans({"\\": "\\\\", "`": "\\`", "\n": "\\n", "\r": "\\r"})


def column_type(api_type: str, mode: str | None) -> ColumnType:
    """The type of a column that the API describes by `api_type` and `mode`; OTHER for arrays and the like."""
    if (mode or "NULLABLE").upper() == "REPEATED":
        return ColumnType.OTHER
    return _API_TYPES.get(api_type.upper(), ColumnType.OTHER)


def quoted(name: str) -> str:
    """`name` as one quoted identifier."""
    return f"`{name.translate(_ESCAPES)}`"


def table_path(project: str, dataset: str, table: str) -> str:
    """The table's full name; a dot inside a part does not start the next part."""
    return ".".join(quoted(part) for part in (project, dataset, table))


def add_columns(path: str, columns: Sequence[Column]) -> str:
    """One statement that adds all `columns` to the table at `path`, leaving those that are there already.

    Raises:
        KeyError: a column is of type OTHER.
    """
    actions = (
        f"ADD COLUMN IF NOT EXISTS {quoted(column.name)} {_SQL_TYPES[column.type]}" for column in columns
    )
    return f"ALTER TABLE {path} {', '.join(actions)}"


def widen_columns(path: str, columns: Sequence[str]) -> str:
    """One statement that turns INT64 `columns` of the table at `path` into FLOAT64."""
    actions = (
        f"ALTER COLUMN {quoted(name)} SET DATA TYPE {_SQL_TYPES[ColumnType.FLOAT]}" for name in columns
    )
    return f"ALTER TABLE {path} {', '.join(actions)}"


def rows_of_runs(path: str) -> str:
    """The rows of the runs that the array parameter RUNS_PARAMETER names."""
    return f"SELECT * FROM {path} WHERE experiment_run_name IN UNNEST(@{RUNS_PARAMETER})"  # noqa: S608 - `path` is quoted above


def names_of_runs(path: str) -> str:
    """The run name of each such row, and nothing else: a query bills the columns that it reads."""
    return f"SELECT experiment_run_name FROM {path} WHERE experiment_run_name IN UNNEST(@{RUNS_PARAMETER})"  # noqa: S608 - `path` is quoted above


def all_names(path: str) -> str:
    """The run name of every row."""
    return f"SELECT experiment_run_name FROM {path}"  # noqa: S608 - `path` is quoted above


def whole_table(path: str) -> str:
    """Every row, as ``GCPExperimentHandler`` asks for them."""
    return f"SELECT * FROM {path}"  # noqa: S608 - `path` is quoted above
