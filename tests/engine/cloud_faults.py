"""Faults of calls to the cloud, by a seed or by plan."""

from collections import Counter, deque
from dataclasses import dataclass, field
from random import Random

from pixaris_sync.errors import ConfigurationError, Failure, SyncError
from tests.fakes.virtual_clock import VirtualClock

BUCKET = "bucket"
TABLES = "tables"
#: What denies everything of one half of the cloud alike, for a while, and what it says.
SHARED_TROUBLES = {
    "permission_lost": "403 to everything",
    "proxy_page": "403 with a proxy's page",
    "billing_off": "403 until somebody pays",
}
#: Without billing, load jobs and queries go on.
_PAID = frozenset({"stream", "add_columns", "widen_columns"})
LOST = "lost"
#: A request that was held back takes effect so long at most after its destination can be reached again. With
#: the time until a streamed row shows it is what the engine's patience with a row in doubt must cover.
HELD_BACK_SECONDS_MAX = 19.0


@dataclass
class CloudFaults:
    """What becomes of calls. Every call succeeds as long as nothing is set.

    Attributes:
        random: where chance comes from.
        latency_seconds: how long a call takes at most.
        chances: probability of each kind of fault: ``transient``, ``quota``, ``stall`` (before it works),
            ``lost_answer`` (after it worked), ``held_back`` (it takes effect when its sender has given up),
            ``break_down`` (and then nothing reaches its destination for a while).
        lost_answers_of: calls whose answers may be lost; for others that would be no more than transient.
        outages: destinations (`BUCKET` or tables) that answer 503, and let nothing that is held back through.
        shared: by half of the cloud (`BUCKET` or `TABLES`), one of `SHARED_TROUBLES`, and until when.
        denied: tables that this account may not use.
        away_until: when destinations can be reached again that broke down, in seconds that have passed.
        sure: tables whose requests have their answers.
        offline: nothing can be reached.
        credentials: False: nobody can be authenticated.
        fired: how often each kind has fired.
    """

    clock: VirtualClock
    random: Random = field(default_factory=lambda: Random(0))  # noqa: S311 - a test's chance needs no secrecy
    latency_seconds: float = 0.0
    chances: dict[str, float] = field(default_factory=dict)
    lost_answers_of: frozenset[str] = frozenset({"upload", "upload_resumable", "stream", "load"})
    outages: set[str] = field(default_factory=set)
    shared: dict[str, tuple[str, float]] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)
    away_until: dict[str, float] = field(default_factory=dict)
    sure: set[str] = field(default_factory=set)
    offline: bool = False
    credentials: bool = True
    fired: Counter[str] = field(default_factory=Counter)
    _plans: dict[str, deque[SyncError | str | None]] = field(default_factory=dict)
    _losing: set[str] = field(default_factory=set)

    def plan(self, method: str, *outcomes: SyncError | str | None) -> None:
        """Decide the next calls of a method, one by one: an error, `LOST` for its answer, or None: fine."""
        self._plans[method] = deque(outcomes)

    @property
    def plans_left(self) -> int:
        """How many planned outcomes have not come yet."""
        return sum(map(len, self._plans.values()))

    async def before(self, method: str, destination: str | None) -> None:
        """Take time, and perhaps fail with nothing done.

        Raises:
            SyncError: it fails.
        """
        if self.latency_seconds:
            await self.clock.sleep(self.random.uniform(0.0, self.latency_seconds))
        subject = destination or "dataset"
        if self._fires("stall"):
            await self.clock.sleep(self.random.uniform(10.0, 60.0))
        if not self.credentials:
            self.fired["credentials"] += 1
            raise ConfigurationError(method, subject, "401: they have expired", failure=Failure.CREDENTIALS)
        if not self.reaches(destination):
            self.fired["offline" if self.offline else "outage"] += 1
            raise SyncError(method, subject, "503 in an outage", failure=Failure.TRANSIENT)
        self._share_trouble(method, destination)
        if self._plans.get(method):
            outcome = self._plans[method].popleft()
            if isinstance(outcome, SyncError):
                raise outcome
            if outcome == LOST:
                self._losing.add(method)
        if self._fires("transient"):
            raise SyncError(method, subject, "503", failure=Failure.TRANSIENT)
        if self._fires("quota"):
            asked = self.random.choice([None, self.random.uniform(1.0, 90.0)])
            raise SyncError(method, subject, "429", failure=Failure.QUOTA, retry_after_seconds=asked)

    def _share_trouble(self, method: str, destination: str | None) -> None:
        if destination in self.denied:
            raise SyncError(method, str(destination), "403 to this table", failure=Failure.PERMISSION)
        half = BUCKET if destination == BUCKET else TABLES
        kind, until = self.shared.get(half, ("", 0.0))
        if self.clock.elapsed_seconds >= until:
            return
        if kind == "billing_off" and half == TABLES and method not in _PAID:
            return
        if kind != "proxy_page" and method == "check" and half == BUCKET:
            # Of an account that may only write this says nothing.
            return
        self.fired[f"{kind}_of_{half}"] += 1
        failure = Failure.PERMISSION
        if kind == "proxy_page":
            # Nobody knows what the page of a proxy stands for.
            failure = Failure.IN_DOUBT if method in ("stream", "load") else Failure.TRANSIENT
        error = ConfigurationError if method == "check" and kind != "proxy_page" else SyncError
        raise error(method, destination or "dataset", SHARED_TROUBLES[kind], failure=failure)

    def after(self, method: str, destination: str | None) -> None:
        """Perhaps lose the answer of what was done.

        Raises:
            SyncError: it is lost.
        """
        planned = method in self._losing
        self._losing.discard(method)
        may_be_lost = method in self.lost_answers_of and destination not in self.sure
        if planned or (may_be_lost and self._fires("lost_answer")):
            self.fired[f"lost_{method}"] += 1
            raise SyncError(method, destination or "dataset", "the answer was lost", failure=Failure.IN_DOUBT)

    def is_orphan(self, request: str) -> bool:
        """Whether a request whose process is gone has effect all the same; for each the same in a replay.

        Tasks are cancelled in no certain order, so the next random number would not be.
        """
        return self._chance_of(request).random() < 0.7

    def holds_back(self, destination: str | None) -> bool:
        """Whether a request now is held back on its way."""
        return destination not in self.sure and self._fires("held_back")

    def holds_orphan_back(self, request: str) -> bool:
        """The same of a request whose process is gone."""
        return self._chance_of(f"when {request}").random() < 0.5

    def held_back_seconds(self, request: str) -> float:
        """How long after the end of an outage a request takes effect that was held back."""
        return self._chance_of(f"how long {request}").uniform(0.0, HELD_BACK_SECONDS_MAX)

    def break_down(self, destination: str) -> None:
        """Let nothing reach a destination for a while, where that is why a request was held back."""
        chance = self._chance_of(f"break down {destination}")
        if chance.random() < self.chances.get("break_down", 0.0):
            self.away_until[destination] = self.clock.elapsed_seconds + chance.uniform(10.0, 300.0)

    def reaches(self, destination: str | None) -> bool:
        """Whether anything reaches a destination."""
        away_until = self.away_until.get(destination or "", 0.0)
        return not (self.offline or destination in self.outages or self.clock.elapsed_seconds < away_until)

    def _chance_of(self, what: str) -> Random:
        return Random(f"{what} {self.clock.elapsed_seconds}")  # noqa: S311 - a test's chance needs no secrecy

    def _fires(self, kind: str) -> bool:
        chance = self.chances.get(kind, 0.0)
        if not chance or self.random.random() >= chance:
            return False
        self.fired[kind] += 1
        return True
