"""HTML in which every text stays a text, whatever it holds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixaris_sync.monitoring.markup import Html, html, tag
from pixaris_sync.text import printable_line
from tests.support.read_html import Read
from tests.support.views import HOSTILE_NAMES


@pytest.mark.parametrize("text", HOSTILE_NAMES)
def test_a_hostile_text_stays_one(text: str) -> None:
    """Goal: no name does harm. Method: read back what it becomes between tags and in an attribute."""
    read = Read(tag("p", text, title=text))
    shown = printable_line(text)
    assert read.tags == [("p", [("title", shown)])]
    assert read.text == shown
    assert read.text.isprintable()
    tag("p", text, title=text).encode()


@given(st.text(st.characters()))
def test_any_text_stays_one(text: str) -> None:
    """Goal: the same of every text. Method: any characters."""
    read = Read(tag("a", text, href=text))
    assert (read.tags, read.text) == ([("a", [("href", printable_line(text))])], printable_line(text))


def test_elements_are_put_together() -> None:
    """Goal: what is made here is HTML. Method: nesting, lists, nothing, names of attributes, no end tags."""
    made = tag(
        "div", tag("b", "a"), ["x", None, ("y", tag("br"))], class_="c", data_key="k", hidden=True, id=None
    )
    assert made == '<div class="c" data-key="k" hidden><b>a</b>xy<br></div>'
    assert isinstance(made, Html)
    assert html(made) is made
    assert tag("p", "a", None, hidden=False) == "<p>a</p>"
