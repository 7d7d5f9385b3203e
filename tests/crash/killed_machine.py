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
from tests.crash.expected_cloud import ExpectedCloud
from tests.crash.kill_plan import Killer, KillPlan, draw_kill_plan
from tests.crash.network_faults import Chances, Fault, Moment, NetworkFaults
from tests.crash.request_log import RequestLog
from tests.crash.status_check import StatusCheck, check_status
from tests.crash.writer import Writer
from tests.support.command_line import CommandLine
from tests.support.proxy import Answer, Proxies, Proxy, Request
from tests.support.waiting import eventually

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
    # Their tables are young: rows would hardly ever be streamed.
    "table_settle_seconds": 0.0,
    "visibility_timeout_seconds": 5,
    "load_spacing_seconds": 0.2,
    "bulk_spacing_seconds": 0.2,
    "young_file_seconds": 1,
    "rescan_interval_seconds": 1,
    "upload_concurrency_limit": 8,
}

STORAGE_CHANCES = Chances(
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
BIGQUERY_CHANCES = Chances(
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


class KilledMachine:
    """One results folder, one ledger, and the network of one machine; use as a context.

    Args:
        name: of the machine; in the names of its runs and of its own project.
        scratch: a folder of its own.
        environment: what points at the emulators.
        seed: of everything that is drawn.
        request_log: sees all of its requests.

    Attributes:
        expected: what must be in the cloud, by its folder.
        kills: by what triggered them, how many kills there were.
        caught: by state, how many kills left files and rows in that state.
        ledgers_lost: how often its ledger was deleted.
        ended: exit codes of passes that were faster than their killer.
        violations: what must never be.
        past: a line for each process and each loss, for the report of a failure.
    """

    def __init__(
        self, name: str, scratch: Path, environment: Mapping[str, str], seed: int, request_log: RequestLog
    ) -> None:
        self.name = name
        self._chance = random.Random(f"{seed} {name} plans")  # noqa: S311 - tests need no secrecy
        self._killer = Killer()
        folder = scratch / "local_results"
        folder.mkdir(parents=True)
        self.expected = ExpectedCloud(folder)
        self._log = scratch / "process.log"

        def observe(moment: Moment, request: Request, answer: Answer | None) -> None:
            request_log.observe(moment, request, answer)
            self._killer.observe(moment, request, answer)

        self.proxies = Proxies(
            Proxy(environment["STORAGE_EMULATOR_HOST"]), Proxy(environment["BIGQUERY_EMULATOR_HOST"])
        )
        self._faults = [
            NetworkFaults(self.proxies.storage, f"{seed} {name} storage", STORAGE_CHANCES, observe),
            NetworkFaults(self.proxies.bigquery, f"{seed} {name} bigquery", BIGQUERY_CHANCES, observe),
        ]
        environment = {**environment, **self.proxies.environment}
        self.command_line = CommandLine(folder, scratch / "state", environment).having(**SETTINGS)
        self.writer = Writer(folder, name, seed)
        self._ledger_there = threading.Lock()
        self.kills: Counter[str] = Counter()
        self.caught: Counter[str] = Counter()
        self.ledgers_lost = 0
        self.ended: Counter[int] = Counter()
        self.violations: list[str] = []
        self.past: list[str] = []

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.proxies.storage)
            stack.enter_context(self.proxies.bigquery)
            self._running = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def check_status(self) -> StatusCheck | None:
        """What its ledger says now."""
        with self._ledger_there:
            found = [check for path in self.command_line.ledgers() if (check := check_status(path))]
        assert len(found) <= 1
        return found[0] if found else None

    def run_and_kill(self, kills: int) -> None:
        """Be started and killed until there were so many kills."""
        while sum(self.kills.values()) < kills and not self.violations:
            # On a slow machine a process may have been killed before it made one.
            if self.kills and self._chance.random() < 0.08 and self.command_line.ledgers():
                self._lose_ledger()
            self._run(draw_kill_plan(self._chance))
            self._question(also_ask=self._chance.random() < 0.1)

    def _lose_ledger(self) -> None:
        with self._ledger_there:
            self.command_line.forget_ledger()
        self.ledgers_lost += 1
        self.past.append("the ledger is lost")

    def _run(self, plan: KillPlan) -> None:
        begun = time.monotonic()
        with self._log.open("a") as log:
            log.write(f"--- {len(self.past)}: {plan}\n")
            log.flush()
            process = self.command_line.start(plan.command, stdout=log, stderr=log)
        with self._killer.watching(process, plan):
            seen, left = self._ledger_stamp(), plan.count
            while process.poll() is None:
                if time.monotonic() >= self._ends_at(plan, begun):
                    self._killer.kill(plan.trigger if plan.is_timed else "patience")
                    break
                if plan.writes and (stamp := self._ledger_stamp()) != seen:
                    seen, left = stamp, left - 1
                    if left == 0:
                        self._killer.kill(plan.trigger)
                        break
                time.sleep(_LOOK_SECONDS)
        code = process.returncode
        if code == -signal.SIGKILL:
            self.kills[self._killer.killed_at] += 1
        elif plan.command == "watch" or code not in _ENDS:
            self.violations.append(f"{plan.command} ended with {code}: {self.last_words()}")
        else:
            self.ended[code] += 1
        self.past.append(f"{plan} ended with {code} after {time.monotonic() - begun:.2f} s")

    def _ends_at(self, plan: KillPlan, begun: float) -> float:
        worked_from = begun if plan.from_start else self._killer.first_request_at
        latest = begun + _SILENCE_SECONDS_MAX
        return latest if worked_from is None else worked_from + plan.seconds

    def _ledger_stamp(self) -> tuple[int, int]:
        """Changes whenever a transaction is written: not yet committed perhaps, which is the point."""
        for path in self.command_line.state_dir.glob("*-wal"):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                return status.st_size, status.st_mtime_ns
        return 0, 0

    def _question(self, *, also_ask: bool) -> None:
        """Make sure that what the dead process left is explained."""
        check = self.check_status()
        if check is None:
            return
        self.violations += check.unexplained
        for counts in (check.overview.files, check.overview.rows):
            self.caught.update({state: 1 for state, count in counts.items() if count})
        if also_ask:
            shown, known = self.command_line.status(), status_document(check.idle, 0.0)
            if any(shown[part] != known[part] for part in _SHOWN):
                self.violations.append(f"status says {shown}, the ledger {known}")

    def last_words(self) -> str:
        """The end of what its processes printed."""
        return "\n".join(self.log().splitlines()[-60:])

    def log(self) -> str:
        """All that its processes printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def heal(self) -> None:
        """Mend its network, and wait until it holds nothing back any more."""
        for faults in self._faults:
            faults.heal()
        eventually(lambda: not self.proxies.bigquery.held, "nothing is held back", timeout_seconds=60)

    @property
    def fired(self) -> Counter[Fault]:
        """How often each fault of its network has happened."""
        return sum((faults.fired for faults in self._faults), Counter())
