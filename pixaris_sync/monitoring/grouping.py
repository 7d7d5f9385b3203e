"""Problems for people: those of one cause together, what somebody must act on first."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pixaris_sync.text import without_run

#: A `ledger.overview.ProblemRun` as a mapping, whatever its times are written as.
Problem = Mapping[str, Any]

#: What somebody must act on comes first, what is worth to know last.
_STATES_IN_ORDER: Final = ("quarantined", "incomplete", "failing")


def grouped_problems(problems: Iterable[Problem]) -> Sequence[Sequence[Problem]]:
    """Problems that differ by nothing but the run, together."""
    groups: defaultdict[tuple[str, str, str], list[Problem]] = defaultdict(list)
    for problem in problems:
        groups[problem["state"], shared_text(problem, "cause"), shared_text(problem, "hint")].append(problem)
    order = {state: place for place, state in enumerate(_STATES_IN_ORDER)}
    return sorted(groups.values(), key=lambda group: order.get(group[0]["state"], len(order)))


def shared_text(problem: Problem, part: str) -> str:
    """A cause or hint with ``...`` in the place of the run, and of the path or object that it stands in."""
    return without_run(problem[part], problem["run"])
