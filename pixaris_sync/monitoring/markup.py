"""HTML in which a text is always a text: what is not made here is escaped.

Names and causes may hold anything. They are written on one line, without what would turn the direction of the
text around (`text.printable_line`), and so that no reader of HTML takes a part of them for markup, be it
between tags or in an attribute.
"""

from collections.abc import Iterable
from html import escape
from typing import Final

from pixaris_sync.text import printable_line

_WITHOUT_END: Final = frozenset({"br", "img", "link", "meta"})


class Html(str):
    """A text that is HTML already. Only this module makes one of anything but a literal."""

    __slots__ = ()


Content = str | Iterable["Content"] | None


def html(content: Content) -> Html:
    """HTML as it is, a text escaped, several of them joined; None is nothing."""
    if isinstance(content, Html):
        return content
    if isinstance(content, str):
        return Html(escape(printable_line(content)))
    return Html("".join(map(html, content or ())))


def tag(name: str, /, *content: Content, **attributes: str | bool | None) -> Html:
    """An element.

    Args:
        name: of the element.
        content: what is in it.
        attributes: their names with ``_`` for ``-``, and without one at the end (``class_``). True stands
            for an attribute without value, False and None for none.
    """
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")  # noqa: PLW2901 - as HTML spells it
        written.append(f" {key}" if value is True else f' {key}="{html(value)}"')
    begin = f"<{name}{''.join(written)}>"
    return Html(begin if name in _WITHOUT_END else f"{begin}{html(content)}</{name}>")
