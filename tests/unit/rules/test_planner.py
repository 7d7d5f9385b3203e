"""What to do next with rows: plain values in, plain values out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from pixaris_sync.model import DeliveryMethod
from pixaris_sync.rules.planner import (
    AskFirst,
    FinishLoad,
    Plan,
    ReadBack,
    RowLimits,
    SendRows,
    TableBacklog,
    delivery_method,
    plan_rows,
)

NOW = 1_700_000_000.0
LIMITS = RowLimits(
    stream_rows_limit=10,
    load_rows_limit=100,
    ask_rows_limit=50,
    loads_per_day_limit=20,
    table_settle_seconds=300.0,
    stream_spacing_seconds=1.0,
    load_spacing_seconds=5.0,
    bulk=False,
)
BULK = replace(LIMITS, bulk=True)


def plan(
    *backlogs: TableBacklog,
    busy: tuple[str, ...] = (),
    sent_at: dict[str, float] | None = None,
    uploads_idle: bool = True,
    limits: RowLimits = LIMITS,
    now: float = NOW,
    loads_from: dict[str, float] | None = None,
) -> Plan:
    return plan_rows(
        backlogs,
        now=now,
        busy=busy,
        sent_at=sent_at or {},
        uploads_idle=uploads_idle,
        limits=limits,
        loads_from=loads_from or {},
    )


def test_rows_that_need_no_load_job_are_streamed_where_none_may_begin() -> None:
    """Goal: a new column of one run holds up no other.

    Method: three rows of which one must be loaded, the day's load jobs used up, or another machine's turn.
    """
    mixed = TableBacklog("t", ready=3, by_load=True, streamable=2)
    used_up = replace(mixed, loads_today=20)
    aside = SendRows("t", DeliveryMethod.STREAM, 10, may_load=True, by_load=False)
    assert plan(used_up) == Plan((replace(aside, may_load=False),), None)
    assert plan(mixed, loads_from={"t": NOW + 1}) == Plan((aside,), None)
    assert plan(mixed, loads_from={"t": NOW}) == Plan((SendRows("t", DeliveryMethod.LOAD, 100),), None)


@pytest.mark.parametrize(
    ("backlog", "limits"),
    [
        (TableBacklog("t", ready=1, by_load=True), LIMITS),
        (TableBacklog("t", ready=3, by_load=True, streamable=2, changed_at=NOW - 299), LIMITS),
        (TableBacklog("t", ready=3, by_load=True, streamable=2), BULK),
    ],
    ids=["none of them", "a table that was changed just now", "a backfill"],
)
def test_rows_that_must_be_loaded_wait_for_the_turn(backlog: TableBacklog, limits: RowLimits) -> None:
    """Goal: nothing is sent before, and something afterwards. Method: backlogs that streaming cannot take."""
    assert plan(backlog, limits=limits, loads_from={"t": NOW + 60}) == Plan((), NOW + 60)


def test_ready_rows_are_streamed() -> None:
    """Goal: the steady state. Method: a settled table with one row."""
    assert plan(TableBacklog("t", ready=1)) == Plan((SendRows("t", DeliveryMethod.STREAM, 10),), None)


@pytest.mark.parametrize(
    ("backlog", "limits"),
    [
        (TableBacklog("t", ready=1, by_load=True), LIMITS),
        (TableBacklog("t", ready=1, changed_at=NOW - 299), LIMITS),
        (TableBacklog("t", ready=1, changed_at=NOW + 2), LIMITS),
        (TableBacklog("t", ready=1), BULK),
    ],
    ids=["a row asks for it", "the table changed", "it changed, and the clock was set back", "bulk"],
)
def test_rows_go_by_load_job_where_streaming_is_not_safe(backlog: TableBacklog, limits: RowLimits) -> None:
    """Goal: nothing is lost in a new table. Method: each reason by itself."""
    assert plan(backlog, limits=limits).steps == (SendRows("t", DeliveryMethod.LOAD, 100),)


def test_a_settled_table_is_streamed_to_again_even_when_the_clock_was_set_back_far() -> None:
    """Goal: no table stays in load jobs for ever. Method: a change just past, and one far ahead."""
    for changed_at in (NOW - 300, NOW + 3600):
        backlog = TableBacklog("t", ready=1, changed_at=changed_at)
        assert delivery_method(backlog, now=NOW, limits=LIMITS) is DeliveryMethod.STREAM


def test_what_is_not_known_is_settled_before_anything_is_sent() -> None:
    """Goal: exactly once. Method: everything at once; then without the load, then without the look."""
    everything = TableBacklog("t", ready=5, to_read_back=3, unfinished_load=7)
    assert plan(everything).steps == (FinishLoad("t", 7),)
    assert plan(replace(everything, unfinished_load=None)).steps == (ReadBack("t", 50),)
    assert isinstance(plan(replace(everything, unfinished_load=None, to_read_back=0)).steps[0], SendRows)


def test_a_table_is_asked_for_what_others_may_have_sent_while_nothing_can_go() -> None:
    """Goal: live rows do not wait for a backlog that is asked for, nor are batches small meanwhile.

    Method: rows to ask for alone, then beside one that may go, then beside one that was just sent to.
    """
    asking = TableBacklog("t", to_ask=True)
    assert plan(asking) == Plan((AskFirst("t", 50),), None)
    assert plan(replace(asking, ready=1)).steps == (SendRows("t", DeliveryMethod.STREAM, 10),)
    assert plan(replace(asking, ready=1), sent_at={"t": NOW}).steps == (AskFirst("t", 50),)
    assert plan(replace(asking, ready=1, to_read_back=1)).steps == (ReadBack("t", 50),)


def test_rows_gather_while_files_are_uploaded() -> None:
    """Goal: large batches. Method: just sent, uploads busy; then later, then a full batch, then idle."""
    backlog, sent_at = TableBacklog("t", ready=9), {"t": NOW - 0.25}
    assert plan(backlog, sent_at=sent_at, uploads_idle=False) == Plan((), NOW + 0.75)
    assert plan(backlog, sent_at=sent_at, uploads_idle=False, now=NOW + 0.75).steps
    assert plan(replace(backlog, ready=10), sent_at=sent_at, uploads_idle=False).steps
    assert plan(backlog, sent_at=sent_at).steps
    assert plan(backlog, uploads_idle=False).steps


def test_in_a_backfill_rows_wait_for_those_in_doubt_that_are_decided_soon() -> None:
    """Goal: few load jobs where others have carried the files. Method: decided within the spacing, and later.

    What fills a load job does not wait, and neither does `watch`.
    """
    soon = TableBacklog("t", ready=1, next_at=NOW + 3, decided_at=NOW + 4)
    late = replace(soon, next_at=NOW + 6, decided_at=NOW + 6)
    load = Plan((SendRows("t", DeliveryMethod.LOAD, 100),), None)
    assert plan(soon, limits=BULK) == Plan((), NOW + 3)
    assert plan(late, limits=BULK) == load
    assert plan(replace(soon, ready=100), limits=BULK) == load
    assert plan(replace(soon, by_load=True)) == load


def test_load_jobs_are_spaced_by_their_own_measure() -> None:
    """Goal: the day's load jobs last. Method: the same moment for stream and load."""
    backlog, sent_at = TableBacklog("t", ready=1), {"t": NOW - 2}
    assert plan(backlog, sent_at=sent_at, uploads_idle=False).steps
    assert plan(backlog, sent_at=sent_at, uploads_idle=False, limits=BULK) == Plan((), NOW + 3)


