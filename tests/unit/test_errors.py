"""The one root error."""

import pytest

from pixaris_sync.errors import ConfigurationError, Failure, LocalFileError, SyncError


@pytest.mark.parametrize(
    ("kind", "failure", "expected"),
    [
        *((SyncError, failure, failure is Failure.CREDENTIALS) for failure in Failure),
        *((ConfigurationError, failure, True) for failure in Failure),
        (LocalFileError, Failure.PERMANENT, False),
    ],
)
def test_an_error_stops_everything_where_it_is_about_everything(
    kind: type[SyncError], failure: Failure, *, expected: bool
) -> None:
    """Goal: one bad run stops no other, bad credentials stop all. Method: each kind of failure."""
    assert kind("upload", "object", "cause", failure=failure).stops_everything is expected
