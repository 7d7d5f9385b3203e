"""Bytes in memory, and pauses for a destination in trouble."""

import itertools
import random

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.limits.backoff import RETRY_AFTER_SPREAD, Backoff
from pixaris_sync.limits.gates import TOLERATED_DENIALS_MAX, ByteBudget, Gate, SharedDenial

NOW = 1_700_000_000.0


async def settle() -> None:
    """Let every task run until it waits: far fewer turns than these are needed."""
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


class Holders:
    """Tasks that ask a budget for bytes; each holds them until it is told to let go."""

    def __init__(self, budget: ByteBudget) -> None:
        self.budget = budget
        self.admitted: list[str] = []
        self._leave: dict[str, anyio.Event] = {}
        self._scopes: dict[str, anyio.CancelScope] = {}

    async def hold(self, name: str, count: int) -> None:
        self._leave[name], self._scopes[name] = anyio.Event(), anyio.CancelScope()
        with self._scopes[name]:
            held = await self.budget.acquire(count)
            self.admitted.append(name)
            try:
                await self._leave[name].wait()
            finally:
                self.budget.release(held)

    async def leave(self, name: str) -> None:
        self._leave[name].set()
        await settle()

    async def cancel(self, name: str) -> None:
        self._scopes[name].cancel()
        await settle()


@pytest.mark.anyio
async def test_who_asks_first_is_served_first() -> None:
    """Goal: a large file is not passed for ever by small ones. Method: a large wish before a small one."""
    holders = Holders(ByteBudget(10))
    async with anyio.create_task_group() as tasks:
        for name, count in (("a", 6), ("large", 8), ("small", 1)):
            tasks.start_soon(holders.hold, name, count)
            await settle()
        assert holders.admitted == ["a"]
        await holders.leave("a")
        assert holders.admitted == ["a", "large", "small"]
        assert holders.budget.held_bytes == 9
        await holders.leave("large")
        await holders.leave("small")
    assert holders.budget.held_bytes == 0


@pytest.mark.anyio
async def test_more_than_the_limit_counts_as_the_limit() -> None:
    """Goal: nothing waits for ever. Method: ask for more than there is; give back what was answered."""
    budget = ByteBudget(10)
    held = await budget.acquire(10**9)
    assert (held, budget.held_bytes) == (10, 10)
    budget.release(held)
    assert budget.held_bytes == 0


@pytest.mark.anyio
async def test_a_cancelled_wish_makes_room_for_those_behind_it() -> None:
    """Goal: cancellation never blocks others. Method: cancel the large one at the head of the queue."""
    holders = Holders(ByteBudget(10))
    async with anyio.create_task_group() as tasks:
        for name, count in (("a", 6), ("large", 8), ("small", 2)):
            tasks.start_soon(holders.hold, name, count)
            await settle()
        await holders.cancel("large")
        assert holders.admitted == ["a", "small"]
        await holders.leave("a")
        await holders.leave("small")
    assert holders.budget.held_bytes == 0


@pytest.mark.anyio
async def test_a_wish_that_is_granted_and_cancelled_at_once_is_given_back() -> None:
    """Goal: no byte is lost. Method: release and cancel before the waiting task has run."""
    holders = Holders(ByteBudget(10))
    held = await holders.budget.acquire(10)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(holders.hold, "a", 7)
            await settle()
            holders.budget.release(held)
            assert holders.budget.held_bytes == 7
            scope.cancel()
    assert holders.budget.held_bytes == 0


@settings(deadline=None, max_examples=50)
@given(
    limit=st.integers(1, 50),
    wishes=st.lists(st.integers(0, 60), min_size=1, max_size=12),
    order=st.randoms(use_true_random=False),
)
def test_the_budget_is_never_exceeded_and_everybody_is_served(
    limit: int, wishes: list[int], order: random.Random
) -> None:
    """Goal: bounded memory without deadlock. Method: any wishes, let go or cancelled in any order."""

    async def play() -> None:
        budget = ByteBudget(limit)
        holders = Holders(budget)
        names = [str(number) for number in range(len(wishes))]
        async with anyio.create_task_group() as tasks:
            for name, count in zip(names, wishes, strict=True):
                tasks.start_soon(holders.hold, name, count)
                await settle()
                assert budget.held_bytes <= limit
            cancelled = {name for name in names if order.random() < 0.2 and name not in holders.admitted}
            for name in cancelled:
                await holders.cancel(name)
                assert budget.held_bytes <= limit
            left = [name for name in names if name not in cancelled]
            while left:
                here = [name for name in left if name in holders.admitted]
                assert here, "somebody must be admitted while bytes are free"
                name = order.choice(here)
                left.remove(name)
                await holders.leave(name)
                assert budget.held_bytes <= limit
            assert [int(name) for name in holders.admitted] == sorted(int(name) for name in holders.admitted)
        assert budget.held_bytes == 0

    anyio.run(play)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_budget_of_nothing_is_refused(limit: int) -> None:
    """Goal: limits are checked at start. Method: limits that nothing fits into."""
    with pytest.raises(ValueError, match="positive"):
        ByteBudget(limit)


