"""What selects runs: patterns, beginnings and dates; in Python and in the ledger alike."""

import json
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import to_builtins

from pixaris_sync.ledger.selection import EVERYTHING, Selection, matching, plan_runs
from pixaris_sync.model import RunKey
from tests.support.ledgers import Book

#: Few characters, so that patterns match now and then; those that mean something among them.
NAMES = st.text(alphabet="ab[]-!^*?/é\N{GRINNING FACE}", min_size=1, max_size=5)
PLAIN = st.text(alphabet="abc/é\N{GRINNING FACE}", min_size=1, max_size=6)


@pytest.fixture
def book() -> Iterator[Book]:
    book = Book(None)
    yield book
    book.ledger.close()


def takes(selection: Selection, *names: str) -> list[str]:
    """Which of these are selected, each as ``project/dataset/run``."""
    return [name for name in names if selection.takes(RunKey(*name.split("/", 2)))]


@pytest.mark.parametrize(
    ("pattern", "matched"),
    [
        ("shoes", {"shoes"}),
        ("sho*", {"shoes", "shoe[1]", "shop/shoes"}),
        ("*es", {"shoes", "shop/shoes"}),
        ("sho?s", {"shoes"}),
        ("shoe[sx]", {"shoes"}),
        ("shoe[!x]", {"shoes"}),
        ("shoe[a-r]", set()),
        ("shoe[1]", {"shoe[1]"}),
        ("shoe[", set()),
        ("SHOES", set()),
        ("*", {"shoes", "shoe[1]", "shop/shoes", "Äpfel"}),
        ("äpfel", set()),
    ],
)
def test_a_pattern_matches_as_documented(pattern: str, matched: set[str]) -> None:
    """Goal: what the page says. Method: each kind of pattern; case counts, ``*`` takes slashes."""
    assert set(matching(pattern, ["shoes", "shoe[1]", "shop/shoes", "Äpfel"])) == matched


@given(NAMES, NAMES)
def test_what_is_equal_matches_whatever_it_holds(pattern: str, name: str) -> None:
    """Goal: a literal name is always taken. Method: names of pattern characters, each as its own pattern."""
    assert matching(name, [name]) == [name]
    assert matching("*", [pattern]) == [pattern]


@given(st.text(alphabet="ab*?c/é", max_size=6), PLAIN)
def test_without_brackets_it_is_what_shells_know(pattern: str, name: str) -> None:
    """Goal: no surprises. Method: the standard library's own matching is the judge."""
    assert bool(matching(pattern, [name])) == fnmatchcase(name, pattern)


@given(st.lists(NAMES | PLAIN, min_size=1, max_size=4).map(tuple), NAMES | PLAIN)
def test_bounds_leave_out_nothing_that_matches(patterns: tuple[str, ...], name: str) -> None:
    """Goal: literal beginnings only narrow the search. Method: with and without bounds, the same is taken."""
    selection = Selection(runs=patterns)
    by_pattern = any(
        matching(one, [name]) or ("/" in one and matching(one, [f"p/d/{name}"])) for one in patterns
    )
    assert selection.takes(RunKey("p", "d", name)) == by_pattern


def test_runs_and_exclusions_match_names_and_with_a_slash_whole_names() -> None:
    """Goal: one sentence in help. Method: patterns with and without a slash, names with slashes."""
    shoes, hats, nested = "shop/shoes/2024_a", "shop/hats/2024_a", "shop/hats/org/model"
    every = (shoes, hats, nested)
    assert takes(Selection(runs=("2024_a",)), *every) == [shoes, hats]
    assert takes(Selection(runs=("shop/shoes/*",)), *every) == [shoes]
    assert takes(Selection(runs=("org/model",)), *every) == [nested]
    assert takes(Selection(runs=("shop*",)), *every) == []
    assert takes(Selection(exclude=("shop/hats",)), *every) == [shoes]
    assert takes(Selection(exclude=("shop/hats/2024*",)), *every) == [shoes, nested]
    assert takes(Selection(exclude=("2024*",)), *every) == [nested]
    assert takes(Selection(projects=("s*",), datasets=("shoes", "h?ts"), exclude=("org/*",)), *every) == [
        shoes,
        hats,
    ]
    assert not Selection(exclude=("shop/hats",)).takes_dataset(RunKey(*hats.split("/")).dataset_key)
    assert Selection(exclude=("shop/hats/2024*",)).takes_dataset(RunKey(*hats.split("/")).dataset_key)