def test_a_table_at_its_daily_limit_rests_and_others_do_not() -> None:
    """Goal: BigQuery's quota holds, per table. Method: one table at the limit, one below, one streaming."""
    full = TableBacklog("full", ready=1, by_load=True, loads_today=20)
    below = TableBacklog("below", ready=1, by_load=True, loads_today=19)
    streamed = TableBacklog("streamed", ready=1, loads_today=20)
    found = plan(full, below, streamed)
    assert [(step.table_id, getattr(step, "method", None)) for step in found.steps] == [
        ("below", DeliveryMethod.LOAD),
        ("streamed", DeliveryMethod.STREAM),
    ]
    assert found.wake_at == NOW + 3600
    assert plan(replace(full, next_at=NOW + 5)).wake_at == NOW + 5


def test_nothing_is_planned_for_nothing() -> None:
    """Goal: quiet. Method: no tables, and one whose rows are due later."""
    assert plan() == Plan((), None)
    assert plan(TableBacklog("t", next_at=NOW + 7), TableBacklog("u", next_at=NOW + 9)) == Plan((), NOW + 7)


times = st.floats(min_value=-400.0, max_value=400.0)
limits_strategy = st.builds(
    RowLimits,
    stream_rows_limit=st.integers(1, 20),
    load_rows_limit=st.integers(1, 20),
    ask_rows_limit=st.integers(1, 20),
    loads_per_day_limit=st.integers(1, 5),
    table_settle_seconds=st.sampled_from([0.0, 60.0, 300.0]),
    stream_spacing_seconds=st.sampled_from([0.0, 1.0]),
    load_spacing_seconds=st.sampled_from([0.0, 5.0]),
    bulk=st.booleans(),
)


