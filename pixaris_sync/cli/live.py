"""``status --watch``: where everything stands, again and again, until Ctrl+C or SIGTERM.

On a terminal it is one view that changes in place, and stays there at the end. Elsewhere each change is
printed as ``status`` prints it, not more often than every few seconds.
"""

import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.control import Control
from rich.live import Live
from rich.text import Text

from pixaris_sync.cli import report
from pixaris_sync.cli.console import share
from pixaris_sync.cli.exits import Exit
from pixaris_sync.cli.limit import in_force_of
from pixaris_sync.cli.panes import Now, head, panes, wrapped
from pixaris_sync.cli.selecting import check_patterns
from pixaris_sync.cli.wiring import settings_for
from pixaris_sync.errors import LedgerEmptyError, LedgerError
from pixaris_sync.ledger.finder import may_exist
from pixaris_sync.ledger.selection import EVERYTHING, Selection, Work
from pixaris_sync.ledger.totals import Totals
from pixaris_sync.monitoring.view import Reader, View
from pixaris_sync.process.ownership import Owner, read_owner
from pixaris_sync.process.wiring import found_ledger
from pixaris_sync.settings.model import Settings

if TYPE_CHECKING:
    from pixaris_sync.process.live_limits import InForce

#: How often the ledger is asked whether anything has changed, and how often changes are printed where there
#: is no terminal.
_LOOK_SECONDS: Final = 1.0
_PRINT_SECONDS: Final = 5.0
#: Over how long rates are smoothed.
_RATE_SECONDS: Final = 10.0
NOTHING_YET: Final = (
    "nothing was ever synced from this folder to this destination: waiting for the first pass"
)


def watch_status(
    selection: Selection, flags: Mapping[str, Any], config: Path | None, *, as_json: bool
) -> Exit:
    """Show where everything that is selected stands until a signal ends it.

    Raises:
        ConfigurationError: a setting is unusable, or the folder is no results folder.
        LedgerError: the ledger cannot be read at the start.
    """
    settings = settings_for(flags, config)
    source = Source(settings, selection)
    check_patterns(settings, selection, source.path, may_come=True)
    console = Console()
    share(console)
    is_live = sys.stdout.isatty() and not console.is_dumb_terminal and not as_json

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    # A reader that has gone away ends it, too.
    with closing(source), suppress(KeyboardInterrupt, BrokenPipeError):
        if is_live:
            show(source, settings, console)
        else:
            _print(source, as_json=as_json)
    return Exit.OK


class Source:
    """What is shown: the newest view, and who works on the folder; the ledger may come and be replaced."""

    def __init__(self, settings: Settings, selection: Selection = EVERYTHING) -> None:
        self._settings = settings
        self._selection = selection
        self._reader: Reader | None = None
        self._view: View | None = None
        self.path = found_ledger(settings).path
        self.owner: Owner | None = None
        self.in_force: InForce | None = None
        self.trouble = ""

    def look(self) -> View | None:
        """The newest view; None: nothing was ever synced.

        Raises:
            LedgerError: there never was a view.
        """
        if self._reader is None:
            self.path = found_ledger(self._settings).path
        self.owner = read_owner(self.path.with_suffix(".owner"))
        self.in_force = in_force_of(self.owner, self.path)
        if not may_exist(self.path):
            self.close()
            self._view = None
            return None
        self._reader = self._reader or Reader(self._settings, self.path, self._work, self._selection)
        try:
            self._view, self.trouble = self._reader.read(), ""
        except LedgerEmptyError:
            return None
        except LedgerError as error:
            # Whoever works with it mends it, or says so.
            if self._view is None:
                self.close()
                raise
            self.trouble = str(error)
        return self._view

    def close(self) -> None:
        """Close the ledger. Safe to call twice."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    def _work(self) -> Work | None:
        return self.owner.work if self.owner else None


class Rate:
    """How fast bytes are carried, over the last seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def of(self, totals: Totals) -> float:
        """Bytes per second, by what was done until now."""
        now, done = self._clock(), totals.bytes_sent + totals.bytes_found
        if self._seen and done < self._seen[-1][1]:
            # Another ledger counts anew.
            self._seen.clear()
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] >= _RATE_SECONDS:  # noqa: PLR2004 - two make a rate
            self._seen.popleft()
        since, before = self._seen[0]
        return (done - before) / (now - since) if now > since else 0.0


def show(source: Source, settings: Settings, console: Console) -> None:
    """Show it on a terminal, until a signal raises an exception."""
    changed = threading.Event()
    signal.signal(signal.SIGWINCH, lambda *_: changed.set())
    rate = Rate()

    def lines() -> list[Text]:
        view = source.look()
        if view is None:
            return [*head(settings, source.path, console), *wrapped(NOTHING_YET, 0, console)]
        now = Now(source.owner, rate.of(view.totals), source.trouble, source.in_force)
        return panes(view, now, settings, console)

    shown, size = lines(), console.size
    with Live(_joined(shown), console=console, auto_refresh=False) as live:
        while True:
            changed.wait(_LOOK_SECONDS)
            changed.clear()
            newest = lines()
            if console.size == size and newest == shown:
                continue
            shown = newest
            with _uninterrupted():
                if console.size != size:
                    # Terminals break and join lines by themselves: what stands there is in no known place.
                    console.control(Control.home(), Control.clear())
                    size = console.size
                live.update(_joined(shown), refresh=True)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let signals that end the process wait meanwhile: of half a view nobody would know where it ends."""
    ending = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ending)


def _joined(lines: list[Text]) -> Text:
    joined = Text("\n").join(lines)
    joined.no_wrap, joined.overflow = True, "crop"
    return joined


def _print(source: Source, *, as_json: bool) -> None:
    printed: tuple[View | None, str, InForce | None] | None = None
    while True:
        view, now = source.look(), time.time()
        document: dict[str, Any] = {}
        if view is not None:
            document = report.status_document(view.overview, now)
            document |= report.at_work_document(source.owner, source.in_force)
            document["ledger"] = str(source.path)
        known = view, str(source.owner), source.in_force
        if known != printed:
            if view is None:
                print(NOTHING_YET, file=sys.stderr, flush=True)
            elif as_json:
                print(report.as_json(document), flush=True)
            else:
                print(f"time  {report.when(now)}\n{report.status_text(document)}\n", flush=True)
            printed = known
            time.sleep(_PRINT_SECONDS - _LOOK_SECONDS)
        time.sleep(_LOOK_SECONDS)
