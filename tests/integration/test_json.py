"""What commands print for machines where they fail. What else they print is checked wherever they run."""

import pytest

from tests.support.command_line import CommandLine


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(("status",), 4, id="nothing was ever synced"),
        pytest.param(("retry",), 2, id="of the command line, by us"),
        pytest.param(("sync", "--nonsense"), 2, id="of the command line, by typer"),
        pytest.param(("limit", "--bandwidth-limit", "much"), 4, id="a value is refused"),
        pytest.param(("backfill", "--gcp-pixaris-bucket-name", "nowhere"), 4, id="no such bucket"),
    ],
)
def test_an_error_is_a_document_beside_its_words(
    command_line: CommandLine, arguments: tuple[str, ...], code: int
) -> None:
    """Goal: `| jq` works whatever happens. Method: errors of each kind; one document, the words, the code."""
    outcome = command_line.run(*arguments, "--json")
    assert outcome.code == code, str(outcome)
    error = outcome.document["error"]
    assert error["exit_code"] == code
    assert error["cause"] in outcome.stderr
    assert error["hint"] in outcome.stderr or error["operation"] == "understand"
