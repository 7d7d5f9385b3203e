"""A timetable: which rate holds when, also around midnight and where clocks are set."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixaris_sync.limits.timetable import DAYS, Entry, Timetable
from pixaris_sync.settings.kinds import timetable

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [BERLIN, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("America/St_Johns"), ZoneInfo("Asia/Kolkata"), UTC]
#: 2026-03-29 is put forward, 2026-10-25 is put back in Berlin.
MOMENTS = st.floats(1_767_225_600, 1_798_761_600)  # the year 2026


def _number(text: str) -> int | None:
    return None if text == "none" else int(text)


def parsed(text: str, zone: ZoneInfo = BERLIN) -> Timetable:
    return Timetable.parse(text, _number, zone)


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def shown(moment: float | None) -> str:
    assert moment is not None
    return datetime.fromtimestamp(moment, BERLIN).isoformat()


ENTRIES = st.lists(
    st.builds(
        Entry,
        st.none() | st.integers(0, 6),
        st.times(max_value=time(23, 59)).map(lambda found: found.replace(second=0, microsecond=0)),
        st.none() | st.integers(1, 5),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda entry: entry.at,
)


@given(ENTRIES, MOMENTS, st.sampled_from(ZONES))
def test_what_holds_does_so_until_it_is_said_to(entries: list[Entry], now: float, zone: ZoneInfo) -> None:
    """Goal: one look suffices until the next change.

    Method: any timetable and moment; just before the change the same holds, at the change what was told.
    """
    table = Timetable(tuple(entries), zone)
    found = table.at(now)
    if found.until is None:
        assert found.next_rate == found.rate
        later = [now + 86_400 * day for day in range(9)]
        assert {table.at(moment).rate for moment in later} == {found.rate}
        return
    assert now < found.until <= now + 8 * 86_400
    assert table.at(found.until - 0.5).rate == found.rate or found.until - 0.5 < now
    assert table.at(found.until).rate == found.next_rate != found.rate
    # A change is at an entry's time by the clock on the wall, or where that clock is set.
    change = datetime.fromtimestamp(found.until, zone)
    is_set = change.utcoffset() != datetime.fromtimestamp(found.until - 1, zone).utcoffset()
    assert is_set or change.time().replace(fold=0) in {entry.at for entry in entries}


@given(ENTRIES, MOMENTS)
def test_where_no_clock_is_set_the_last_entry_before_holds(entries: list[Entry], now: float) -> None:
    """Goal: the plain meaning. Method: in UTC, walk back minute by minute to an entry."""
    minute = datetime.fromtimestamp(now, UTC).replace(second=0, microsecond=0)
    table = Timetable(tuple(entries), UTC)
    while True:
        begun = {
            one.rate for one in entries if one.at == minute.time() and one.day in (None, minute.weekday())
        }
        if begun:
            break
        minute -= timedelta(minutes=1)
    assert table.at(now).rate in begun


@pytest.mark.parametrize(
    ("text", "moment", "rate", "until"),
    [
        ("08:00,5 20:00,none", "2026-11-27T12:00+01:00", 5, "2026-11-27T20:00:00+01:00"),
        ("20:00,none 08:00,5", "2026-11-27T21:00+01:00", None, "2026-11-28T08:00:00+01:00"),
        ("08:00,5;20:00,none", "2026-11-28T07:59+01:00", None, "2026-11-28T08:00:00+01:00"),
        ("Mon-08:00,5 Fri-18:00,none", "2026-11-27T17:59+01:00", 5, "2026-11-27T18:00:00+01:00"),
        ("mon-08:00,5 FRI-18:00,none", "2026-11-29T23:00+01:00", None, "2026-11-30T08:00:00+01:00"),
        ("Mon-08:00,5 18:00,none", "2026-11-24T12:00+01:00", None, "2026-11-30T08:00:00+01:00"),
        # 02:30 is not shown: at 03:00 the clock has passed it.
        ("02:30,5 12:00,none", "2026-03-29T01:59:59+01:00", None, "2026-03-29T03:00:00+02:00"),
        ("02:30,5 12:00,none", "2026-03-29T03:00+02:00", 5, "2026-03-29T12:00:00+02:00"),
        ("02:45,none 02:30,5 12:00,7", "2026-03-29T03:00+02:00", None, "2026-03-29T12:00:00+02:00"),
        # 02:30 is shown twice, and begins once.
        ("02:30,5 12:00,none", "2026-10-25T02:29+02:00", None, "2026-10-25T02:30:00+02:00"),
        ("02:30,5 12:00,none", "2026-10-25T02:10+01:00", 5, "2026-10-25T12:00:00+01:00"),
        ("02:30,5 02:45,none", "2026-10-25T02:40+01:00", None, "2026-10-26T02:30:00+01:00"),
    ],
)
def test_days_midnight_and_clocks_that_are_set(text: str, moment: str, rate: int | None, until: str) -> None:
    """Goal: what the document says. Method: moments around each edge, in Berlin."""
    found = parsed(text).at(at(moment))
    assert (found.rate, shown(found.until)) == (rate, until)


def test_one_rate_for_ever_never_changes() -> None:
    """Goal: no wake-up for nothing. Method: entries of one rate."""
    found = parsed("08:00,5 20:00,5").at(at("2026-11-27T12:00+01:00"))
    assert (found.rate, found.until, found.next_rate) == (5, None, 5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no entry"),
        ("08:00", "'08:00' is no entry"),
        ("8,5", "'8,5' is no entry"),
        ("08:00,5 20:00", "'20:00' is no entry"),
        ("Foo-08:00,5", "'Foo-08:00,5' is no entry"),
        ("24:00,5", "which no clock shows"),
        ("08:60,5", "which no clock shows"),
        ("08:00,5 08:00,6", "two entries for 08:00"),
        ("08:00,5 Mon-8:00,6", "two entries for 08:00"),
    ],
)
def test_what_is_no_timetable_is_told_with_the_form(text: str, said: str) -> None:
    """Goal: the message helps. Method: what people mistype."""
    with pytest.raises(ValueError, match=said):
        parsed(text)


@pytest.mark.parametrize("text", ["08:00,10", "08:00,fast", "08:00,5MB 20:00,1KiB"])
def test_rates_have_the_bounds_of_the_setting(text: str) -> None:
    """Goal: no rate so low that requests run out of time. Method: the setting's own reader."""
    with pytest.raises(ValueError, match=r"least|bytes per second"):
        timetable(text)
    assert timetable("08:00,5MB 20:00,off").entries[1].rate is None
    assert len(DAYS) == 7
