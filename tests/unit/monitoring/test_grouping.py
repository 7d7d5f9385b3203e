"""Problems of one cause stand together."""

import pytest

from pixaris_sync.monitoring.grouping import grouped_problems, shared_text


def problem(run: str, cause: str, *, state: str = "failing", hint: str = "") -> dict[str, str]:
    return {"run": run, "state": state, "cause": cause, "hint": hint}


@pytest.mark.parametrize(
    ("cause", "shared"),
    [
        ("cannot upload object results/p/d/r/a.png: it says 503", "cannot upload object ...: it says 503"),
        ("p/d/r: gone", "...: gone"),
        ("read p/d/r", "read ..."),
        ("of p/d/r and p/d/r/x, twice", "of ... and ... twice"),
        ("about p/d/other", "about p/d/other"),
        ("", ""),
    ],
)
def test_what_differs_by_the_run_is_left_out(cause: str, shared: str) -> None:
    """Goal: a hundred paths are one cause. Method: the run in a path, alone, twice, nowhere."""
    assert shared_text(problem("p/d/r", cause), "cause") == shared


def test_problems_that_differ_by_the_run_alone_are_one_group() -> None:
    """Goal: an outage is one thing to read, what to act on is first. Method: 500 runs, and two others."""
    many = [problem(f"p/d/run {at}", f"cannot read p/d/run {at}/a.png: it is gone") for at in range(500)]
    others = [problem("p/d/x", "late", state="notice"), problem("p/d/y", "bad", state="quarantined")]
    groups = grouped_problems([*others, *many])
    assert [(group[0]["state"], len(group)) for group in groups] == [
        ("quarantined", 1),
        ("failing", 500),
        ("notice", 1),
    ]
