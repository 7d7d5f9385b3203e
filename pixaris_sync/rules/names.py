"""Which names file systems, GCS and BigQuery take.

Rules for object names are those of "Object name requirements" in Google's GCS documentation, rules for table
ids those of BigQuery's ``TableReference``. Each function returns the rule that a name breaks as the rest of a
sentence about it ("contains '/': ..."), or None where nothing is wrong; none of them raises.
"""

import unicodedata
from typing import Final

from pixaris_sync.text import is_utf8

OBJECT_NAME_BYTES_MAX: Final = 1024
TABLE_ID_BYTES_MAX: Final = 1024
#: What the ids of load jobs of ours begin with.
JOB_ID_PREFIX: Final = "pixaris-sync-"

_SEPARATORS: Final = "/\0"
_TABLE_CATEGORIES: Final = frozenset({"Pc", "Pd", "Zs"})
_TABLE_CATEGORY_CLASSES: Final = frozenset("LMN")
_CHALLENGE_PREFIX: Final = ".well-known/acme-challenge/"
_NOT_UTF8: Final = "has characters that UTF-8 cannot encode (lone surrogates)"


def component_fault(name: str) -> str | None:
    """The rule for a single path component that a name breaks. A backslash is a character like any other."""
    if name in ("", ".", ".."):
        return "is no name of a file or folder"
    marks = [repr(mark) for mark in _SEPARATORS if mark in name]
    return f"contains {', '.join(marks)}: a path component cannot" if marks else None


def object_name_fault(name: str) -> str | None:
    """The rule for GCS object names that a name breaks."""
    if not name:
        return "is empty"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return _NOT_UTF8
    if size > OBJECT_NAME_BYTES_MAX:
        return f"has {size} bytes: GCS takes {OBJECT_NAME_BYTES_MAX}"
    if "\r" in name or "\n" in name:
        return "contains a carriage return or line feed: GCS refuses both"
    if name.startswith(_CHALLENGE_PREFIX):
        return f"starts with {_CHALLENGE_PREFIX!r}: GCS refuses that"
    return None


def table_id_fault(table: str) -> str | None:
    """The rule for BigQuery table ids that an id breaks."""
    if not table:
        return "is empty"
    if not is_utf8(table):
        return _NOT_UTF8
    if (size := len(table.encode())) > TABLE_ID_BYTES_MAX:
        return f"has {size} bytes: BigQuery takes {TABLE_ID_BYTES_MAX}"
    for mark in table:
        category = unicodedata.category(mark)
        if category[0] not in _TABLE_CATEGORY_CLASSES and category not in _TABLE_CATEGORIES:
            return f"contains {mark!r}: BigQuery takes letters, marks, numbers, connectors, dashes and spaces"
    return None
