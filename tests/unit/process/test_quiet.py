"""What a process holds to: rates of a timetable, and pauses, in virtual time."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pixaris_sync.pipeline.hold import Hold
from pixaris_sync.process.live_limits import Wish
from pixaris_sync.process.quiet import Throttle
from pixaris_sync.settings.model import Settings
from tests.fakes.virtual_clock import VirtualClock


def _throttle(folder: Path, clock: VirtualClock, limit: str | None) -> Throttle:
    settings = Settings(
        gcp_project_id="gcp",
        gcp_bq_experiment_dataset="gcp.pixaris",
        gcp_pixaris_bucket_name="bucket",
        bandwidth_limit_bytes_per_second=limit,
    )
    return Throttle(settings, folder / "ledger.sqlite3", clock)


def test_the_rate_changes_when_it_is_time(tmp_path: Path) -> None:
    """Goal: handlers, which do not listen, keep to the timetable. Method: ask as each piece of work does."""
    noon = datetime(2026, 11, 27, 12, 0)  # noqa: DTZ001 - of this machine
    clock = VirtualClock(noon.timestamp())
    throttle = _throttle(tmp_path, clock, "08:00,5MB 20:00,none")
    assert throttle.in_force.rate == 5_000_000
    assert throttle.in_force.rate_until == (noon + timedelta(hours=8)).timestamp()

    def rate_after(seconds: float) -> int | None:
        clock.let_pass(seconds)
        assert throttle.throttle_seconds() == 0.0
        return throttle.in_force.rate

    assert rate_after(8 * 3600 - 1) == 5_000_000
    assert rate_after(1) is None
    assert rate_after(12 * 3600) == 5_000_000


def test_a_wish_replaces_the_timetable_and_pauses(tmp_path: Path) -> None:
    """Goal: what is set by hand holds. Method: wishes as files, and what is in force after each."""
    clock = VirtualClock()
    throttle = _throttle(tmp_path, clock, "08:00,5MB 20:00,1MB")
    for wish in (
        Wish(bandwidth_limit_bytes_per_second="2MB"),
        Wish(paused=True, pause_seconds=60.0),
    ):
        throttle._files.ask(wish)
        throttle._change()
    clock.let_pass(24 * 3600)
    throttle.throttle_seconds()
    in_force = throttle.in_force
    assert (in_force.rate, in_force.rate_until) == (2_000_000, None)
    assert in_force.paused_until == in_force.paused_since + 60.0 if in_force.paused_since else False
    throttle._files.ask(Wish(paused=False))
    throttle._change()
    assert throttle.in_force.paused_since is None


@pytest.mark.anyio
async def test_a_hold_lets_go_who_waits() -> None:
    """Goal: no task waits for ever. Method: no pause, one that ends, and an end of all."""
    hold = Hold()
    await hold.released()
    hold.begin(1.0)
    hold.begin(2.0, until=9.0)
    assert (hold.since, hold.until) == (1.0, 9.0)
    await hold.released(lambda: True)
    hold.end()
    await hold.released()
    assert hold.under_way == 0
