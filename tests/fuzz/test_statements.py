"""No name breaks out of a statement, of an object's name or of a request's path."""

import re
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pixaris_sync.bigquery import sql
from pixaris_sync.errors import NameRefusedError
from pixaris_sync.model import Cell, Column, ColumnType, DatasetKey, RunKey
from pixaris_sync.rules.contract import (
    check_dataset_names,
    check_run_name,
    object_name,
    run_and_path,
    table_id,
)
from pixaris_sync.rules.schema import plan_batch
from tests.fuzz import awkward_names

MARKS = "`\\'\";-/*#\n\r@.() \t\0ax\u2028"
names = (
    st.sampled_from(awkward_names.KEYS)
    | st.sampled_from(awkward_names.FILE_NAMES)
    | st.text(MARKS, max_size=12)
    | st.text(max_size=8)
)

#: Machines that test are busy: time says nothing here.
unhurried = settings(deadline=None)

#: What GoogleSQL reads one token as ("Lexical structure and syntax"): quoted identifiers with escapes first.
_TOKEN = re.compile(
    r"(?P<identifier>`(?:[^`\\\n\r]|\\.)*`)"
    r"|(?P<string>'''|\"\"\"|'|\")"
    r"|(?P<comment>--|\#|/\*)"
    r"|(?P<end>;)"
    r"|(?P<word>@?[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<mark>[.,()*])"
    r"|(?P<space> )"
    r"|(?P<other>.)",
    re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_MEANINGS = {"n": "\n", "r": "\r"}


def tokens(statement: str) -> Iterator[tuple[str, str]]:
    for found in _TOKEN.finditer(statement):
        yield str(found.lastgroup), found.group()


def identifiers(statement: str) -> list[str]:
    """The quoted identifiers of a statement in which nothing else can have come from a name."""
    found = []
    for kind, text in tokens(statement):
        assert kind in {"identifier", "word", "mark", "space"}, (kind, text, statement)
        if kind == "identifier":
            found.append(_ESCAPED.sub(lambda escape: _MEANINGS.get(escape[1], escape[1]), text[1:-1]))
    return found


def statements(table: str, columns: Sequence[str]) -> list[str]:
    path = sql.table_path("gcp", "pixaris", table)
    return [
        sql.add_columns(path, [Column(name, ColumnType.STRING) for name in columns]),
        sql.widen_columns(path, columns),
        sql.rows_of_runs(path),
        sql.whole_table(path),
    ]


@unhurried
@given(names, st.lists(names, min_size=1, max_size=4))
@example("`; DROP TABLE `x", ["a`, ADD COLUMN `b", "\\`", "\\", "\\\\`", "a\n`b"])
def test_any_name_stays_one_identifier(table: str, columns: list[str]) -> None:
    """Goal: names become names and nothing else. Method: read the statements back as GoogleSQL reads them.

    Names that are refused long before are tried too: quoting must not rely on that.
    """
    add, widen, *reads = statements(table, columns)
    assert identifiers(add) == ["gcp", "pixaris", table, *columns]
    assert identifiers(widen) == ["gcp", "pixaris", table, *columns]
    for read in reads:
        assert identifiers(read) == ["gcp", "pixaris", table]


@unhurried
@given(st.lists(names.filter(lambda name: not set(name) & set("`\\\n\r")), min_size=1, max_size=4))
def test_another_reader_sees_one_statement(columns: list[str]) -> None:
    """Goal: the same by eyes that are not ours. Method: SQLGlot's tokens; it knows no escapes."""
    sqlglot = pytest.importorskip(
        "sqlglot", reason="the extra `sandbox` brings SQLGlot, and is not installed"
    )
    for statement, inside in zip(statements("table", columns), (columns, columns, [], []), strict=True):
        found = sqlglot.tokenize(statement, read="bigquery")
        quoted = [token.text for token in found if token.token_type is sqlglot.TokenType.IDENTIFIER]
        assert quoted == ["gcp", "pixaris", "table", *inside]
        assert sqlglot.TokenType.SEMICOLON not in {token.token_type for token in found}


@unhurried
@given(
    st.lists(
        st.tuples(names, st.sampled_from(awkward_names.VALUES[:20])),
        max_size=8,
        unique_by=lambda cell: cell[0],
    )
)
def test_any_keys_make_plain_columns_of_their_own(record: list[tuple[str, object]]) -> None:
    """Goal: no key names a column that BigQuery refuses, none shares one. Method: plan rows of odd keys."""
    cells = [Cell(key, ColumnType.STRING, None if value is None else str(value)) for key, value in record]
    plan = plan_batch([("row", cells)], None)
    for column in plan.add:
        assert re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,299}", column.name, re.ASCII)
    assert len({column.name.casefold() for column in plan.add}) == len(cells)


@unhurried
@given(names, names, names)
def test_names_that_are_taken_stay_in_their_place(project: str, dataset: str, run: str) -> None:
    """Goal: no name leads to another's objects or table. Method: take apart what was let through."""
    key = RunKey(project, dataset, run)
    try:
        check_dataset_names(DatasetKey(project, dataset))
        check_run_name(key)
    except NameRefusedError:
        return
    folders = run.split("/")
    for path in ("x.png", "generated_images/x.png"):
        name = object_name(key, path)
        assert name.split("/") == ["results", project, dataset, *folders, *path.split("/")]
        assert run_and_path(key.dataset_key, name) == (run, path)
    assert not {"", ".", ".."} & {project, dataset, *folders}
    table = table_id(DatasetKey(project, dataset))
    assert not set(table) & set("`'\"\\;/?#%\0\n\r")
    assert identifiers(statements(table, ["a"])[-1])[-1] == table
