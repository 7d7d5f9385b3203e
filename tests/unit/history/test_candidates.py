"""How old a run is, by its name, and how ages are told."""

from datetime import UTC, datetime

import pytest

from pixaris_sync.cli.exits import CommandLineError
from pixaris_sync.cli.history import age_seconds
from pixaris_sync.history.candidates import stored_at


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("20260126-161904_x", datetime(2026, 1, 26, 16, 19, 4, tzinfo=UTC)),
        ("20260126-161904_org/model", datetime(2026, 1, 26, 16, 19, 4, tzinfo=UTC)),
        # A day alone is over when the run is as old as asked for.
        ("261126-x", datetime(2026, 11, 27, tzinfo=UTC)),
        ("261126_x", datetime(2026, 11, 27, tzinfo=UTC)),
    ],
)
def test_a_name_tells_when_a_run_was_stored(name: str, at: datetime) -> None:
    """Goal: never older than it is. Method: both forms; at least what it is in UTC."""
    found = stored_at(name)
    assert found is not None
    assert at.timestamp() <= found <= at.timestamp() + 14 * 3600


@pytest.mark.parametrize(
    "name", ["x", "2026", "20261326-161904_x", "269926-x", "20260126-161904", "x_20260126-161904_"]
)
def test_a_name_without_a_time_tells_nothing(name: str) -> None:
    """Goal: what has no age is never pruned. Method: names without one, or with one of no calendar."""
    assert stored_at(name) is None


def test_ages_have_a_number_and_a_unit() -> None:
    """Goal: the documented forms, and no other. Method: each, and what looks like one."""
    assert [age_seconds(text) for text in ("12h", "30d", "2w", "0h")] == [43200, 2592000, 1209600, 0]
    for text in ("", "30", "d", "30 d", "-1d", "1.5d", "30D", "1y", "9999999d", "\N{FULLWIDTH DIGIT THREE}d"):
        with pytest.raises(CommandLineError, match="is no age"):
            age_seconds(text)
