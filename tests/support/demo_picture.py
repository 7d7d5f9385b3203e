"""Draws the picture of the README: ``python -m tests.support.demo_picture`` runs the demonstration.

What it shows is real: the runs of this very demonstration, as Pixaris read them back.
"""

import io
import os
import sys

from rich.console import Console

from pixaris_sync.sandbox.demo import run_demo
from pixaris_sync.sandbox.demo_report import print_report
from tests.support.documents import DEPLOY

PICTURE = DEPLOY / "images" / "demo.svg"
RUNS = 2
#: As wide as the table, so that links are cut at the edge and not wrapped.
COLUMNS = 92


def main() -> None:
    """Run the demonstration and write what it printed last."""
    report = run_demo(Console(stderr=True), runs=RUNS)
    console = Console(
        record=True,
        width=COLUMNS,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    print_report(report, console)
    PICTURE.parent.mkdir(exist_ok=True)
    # A name of its own for the classes of the drawing, so that it differs only where the report does.
    PICTURE.write_text(console.export_svg(title="make demo", unique_id="demo"), encoding="utf-8")
    sys.stdout.write(f"{os.path.relpath(PICTURE)}: {PICTURE.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
