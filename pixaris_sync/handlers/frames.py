"""Tracking files as frames, as Pixaris reads them."""

import json
import logging
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)


def read_tracking_file(path: Path) -> "pd.DataFrame":
    """The records of a tracking file, with the types that pandas gives them.

    A line that is no record is left out with a warning, and the others are read.

    Returns:
        The frame; an empty one where the file is missing or empty.
    """
    import pandas as pd  # noqa: PLC0415 - a process that only stores does without

    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return pd.DataFrame()
    if not content.strip():
        return pd.DataFrame()
    try:
        return pd.read_json(BytesIO(content), lines=True)
    except ValueError:
        pass
    lines = content.split(b"\n")
    whole = [line for line in lines if line.strip() and _is_record(line)]
    damaged = [number for number, line in enumerate(lines, 1) if line.strip() and not _is_record(line)]
    if damaged:
        log.warning("%s: left out, as no JSON objects: lines %s", path, ", ".join(map(str, damaged)))
    try:
        return pd.read_json(BytesIO(b"\n".join(whole)), lines=True)
    except ValueError:
        # Pandas' own reader of JSON takes less than Python's: numbers of more than 64 bits, for one.
        return pd.DataFrame([json.loads(line) for line in whole])


def _is_record(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
