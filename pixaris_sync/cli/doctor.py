"""``doctor``: what is set up wrong, and what to do."""

import os
import sys
import textwrap
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from pixaris_sync.cli import report
from pixaris_sync.cli.console import set_up_logging
from pixaris_sync.cli.exits import Exit
from pixaris_sync.doctor.checks import Check, Verdict, must_be_mended
from pixaris_sync.doctor.examination import examine
from pixaris_sync.text import counted, printable_line

_COLUMNS: Final = 80
_VERDICT_WIDTH: Final = max(map(len, Verdict)) + 2


def run_doctor(flags: Mapping[str, Any], config: Path | None, *, as_json: bool) -> Exit:
    """Print every check; nothing is changed, here or in the cloud."""
    # Whatever is wrong is a check's own line.
    set_up_logging("error")
    checks = examine(flags, config)
    ending = Exit.CONFIGURATION if must_be_mended(checks) else Exit.OK
    if as_json:
        print(report.as_json({"exit_code": int(ending), "checks": [check.document for check in checks]}))
    else:
        print(doctor_text(checks))
    if threading.active_count() > 1:
        # A service was silent, and Python would wait for who asks it.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ending)
    return ending


def doctor_text(checks: Iterable[Check]) -> str:
    """A line for each check, its remedy below it, and how many of each verdict there are."""
    lines, counts = [], dict.fromkeys(Verdict, 0)
    for check in checks:
        counts[check.verdict] += 1
        lines += _wrapped(f"{check.verdict:<{_VERDICT_WIDTH}}", f"{check.name}: {check.found}")
        if check.remedy:
            lines += _wrapped(" " * _VERDICT_WIDTH, f"-> {check.remedy}")
    some = [f"{count} {verdict}" for verdict, count in counts.items() if count]
    total = counted(sum(counts.values()), "check")
    return "\n".join([*lines, f"{total}: {', '.join(some)}"])


def _wrapped(before: str, text: str) -> list[str]:
    return textwrap.wrap(
        printable_line(text),
        _COLUMNS,
        initial_indent=before,
        subsequent_indent=" " * (len(before) + 2),
        break_long_words=False,
        break_on_hyphens=False,
    )
