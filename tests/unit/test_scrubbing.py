"""What is taken out of a service's texts, and what must stay."""

import time

import pytest

from pixaris_sync.scrubbing import MASK, scrub
from tests.support.secrets import (
    ACCESS_TOKEN,
    CLIENT_SECRET,
    REFRESH_TOKEN,
    SESSION_ID,
    SIGNED_QUERY,
    private_key,
    secrets_in,
)

JWT = f"eyJhbGciOiJSUzI1NiJ9.{'e' * 80}.{'s' * 80}"


@pytest.mark.parametrize(
    "secret",
    [
        ACCESS_TOKEN,
        f"Bearer {ACCESS_TOKEN}",
        "Bearer opaque",
        REFRESH_TOKEN,
        CLIENT_SECRET,
        JWT,
        private_key(),
        private_key()[:700],
        " ".join(private_key().split()[3:]),
        f"upload_id={SESSION_ID}",
        f"https://storage.googleapis.com/upload?uploadType=resumable&upload_id={SESSION_ID}",
        f"https://storage.googleapis.com/b/o?{SIGNED_QUERY}",
        SIGNED_QUERY,
        f'"access_token": "{ACCESS_TOKEN}"',
        '"private_key": "short"',
        repr(f"https://host/?{SIGNED_QUERY}\n{private_key()}"),
    ],
)
def test_secrets_are_masked_and_the_rest_stays(secret: str) -> None:
    """Goal: the text still tells something. Method: each secret in the middle of a sentence."""
    scrubbed = scrub(f"the request {secret} was refused")
    assert scrubbed.lstrip("'").startswith("the request")
    assert MASK in scrubbed
    assert scrubbed.endswith(MASK if "PRIVATE" in secret and "END" not in secret else "was refused")
    assert secrets_in(scrubbed, "Bearer", "opaque", "short", JWT) == []


@pytest.mark.parametrize(
    "text",
    [
        "Access Denied: Table the-project:dataset.A_1: Permission bigquery.tables.updateData denied on table",
        f"no such field: {'long_column_' * 20}",
        f"Not found: Table the-project:dataset.{'Project-2024_' * 5}experiment_results",
        "see https://cloud.google.com/bigquery/docs/error-messages for details",
        "Quota exceeded: too many table update operations for this table",
        "cannot parse 'Bearers of 1 bad value' as FLOAT64",
    ],
)
def test_what_explains_a_failure_is_left_alone(text: str) -> None:
    """Goal: names and permissions can be read. Method: the kinds of messages that BigQuery gives."""
    assert scrub(text) == text


def test_a_long_text_takes_no_time() -> None:
    """Goal: an answer cannot hold up the program. Method: long texts that almost match."""
    begun = time.process_time()
    for piece in ("a", "aA", "-----BEGIN A", "a://", "a://b?", "1//", "eyJ", "Bearer "):
        scrub(piece * (200_000 // len(piece)))
    assert time.process_time() - begun < 5
