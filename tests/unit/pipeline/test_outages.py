"""Outages: what counts as one, when it begins and when it is over."""

import logging

import pytest

from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.pipeline.outages import Outages

BUCKET, TABLE, OTHER = "the bucket", "p_d_table", "p_e_table"
PATIENCE_SECONDS = 300.0


class Hand:
    """Outages at a time that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.outages = Outages(lambda: self.now, PATIENCE_SECONDS)

    def fails(self, destination: str, failure: Failure = Failure.TRANSIENT) -> None:
        error = SyncError("ask", destination, "no answer", failure=failure)
        self.outages.rests(destination, error, since=self.now - 5, until=self.now + 10)

    def over(self) -> list[tuple[list[str], float]]:
        return [(outage.work, outage.worked_at - outage.since) for outage in self.outages.over()]


@pytest.fixture
def hand(caplog: pytest.LogCaptureFixture) -> Hand:
    caplog.set_level("INFO")
    return Hand()


def test_a_network_that_is_away_is_one_outage(hand: Hand, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: told once, whatever it strikes. Method: bucket and table fail; the table works a minute later."""
    hand.fails(BUCKET)
    hand.fails(TABLE, Failure.IN_DOUBT)
    hand.fails(BUCKET)
    hand.now += 100
    hand.outages.works(BUCKET)
    assert hand.over() == []
    hand.now += 60
    hand.outages.works(TABLE)
    assert hand.over() == [([BUCKET, TABLE], 165.0)]
    assert hand.over() == []
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "the bucket rests: cannot ask the bucket: no answer; it is tried again until it works"
    )
    assert vars(record)["destination"] == BUCKET


def test_what_nobody_tries_again_ends_no_outage_and_hides_none(
    hand: Hand, caplog: pytest.LogCaptureFixture
) -> None:
    """Goal: a table that nothing goes to any more does not matter. Method: it fails, and is left alone."""
    hand.fails(BUCKET)
    hand.fails(TABLE)
    hand.outages.works(BUCKET)
    assert hand.over() == []
    end_at = hand.outages.next_end_at()
    assert end_at == hand.now + 10 + PATIENCE_SECONDS
    hand.now = end_at
    assert hand.over() == [([BUCKET], 5.0)]
    hand.fails(OTHER)
    hand.now += PATIENCE_SECONDS + 11
    hand.fails(BUCKET)
    assert [record.args[0] for record in caplog.records if isinstance(record.args, tuple)] == [
        BUCKET,
        OTHER,
        BUCKET,
    ]


def test_denials_are_told_each(hand: Hand, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: who may do what is a matter of each, and for somebody to act on. Method: two tables deny."""
    for destination in (TABLE, OTHER, TABLE):
        hand.fails(destination, Failure.PERMISSION)
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    hand.now += 55
    hand.outages.works(OTHER)
    assert hand.over() == [([OTHER], 60.0)]


def test_a_pause_ends_when_everything_goes_on(hand: Hand, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: credentials that are refused are told once. Method: two attempts, then it goes on."""
    error = SyncError("upload", "object", "refused", failure=Failure.CREDENTIALS)
    for _ in range(2):
        hand.outages.pauses(BUCKET, error, since=hand.now)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert hand.over() == []
    hand.now += 60
    hand.outages.resumes(TABLE)
    assert hand.over() == [([TABLE], 60.0)]


def test_one_that_begins_again_at_once_is_another(hand: Hand, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: no end is lost, and no beginning. Method: it works and fails again before anybody asks."""
    error = SyncError("upload", "object", "refused", failure=Failure.CREDENTIALS)
    for _ in range(2):
        hand.fails(TABLE)
        hand.outages.works(TABLE)
        hand.outages.pauses(BUCKET, error, since=hand.now)
        hand.outages.resumes(BUCKET)
    assert len(caplog.records) == 4
    assert [work for work, _ in hand.over()] == [[TABLE], [BUCKET]] * 2
