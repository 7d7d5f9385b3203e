"""``sandbox`` and ``demo``: trying it out without a Google account."""

import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from pixaris_sync.cli.exits import Exit
from pixaris_sync.sandbox.emulators import Sandbox


def run_sandbox(
    data_dir: Path | None, *, host: str, storage_port: int | None, bigquery_port: int | None
) -> Exit:
    """Run emulators until Ctrl+C or SIGTERM."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    with Sandbox(
        data_dir=data_dir, host=host, storage_port=storage_port, bigquery_port=bigquery_port
    ) as sandbox:
        print(sandbox.export_lines(), flush=True)
        print("the sandbox is running; Ctrl+C ends it", file=sys.stderr, flush=True)
        try:
            while True:
                if dead := sandbox.dead():
                    print(f"error: {dead}", file=sys.stderr)
                    return Exit.FAILED
                time.sleep(0.5)
        except KeyboardInterrupt:
            print("stopping the emulators", file=sys.stderr)
    return Exit.OK


def run_demo_command(runs: int) -> Exit:
    """Show the whole journey."""
    from pixaris_sync.sandbox.demo import run_demo
    from pixaris_sync.sandbox.demo_report import print_report

    found = run_demo(Console(stderr=True), runs=runs)
    print_report(found, Console())
    return Exit.OK
