"""Settings added to the text of a config file, of which every character stays.

Keys that Pixaris has too are added at the top level, where Pixaris reads them, and all others under
``pixaris_sync:``. Whatever the file looks like, what comes out was read again and means what it should.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from pixaris_sync.errors import ConfigurationError
from pixaris_sync.settings.document import Document, mapping_of, parse_document
from pixaris_sync.settings.names import PIXARIS_KEYS, SECTION

if TYPE_CHECKING:
    from yaml import Node

_HEAD: Final = "# Settings of Pixaris, and of pixaris-sync below pixaris_sync:\n"
_INDENT: Final = "  "


def with_additions(document: Document, values: Mapping[str, object]) -> str:
    """The text of a file with further settings.

    Args:
        document: the file as it is; an empty one for a new file.
        values: what to add: settings that the file does not set.

    Raises:
        ConfigurationError: the file is such that a person must add them; the hint holds the lines.
    """
    top = {key: value for key, value in values.items() if key in PIXARIS_KEYS}
    below = {key: value for key, value in values.items() if key not in PIXARIS_KEYS}
    text = document.text or _HEAD
    for at, added in sorted(_insertions(document, text, top, below), reverse=True):
        text = text[:at] + added + text[at:]
    meant = {**document.mapping, **top}
    if below:
        meant[SECTION] = {**(document.mapping.get(SECTION) or {}), **below}
    if not _means(text, document, meant):
        lines = [f"`{_line(*item)}`" for item in top.items()]
        lines += [f"`{_line(*item)}` below {SECTION}:" for item in below.items()]
        raise ConfigurationError(
            "add to",
            str(document.path),
            "it is written in a way that nothing can be added to without a person",
            hint=f"write into it {', and '.join(lines)}",
        )
    return text


def _insertions(
    document: Document, text: str, top: Mapping[str, object], below: Mapping[str, object]
) -> list[tuple[int, str]]:
    """Where in the text to insert what."""
    line_end = "\r\n" if "\r\n" in text else "\n"
    places, at_end = [], ""
    root = mapping_of(document.root)
    indent = " " * root.value[-1][0].start_mark.column if root and root.value else ""
    for key, value in top.items():
        if entry := document.entry(key):
            # Nothing stands there: where something does, what comes out will not mean what it should.
            places.append((entry[1].end_mark.index, _line(key, value).removeprefix(f"{key}:")))
        else:
            at_end += f"{indent}{_line(key, value)}{line_end}"
    section = document.entry(SECTION)
    if below and section:
        places.append(_in_section(text, *section, below, line_end))
    elif below:
        lines = [f"{indent}{SECTION}:", *(f"{indent}{_INDENT}{_line(*item)}" for item in below.items())]
        at_end += "".join(f"{line}{line_end}" for line in lines)
    if at_end:
        places.append((len(text), at_end if text.endswith("\n") else f"{line_end}{at_end}"))
    return places


def _in_section(
    text: str, key: "Node", section: "Node", values: Mapping[str, object], line_end: str
) -> tuple[int, str]:
    """Where in the section that is there to insert what."""
    mapping = mapping_of(section)
    lines = [_line(*item) for item in values.items()]
    if mapping is not None and mapping.flow_style:
        if not mapping.value:
            return mapping.end_mark.index - 1, ", ".join(lines)
        return mapping.value[-1][1].end_mark.index, f", {', '.join(lines)}"
    if mapping is None:
        indent, at = " " * key.start_mark.column + _INDENT, section.end_mark.index
    else:
        # The first may be brought from elsewhere by a merge.
        last_key, last = mapping.value[-1]
        indent, at = " " * last_key.start_mark.column, last.end_mark.index
    added = "".join(f"{indent}{line}{line_end}" for line in lines)
    if text[at - 1 : at] == "\n":
        # Text in several lines ends where the next line begins.
        return at, added
    next_line = text.find("\n", at) + 1
    return (next_line, added) if next_line else (len(text), f"{line_end}{added}")


def _line(key: str, value: object) -> str:
    import yaml  # noqa: PLC0415 - often there is no file

    dumped: str = yaml.safe_dump({key: value}, allow_unicode=True, width=float("inf"))
    return dumped.rstrip("\n")


def _means(text: str, document: Document, value: object) -> bool:
    """Whether a text means this, and every key of it stands there once."""
    try:
        read = parse_document(text, document.path, hint="")
    except ConfigurationError:
        return False
    root = mapping_of(read.root)
    return read.value == value and root is not None and len(root.value) <= len(read.mapping)