def failure(*, retry_after_seconds: float | None = None) -> SyncError:
    return SyncError("do", "x", "y", failure=Failure.TRANSIENT, retry_after_seconds=retry_after_seconds)


def gate() -> Gate:
    return Gate(Backoff(delay_seconds_min=1.0, delay_seconds_max=8.0), random.Random(1))  # noqa: S311 - a seed


def test_failures_that_were_under_way_together_count_once() -> None:
    """Goal: an outage costs one attempt at a time. Method: thirty failures in the same moment."""
    one = gate()
    answers = {one.failed(NOW, failure()) for _ in range(30)}
    assert (one.failures, len(answers)) == (1, 1)
    assert not one.is_open(NOW)
    assert one.is_open(one.opens_at)


def test_a_gate_pauses_longer_with_each_failure_and_not_at_all_after_a_success() -> None:
    """Goal: polite while it lasts, quick afterwards. Method: fail at each opening, then succeed."""
    one, now, waits = gate(), NOW, []
    for _ in range(8):
        opens_at = one.failed(now, failure())
        waits.append(opens_at - now)
        now = opens_at
    assert all(0.5 * 2**n <= wait <= 2**n for n, wait in enumerate(waits[:4]))
    assert max(waits) <= 8.0
    assert one.last_error is not None
    one.succeeded()
    assert (one.failures, str(one.last_error), one.is_open(NOW)) == (0, "None", True)
    assert one.failed(now, failure()) - now <= 1.0


def denial() -> SyncError:
    return SyncError("do", "x", "403", failure=Failure.PERMISSION)


def test_what_is_denied_alone_closes_no_gate() -> None:
    """Goal: one item with trouble of its own holds nobody up. Method: it, others, and it again and again."""
    one, now = gate(), NOW
    now = one.failed(now, denial(), item=1)
    assert not one.is_open(NOW)
    one.succeeded()
    for _ in range(10):
        assert one.failed(now, denial(), item=1, again=True) == now
        assert (one.failures, one.is_open(now)) == (0, True)


def test_many_that_are_denied_among_others_close_a_gate_ever_more_seldom() -> None:
    """Goal: where a part of a bucket is denied, the rest goes on. Method: each second new item is denied."""
    one, now, closed = gate(), NOW, 0
    for item in range(200):
        opens_at = one.failed(now, denial(), item=item)
        closed += opens_at > now
        now = opens_at + 1
        one.succeeded()
    assert closed == 1


def test_what_denies_everything_closes_the_gate_also_after_single_denials() -> None:
    """Goal: tolerance has an end. Method: ever more denials between two successes, then no success."""
    one, now = gate(), NOW
    items = itertools.count()
    for _ in range(20):
        while one.is_open(now):
            one.failed(now, denial(), item=next(items))
        one.succeeded()
    for _ in range(TOLERATED_DENIALS_MAX + 1):
        assert one.is_open(now)
        one.failed(now, denial(), item=next(items))
    assert not one.is_open(now)
    assert one.failures == 1


def test_a_gate_keeps_to_what_the_service_asks() -> None:
    """Goal: Retry-After is kept. Method: a wish beyond the cap."""
    opens_at = gate().failed(NOW, failure(retry_after_seconds=60.0))
    assert NOW + 60.0 <= opens_at <= NOW + 60.0 * (1 + RETRY_AFTER_SPREAD)


def test_tables_that_are_denied_one_after_another_are_the_datasets_denial() -> None:
    """Goal: one trouble of all is told from those of some. Method: with and without one that is taken."""
    denial = SharedDenial()

    assert [denial.denied(table) for table in ("a", "a", "b", "c")] == [False, False, True, True]
    assert denial.next_probe(["c", "a", "d", "b"]) == "d"
    assert denial.next_probe(["c", "a", "b"]) == "a"
    assert denial.taken("d") == {"a", "b", "c"}
    # They were denied while another one was taken.
    assert [denial.denied(table) for table in ("a", "b", "c", "e")] == [False] * 4
    assert denial.taken("a") == {"e"}
    assert [denial.denied(table) for table in ("a", "e", "f")] == [False, False, True]
    assert denial.next_probe([]) is None