@st.composite
def table_stands(draw: st.DrawFn) -> list[TableBacklog]:
    names = draw(st.lists(st.sampled_from("abcde"), unique=True))
    return [
        TableBacklog(
            name,
            ready=draw(st.integers(0, 30)),
            by_load=draw(st.booleans()),
            to_ask=draw(st.booleans()),
            to_read_back=draw(st.integers(0, 3)),
            unfinished_load=draw(st.none() | st.integers(1, 9)),
            changed_at=draw(st.none() | times.map(NOW.__add__)),
            loads_today=draw(st.integers(0, 6)),
            next_at=draw(st.none() | st.floats(0.001, 9999.0).map(NOW.__add__)),
        )
        for name in names
    ]


@given(
    backlogs=table_stands(),
    limits=limits_strategy,
    busy=st.sets(st.sampled_from("abcde")),
    sent_at=st.dictionaries(st.sampled_from("abcde"), times.map(NOW.__add__)),
    uploads_idle=st.booleans(),
)
def test_every_plan_keeps_the_rules(
    backlogs: list[TableBacklog],
    limits: RowLimits,
    busy: set[str],
    sent_at: dict[str, float],
    *,
    uploads_idle: bool,
) -> None:
    """Goal: the rules of the module hold for any input. Method: check each against what was planned."""
    found = plan_rows(backlogs, now=NOW, busy=busy, sent_at=sent_at, uploads_idle=uploads_idle, limits=limits)
    by_table = {backlog.table_id: backlog for backlog in backlogs}
    tables = [step.table_id for step in found.steps]
    assert len(tables) == len(set(tables))
    assert not busy & set(tables)
    for step in found.steps:
        backlog = by_table[step.table_id]
        if isinstance(step, SendRows):
            assert backlog.ready
            assert not backlog.to_read_back
            assert backlog.unfinished_load is None
            assert 1 <= step.count <= max(limits.stream_rows_limit, limits.load_rows_limit)
            changed = (
                backlog.changed_at is not None and abs(NOW - backlog.changed_at) < limits.table_settle_seconds
            )
            if changed or backlog.by_load or limits.bulk:
                assert step.method is DeliveryMethod.LOAD
            if step.method is DeliveryMethod.LOAD:
                assert backlog.loads_today < limits.loads_per_day_limit
    if found.wake_at is not None:
        assert found.wake_at > NOW
    planned = set(tables) | busy
    for backlog in backlogs:
        waits = (
            backlog.ready
            or backlog.to_read_back
            or backlog.unfinished_load is not None
            or backlog.next_at is not None
        )
        if waits and backlog.table_id not in planned:
            assert found.wake_at is not None, "a table that waits must wake the planner"


@given(
    ready=st.dictionaries(st.sampled_from("abcde"), st.integers(1, 60), min_size=1),
    changed=st.dictionaries(st.sampled_from("abcde"), times),
    limits=limits_strategy,
    uploads_until=st.floats(0.0, 100.0),
)
def test_every_ready_row_is_sent_in_the_end(
    ready: dict[str, int], changed: dict[str, float], limits: RowLimits, uploads_until: float
) -> None:
    """Goal: no starvation, and the day's limit holds. Method: plan, perform, go to `wake_at`, to the end."""
    now, left = NOW, dict(ready)
    sent_at: dict[str, float] = {}
    loads: list[tuple[str, float]] = []
    for _ in range(2000):
        backlogs = [
            TableBacklog(
                table,
                ready=count,
                changed_at=NOW + changed[table] if table in changed else None,
                loads_today=sum(1 for name, at in loads if name == table and at > now - 86400),
            )
            for table, count in left.items()
            if count
        ]
        if not backlogs:
            break
        found = plan_rows(
            backlogs,
            now=now,
            busy=(),
            sent_at=sent_at,
            uploads_idle=now - NOW >= uploads_until,
            limits=limits,
        )
        for step in found.steps:
            assert isinstance(step, SendRows)
            left[step.table_id] -= min(step.count, left[step.table_id])
            sent_at[step.table_id] = now
            if step.method is DeliveryMethod.LOAD:
                loads.append((step.table_id, now))
        if not found.steps:
            assert found.wake_at is not None
            assert found.wake_at > now
            now = found.wake_at
    assert not any(left.values())
    for table, at in loads:
        same_day = [1 for name, other in loads if name == table and at - 86400 < other <= at]
        assert len(same_day) <= limits.loads_per_day_limit
