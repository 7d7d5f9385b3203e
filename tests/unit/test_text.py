"""What a text may show: no secret, nothing that a terminal would obey, and all of the rest."""

import ast
import re
import time
from pathlib import Path

import pytest

import pixaris_sync
from pixaris_sync.text import MASK, counted, is_utf8, printable, printable_line, scrub
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


@pytest.mark.parametrize("piece", ["a", "aA", "-----BEGIN A", "a://", "a://b?", "1//", "eyJ", "Bearer "])
def test_a_long_text_takes_time_like_its_length(piece: str) -> None:
    """Goal: an answer cannot hold up the program. Method: one that almost matches, one 8 times as long."""

    def processor_seconds(length: int) -> float:
        text = piece * (length // len(piece))
        begun = time.process_time()
        scrub(text)
        return time.process_time() - begun

    # Time like the square of the length would be 64 times as much.
    assert min(processor_seconds(80_000) for _ in range(2)) < 30 * max(processor_seconds(10_000), 0.001)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("naïve 図 🎨", "naïve 図 🎨"),
        ("two\nlines\r\x85\u2028", r"two\nlines\r\x85\u2028"),
        ("\x1b[2J", r"\x1b[2J"),
        ("photo\u202egnp.exe", r"photo\u202egnp.exe"),
        ("lone\udcff", r"lone\udcff"),
    ],
)
def test_a_line_steers_no_terminal(text: str, shown: str) -> None:
    """Goal: names of files forge no lines. Method: what ends a line or moves a cursor."""
    assert printable_line(text) == shown


def test_what_cannot_be_encoded_can_be_stored_all_the_same() -> None:
    """Goal: a name of odd bytes breaks nothing. Method: with and without a lone surrogate."""
    assert [is_utf8(text) for text in ("図\n", "lone\udcff")] == [True, False]
    assert [printable(text) for text in ("図\n", "lone\udcff")] == ["図\n", r"lone\udcff"]


def test_things_are_counted_in_words_that_fit() -> None:
    """Goal: no "1 runs". Method: none, one and two, with a plain plural and with another."""
    assert [counted(count, "file") for count in range(3)] == ["0 files", "1 file", "2 files"]
    assert [counted(count, "run stays", "runs stay") for count in (1, 2)] == ["1 run stays", "2 runs stay"]


#: What is counted, in the plural.
_NOUNS = (
    "(?:causes|columns|cores|datasets|errors|files|folders|images|lines|objects|problems|processes|records|"
    "requests|rows|runs|seconds|tables|times|transfers|uploads)"
)


def _counts_without_words(source: str) -> list[str]:
    """Texts in which a plural stands behind whatever number there is."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(one.value) if isinstance(one, ast.Constant) else "\0" for one in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value.replace("%d", "\0")
        else:
            continue
        is_statement = re.search(r"\b(FROM|SET|WHERE)\b| = ", text)
        if not is_statement and re.search(rf"\0 (?:\w+ )?{_NOUNS}\b", text):
            found.append(f"{node.lineno}: {text}")
    return found


def test_no_plural_stands_behind_a_number_that_may_be_one() -> None:
    """Goal: no "1 runs" anywhere. Method: all texts of the package with a number before a plural.

    The sandbox stands apart.
    """
    package = Path(pixaris_sync.__file__).parent
    paths = [path for path in sorted(package.rglob("*.py")) if path.parent.name != "sandbox"]
    found = {path.name: _counts_without_words(path.read_text(encoding="utf-8")) for path in paths}
    assert {name: texts for name, texts in found.items() if texts} == {}
    assert len(_counts_without_words('f"{left} runs waiting"; log.info("%d more files", 1)')) == 2
