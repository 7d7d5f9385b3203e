"""``ui``: Pixaris' own UI over what was synced, or over a sandbox."""

import contextlib
import os
import signal
import sys
import time
import webbrowser
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from pixaris_sync.cli.exits import Exit
from pixaris_sync.cli.wiring import settings_for
from pixaris_sync.process.wiring import ports
from pixaris_sync.settings.model import Settings
from pixaris_sync.ui.feedback_table import FeedbackTable, feedback_table, prepare
from pixaris_sync.ui.serving import PrintedLines, require_packages, serving, workshop

if TYPE_CHECKING:
    from pixaris_sync.sandbox.emulators import Sandbox

#: How often it is looked whether everything still runs.
_LOOK_SECONDS = 0.5


def run_ui(
    flags: Mapping[str, Any],
    config: Path | None,
    *,
    sandbox: bool,
    host: str,
    port: int,
    open_browser: bool,
) -> Exit:
    """Serve the UI until Ctrl+C, SIGTERM or the end of the terminal.

    `sandbox`: over a fresh sandbox with the runs of the demonstration, whatever the environment configures.
    """
    signals = [signal.SIGINT, signal.SIGTERM]
    # Under nohup it is ignored, and stays so.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.append(signal.SIGHUP)

    def stop(*_: object) -> None:
        # What ends takes a moment; a second signal would leave half of it behind.
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in signals:
        signal.signal(number, stop)
    require_packages()
    try:
        with contextlib.ExitStack() as stack:
            scratch = stack.enter_context(workshop())
            emulators = stack.enter_context(_sandbox(scratch)) if sandbox else None
            settings = settings_for(flags, config, search=not sandbox)
            table = feedback_table(settings)
            out = sys.stdout
            stack.enter_context(contextlib.redirect_stdout(PrintedLines()))
            anyio.run(partial(_prepare, settings, table))
            if emulators is not None:
                _store_examples(emulators, str(table))
            page = stack.enter_context(serving(settings, table, scratch, host=host, port=port))
            print(f"the Pixaris UI is at {page.address}", file=out, flush=True)
            print("Ctrl+C ends it", file=sys.stderr, flush=True)
            if open_browser:
                webbrowser.open(page.address)
            while True:
                dead = emulators.dead() if emulators else None
                if dead or not page.is_alive:
                    print(f"error: {dead or 'the page'} ended by itself", file=sys.stderr)
                    return Exit.FAILED
                time.sleep(_LOOK_SECONDS)
    except KeyboardInterrupt:
        return Exit.OK


@contextlib.contextmanager
def _sandbox(scratch: Path) -> "Iterator[Sandbox]":
    """A fresh sandbox, at which the environment of this process points from now on."""
    from pixaris_sync.sandbox.emulators import Sandbox

    with Sandbox() as emulators:
        os.environ |= {**emulators.environment, "PIXARIS_SYNC_STATE_DIR": str(scratch / "state")}
        os.environ.pop("PIXARIS_SYNC_GCP_BQ_FEEDBACK_TABLE", None)
        yield emulators


def _store_examples(emulators: "Sandbox", table: str) -> None:
    from pixaris_sync.sandbox.demo import store_examples

    print("storing some runs in the sandbox", file=sys.stderr, flush=True)
    store_examples(emulators, feedback_table=table)


async def _prepare(settings: Settings, table: FeedbackTable) -> None:
    there = settings.having(gcp_bq_experiment_dataset=table.dataset)
    # Google's client is imported here for all of the process: Pixaris reads frames with it.
    async with ports(there, frames=True) as (_, sink):
        await prepare(table, sink)
