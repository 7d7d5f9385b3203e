"""The ledger's transitions are called with the right arguments, by the word of the type checker."""

import os
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]
HEAD = """
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.overview import work_left
from pixaris_sync.ledger.pending_rows import (PendingRow)
from pixaris_sync.ledger.rows import (quarantine_rows, reschedule_rows)
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.model import Problem
from pixaris_sync.pipeline.context import Context


async def call(context: Context, ledger: Ledger, row: PendingRow, problem: Problem) -> None:
"""
#: Types of libraries say nothing about these calls, and take nine times as long.
OURS_ALONE = ("--no-site-packages", "--ignore-missing-imports", "--follow-imports=silent")
#: Calls, and what is wrong with each.
CALLS = [
    ("await context.apply(quarantine_rows, context.now(), [row], problem)", None),
    ("await context.apply(quarantine_rows, context.now(), problem, [row])", "arg-type"),
    ("await context.apply(quarantine_rows, [row], context.now(), problem)", "arg-type"),
    ("await context.apply(quarantine_rows, context.now(), [row])", "call-arg"),
    ("await context.apply(reschedule_rows, context.now(), [row], by_load=True)", None),
    ("await context.apply(reschedule_rows, context.now(), [row], batch_limit='3')", "arg-type"),
    ("ledger.read(lambda db: work_left(db, Selection())).waiting + 1", None),
    ("ledger.read(lambda db: work_left(db, Selection())).waiting + 'x'", "operator"),
]


def test_swapped_arguments_of_a_transition_fail_the_type_checker(tmp_path: Path) -> None:
    """Goal: no two arguments are swapped unseen. Method: `mypy --strict` over right calls and wrong ones."""
    snippet = tmp_path / "snippet.py"
    snippet.write_text(HEAD + "".join(f"    {call}\n" for call, _ in CALLS), encoding="utf-8")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *OURS_ALONE, str(snippet)],
        cwd=REPOSITORY,
        env={**os.environ, "MYPYPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    errors = dict(re.findall(r"snippet\.py:(\d+): error: .* \[([a-z-]+)\]$", checked.stdout, re.MULTILINE))
    first = HEAD.count("\n") + 1
    found = [(call, errors.pop(str(first + place), None)) for place, (call, _) in enumerate(CALLS)]
    assert found == CALLS
    assert not errors, checked.stdout