def test_very_many_patterns_are_one_condition() -> None:
    """Goal: no limit of SQLite's in the way. Method: 2,000 names as patterns."""
    selection = Selection(runs=tuple(f"run{number}*" for number in range(2000)))
    assert selection.takes(RunKey("p", "d", "run1999x"))
    assert not selection.takes(RunKey("p", "d", "other"))


@pytest.mark.parametrize(
    ("runs", "bounds"),
    [
        (("2024*",), ("2024", "2025")),
        (("20240101-000000_a",), ("20240101-000000_a", "20240101-000000_b")),
        (("2024*", "2026*"), ("2024", "2027")),
        (("*_lora",), ("", None)),
        (("shop/*",), ("", None)),
        (("\uffff\U0010ffff*",), ("\uffff\U0010ffff", "\U00010000")),
        (("\ud7ff*",), ("\ud7ff", "\ue000")),
    ],
)
def test_literal_beginnings_bound_the_names(runs: tuple[str, ...], bounds: tuple[str, str | None]) -> None:
    """Goal: an index serves them. Method: the bounds of each kind; a date narrows them more."""
    selection = Selection(runs=runs)
    assert (selection.parameters["since"], selection.parameters["until"]) == bounds
    assert Selection(runs=("2024*",), since="20240601").parameters["since"] == "20240601"


def test_bytes_of_another_encoding_match_nothing() -> None:
    """Goal: no traceback. Method: a name that is no UTF-8, as Python reads it from the disk."""
    assert not Selection(runs=("x*",)).takes(RunKey("p", "d", "x\udcff"))


def test_a_selection_survives_its_note() -> None:
    """Goal: who looks on knows it. Method: as JSON and back; what another version tells is left out."""
    part = Selection(("a b",), ("c",), ("d*",), ("e/f",), since="20240102-000000", until=None)
    told = json.loads(json.dumps(to_builtins(part)))
    assert Selection.of_document(told) == part
    assert Selection.of_document({"project": "x", "attempts_limit": 3}) == Selection(attempts_limit=3)
    assert part.flags == "--project 'a b' --dataset c --run 'd*' --exclude e/f --since 2024-01-02"
    with pytest.raises(TypeError):
        Selection.of_document(1)  # type: ignore[arg-type]


def test_two_selections_stand_side_by_side() -> None:
    """Goal: `status` of a part while another part is carried. Method: no name of a value is the same."""
    part = Selection(("a",), ("b",), ("c/d",), ("e",), since="2024")
    condition, values = part.beside()
    names = set(re.findall(r":(\w+)", condition))
    assert names <= values.keys()
    assert not names & part.parameters.keys()


def test_what_selects_everything_asks_as_before() -> None:
    """Goal: no price for who selects nothing. Method: the condition is that of the dates alone."""
    assert EVERYTHING.of_runs("x") == "TRUE AND x >= :since AND x < coalesce(:until, x'')"
    assert not EVERYTHING.is_limited
    assert Selection(attempts_limit=1) != EVERYTHING
    assert not Selection(attempts_limit=1).is_limited


def test_planned_runs_are_those_of_the_connection(book: Book) -> None:
    """Goal: an apply carries its plan. Method: tell the ledger two runs, then another; ask for three."""
    rows = "SELECT 'p' AS project, 'd' AS dataset"
    names = "SELECT 'a' AS name UNION SELECT 'b' UNION SELECT 'c'"
    planned = Selection(planned=True)
    ask = f"SELECT r.name FROM ({rows}) d, ({names}) r WHERE {planned.of_runs()} ORDER BY 1"  # noqa: S608

    def selected() -> list[str]:
        found = book.ask(lambda db: db.execute(ask, planned.parameters).fetchall())
        return [row["name"] for row in found]

    for chosen in ("ac", "b"):
        runs = [RunKey("p", "d", one) for one in chosen]
        book.ledger.write(partial(plan_runs, runs=runs))
        assert selected() == list(chosen)
