"""A training machine that stores runs, and a pixaris-sync on it that is killed again and again."""

import contextlib
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from pixaris_sync.cli.report import status_document
from tests.crash.fates import Assassin, Fate, draw_fate
from tests.crash.standing import Standing, look_at
from tests.crash.truth import LocalTruth
from tests.crash.wire import Witness
from tests.crash.writer import Writer
from tests.support.command_line import CommandLine
from tests.support.faulty_proxy import Answer, Fault, FaultyProxy, Moment, Weather
from tests.support.proxy import Request

RESUMABLE_BYTES = 256 * 1024

#: Delays of the network stay well below the time for which a row in doubt is looked for before it is sent
#: again: a request that arrives later than that is beyond what anybody can promise.
DOUBT_SETTLE_SECONDS = 1.0
SETTINGS: Mapping[str, float] = {
    "resumable_threshold_bytes": RESUMABLE_BYTES,
    "chunk_bytes": RESUMABLE_BYTES,
    "request_timeout_seconds": 2,
    "job_timeout_seconds": 10,
    "retry_delay_seconds_min": 0.05,
    "retry_delay_seconds_max": 0.5,
    "doubt_settle_seconds": DOUBT_SETTLE_SECONDS,
    "table_settle_seconds": 0.5,
    "visibility_timeout_seconds": 5,
    "load_spacing_seconds": 0.2,
    "bulk_spacing_seconds": 0.2,
    "young_file_seconds": 1,
    "rescan_interval_seconds": 1,
    "upload_concurrency_limit": 8,
}

STORAGE_WEATHER = Weather(
    {
        Fault.RESET_CONNECTION: 0.02,
        Fault.LOST_REQUEST: 0.02,
        Fault.LOST_ANSWER: 0.03,
        Fault.SWALLOWED_REQUEST: 0.003,
        Fault.WITHHELD_ANSWER: 0.004,
        Fault.CUT_ANSWER: 0.02,
        Fault.DELAY: 0.05,
    }
)
WAREHOUSE_WEATHER = Weather(
    {
        Fault.RESET_CONNECTION: 0.02,
        Fault.LOST_REQUEST: 0.08,
        Fault.LOST_ANSWER: 0.08,
        Fault.SWALLOWED_REQUEST: 0.01,
        Fault.WITHHELD_ANSWER: 0.01,
        Fault.CUT_ANSWER: 0.03,
        Fault.DELAY: 0.08,
    },
    requests_between_outages=(40, 120),
)
#: Ends of a pass that is not killed: done, or work is left.
_ENDS = (0, 5)
#: A process that sends no request is ended after this time.
_SILENCE_SECONDS_MAX = 5.0
#: Of what ``status`` prints, all that does not depend on the time at which it is asked.
_SHOWN = ("runs", "files", "rows", "pending_bytes", "last_synced_at", "torn_lines", "waiting", "problems")
_LOOK_SECONDS = 0.003


