"""Wishes for other limits, and the answers to them, in files."""

import re
from pathlib import Path

import pytest
from msgspec import structs

from pixaris_sync.errors import ConfigurationError
from pixaris_sync.process.live_limits import InForce, LimitFiles, LiveLimits, Wish

LIMITS = LiveLimits(bandwidth_limit_bytes_per_second=1_000_000, max_cpu_percent=50)
WISH = Wish(max_cpu_percent=50.0)


@pytest.fixture
def files(tmp_path: Path) -> LimitFiles:
    return LimitFiles(tmp_path / "ledger.sqlite3")


def test_what_is_in_force_is_read_as_it_was_told(files: LimitFiles) -> None:
    """Goal: `limit` shows the truth. Method: before, while and after somebody listens."""
    assert files.in_force() is None
    files.publish(InForce(pid=7, limits=LIMITS))
    assert files.in_force() == InForce(pid=7, limits=LIMITS)
    files.clear()
    assert files.in_force() is None


def test_a_wish_says_only_what_is_to_change(files: LimitFiles) -> None:
    """Goal: two wishes at the same time both hold. Method: what is set in each is all that is read."""
    files.ask(Wish(max_cpu_percent=None))
    found = files.wanted()
    assert found is not None
    assert found == Wish(max_cpu_percent=None)
    assert found.limits == {"max_cpu_percent": None}


def test_a_wish_that_comes_while_another_is_answered_is_not_lost(files: LimitFiles) -> None:
    """Goal: no race between two commands. Method: the second between reading and answering the first."""
    files.ask(Wish(max_cpu_percent=10))
    files.wanted()
    files.ask(Wish(max_cpu_percent=20))
    files.answered()
    assert files.is_asked()
    found = files.wanted()
    assert found is not None
    assert found.max_cpu_percent == 20
    files.answered()
    assert not files.is_asked()


def test_a_wish_counts_as_open_until_it_is_answered(files: LimitFiles) -> None:
    """Goal: who waits for the answer sees it in force. Method: ask at each step."""
    assert not files.is_asked()
    files.ask(WISH)
    assert files.is_asked()
    files.wanted()
    assert files.is_asked()
    files.answered()
    assert not files.is_asked()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"max_cpu_percent": 0}',
        b'{"max_cpu_percent": 0.5}',
        b'{"max_cpu_percent": 10, "bandwidth_limit_bytes_per_second": "fast"}',
        b'{"other": 1}',
        b'{"bandwidth_limit_bytes_per_second": 1}',
    ],
)
def test_a_wish_that_cannot_be_is_logged_and_answered(
    files: LimitFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """Goal: a bad file changes nothing. Method: what no command of ours writes."""
    (tmp_path / "ledger.limits.wanted.json").write_bytes(content)
    assert files.wanted() is None
    assert "limits stay as they are" in caplog.text
    files.answered()
    assert not files.is_asked()


def test_a_signal_without_a_wish_changes_nothing(files: LimitFiles, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: a stray signal is harmless. Method: read where nothing is."""
    assert files.wanted() is None
    assert "limits stay as they are" in caplog.text


def test_what_a_process_before_has_left_is_removed(files: LimitFiles, tmp_path: Path) -> None:
    """Goal: a limit lasts as long as its process. Method: all files, then a fresh start."""
    files.publish(InForce(pid=7, limits=LIMITS))
    files.ask(WISH)
    files.wanted()
    files.ask(WISH)
    files.clear()
    assert list(tmp_path.iterdir()) == []


def test_a_wish_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """Goal: exit 4 with a hint. Method: a state folder that is none."""
    (tmp_path / "state").write_bytes(b"")
    with pytest.raises(ConfigurationError) as refusal:
        LimitFiles(tmp_path / "state" / "ledger.sqlite3").ask(WISH)
    assert refusal.value.hint


def test_who_cannot_tell_what_is_in_force_works_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: a full disk ends no pass. Method: as above, for the owner."""
    (tmp_path / "state").write_bytes(b"")
    LimitFiles(tmp_path / "state" / "ledger.sqlite3").publish(InForce(pid=7, limits=LIMITS))
    assert "cannot be changed" in caplog.text


def test_limits_are_shown_in_words() -> None:
    """Goal: one line for the log. Method: some and none."""
    some = InForce(pid=7, limits=LIMITS, rate=1_000_000)
    assert str(some) == "bandwidth limit: 976.6 KiB/s; processor limit: 50 % of one core"
    assert str(InForce(pid=7, limits=LiveLimits())) == "bandwidth limit: none; processor limit: none"
    changing = structs.replace(some, rate_until=1_800_000_000.0, next_rate=None)
    assert re.match(r"bandwidth limit: 976\.6 KiB/s until \w{3} \d\d:\d\d, then none; ", str(changing))