class Machine:
    """One results folder, one ledger, and the network of one machine; use as a context.

    Args:
        name: of the machine; in the names of its runs and of its own project.
        scratch: a folder of its own.
        environment: what points at the emulators.
        seed: of everything that is drawn.
        witness: sees its requests.

    Attributes:
        truth: what its folder says.
        kills: by what triggered them, how many kills there were.
        caught: by state, how many kills left files and rows in that state.
        ledgers_lost: how often its ledger was deleted.
        ended: exit codes of passes that were faster than their assassin.
        violations: what must never be.
        lives: one line for each, for the report of a failure.
    """

    def __init__(
        self, name: str, scratch: Path, environment: Mapping[str, str], seed: int, witness: Witness
    ) -> None:
        self.name = name
        self._chance = random.Random(f"{seed} {name} lives")  # noqa: S311 - tests need no secrecy
        self._assassin = Assassin()
        folder = scratch / "local_results"
        folder.mkdir(parents=True)
        self.truth = LocalTruth(folder)
        self._log = scratch / "process.log"

        def observe(moment: Moment, request: Request, answer: Answer | None) -> None:
            witness.observe(moment, request, answer)
            self._assassin.observe(moment, request, answer)

        self.storage = FaultyProxy(
            environment["STORAGE_EMULATOR_HOST"], f"{seed} {name} storage", STORAGE_WEATHER, observe
        )
        self.warehouse = FaultyProxy(
            environment["BIGQUERY_EMULATOR_HOST"], f"{seed} {name} warehouse", WAREHOUSE_WEATHER, observe
        )
        proxied = {"STORAGE_EMULATOR_HOST": self.storage.url, "BIGQUERY_EMULATOR_HOST": self.warehouse.url}
        self.command_line = CommandLine(folder, scratch / "state", {**environment, **proxied}).having(
            **SETTINGS
        )
        self.writer = Writer(folder, name, seed)
        self._ledger_there = threading.Lock()
        self.kills: Counter[str] = Counter()
        self.caught: Counter[str] = Counter()
        self.ledgers_lost = 0
        self.ended: Counter[int] = Counter()
        self.violations: list[str] = []
        self.lives: list[str] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.storage)
            stack.enter_context(self.warehouse)
            self._proxies = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._proxies.close()

    def standing(self) -> Standing | None:
        """What its ledger says now."""
        with self._ledger_there:
            found = [stands for path in self.command_line.ledgers() if (stands := look_at(path))]
        assert len(found) <= 1
        return found[0] if found else None

    def live_and_die(self, kills: int) -> None:
        """Be started and killed until there were so many kills."""
        while sum(self.kills.values()) < kills and not self.violations:
            if self.kills and self._chance.random() < 0.08:
                self._lose_ledger()
            self._live(draw_fate(self._chance))
            self._question(also_ask=self._chance.random() < 0.1)

    def _lose_ledger(self) -> None:
        with self._ledger_there:
            self.command_line.forget_ledger()
        self.ledgers_lost += 1
        self.lives.append("the ledger is lost")

    def _live(self, fate: Fate) -> None:
        begun = time.monotonic()
        with self._log.open("a") as log:
            log.write(f"--- {len(self.lives)}: {fate}\n")
            log.flush()
            process = self.command_line.start(fate.command, stdout=log, stderr=log)
        with self._assassin.after(process, fate):
            seen, left = self._ledger_stamp(), fate.count
            while process.poll() is None:
                if time.monotonic() >= self._ends_at(fate, begun):
                    self._assassin.strike(fate.trigger if fate.is_timed else "patience")
                    break
                if fate.writes and (stamp := self._ledger_stamp()) != seen:
                    seen, left = stamp, left - 1
                    if left == 0:
                        self._assassin.strike(fate.trigger)
                        break
                time.sleep(_LOOK_SECONDS)
        code = process.returncode
        if code == -signal.SIGKILL:
            self.kills[self._assassin.hit] += 1
        elif fate.command == "watch" or code not in _ENDS:
            self.violations.append(f"{fate.command} ended with {code}: {self.last_words()}")
        else:
            self.ended[code] += 1
        self.lives.append(f"{fate} ended with {code} after {time.monotonic() - begun:.2f} s")

    def _ends_at(self, fate: Fate, begun: float) -> float:
        worked_from = begun if fate.from_start else self._assassin.first_request_at
        latest = begun + _SILENCE_SECONDS_MAX
        return latest if worked_from is None else worked_from + fate.seconds

    def _ledger_stamp(self) -> tuple[int, int]:
        """Changes whenever a transaction is written: not yet committed perhaps, which is the point."""
        for path in self.command_line.state_dir.glob("*-wal"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                return status.st_size, status.st_mtime_ns
        return 0, 0

    def _question(self, *, also_ask: bool) -> None:
        """Make sure that what the dead process left is explained."""
        stands = self.standing()
        if stands is None:
            return
        self.violations += stands.unexplained
        for counts in (stands.overview.files, stands.overview.rows):
            self.caught.update({state: 1 for state, count in counts.items() if count})
        if also_ask:
            shown, known = self.command_line.status(), status_document(stands.overview, 0.0)
            if any(shown[part] != known[part] for part in _SHOWN):
                self.violations.append(f"status says {shown}, the ledger {known}")

    def last_words(self) -> str:
        """The end of what its processes printed."""
        return "\n".join(self.log().splitlines()[-60:])

    def log(self) -> str:
        """All that its processes printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def heal(self) -> None:
        """Mend its network."""
        self.storage.heal()
        self.warehouse.heal()

    @property
    def fired(self) -> Counter[Fault]:
        """How often each fault of its network has happened."""
        return self.storage.fired + self.warehouse.fired
