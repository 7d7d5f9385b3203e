"""Whether pixaris-sync has become slower than what was recorded, beside what does nothing but send files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.benchmarks.contenders import OURS
from tests.benchmarks.results import Case, Run, Spread, ratios, table_lines

#: A ratio so much above the recorded one is worse; less is noise.
WORSE_SHARE: Final = 0.15


@dataclass(frozen=True, slots=True)
class Check:
    """A ratio then and now: of ``wall`` time or of ``CPU`` time."""

    case: Case
    kind: str
    recorded: Spread
    now: Spread

    @property
    def is_worse(self) -> bool:
        """Whether it is more than `WORSE_SHARE` above the recorded one."""
        return self.now.median > self.recorded.median * (1 + WORSE_SHARE)


def recorded_cases(runs: Sequence[Run]) -> list[Case]:
    """The cases that have ratios of pixaris-sync."""
    return [case for case in dict.fromkeys(run.case for run in runs) if ratios(runs, case, OURS)]


def checks(recorded: Sequence[Run], now: Sequence[Run]) -> Iterator[Check]:
    """Each ratio of pixaris-sync that is in both."""
    for case in recorded_cases(recorded):
        before, after = ratios(recorded, case, OURS), ratios(now, case, OURS)
        if before is not None and after is not None:
            yield Check(case, "wall", before.wall, after.wall)
            yield Check(case, "CPU", before.cpu, after.cpu)


def check_table(found: Sequence[Check]) -> str:
    """What was checked as text that is Markdown too, and how many ratios are worse."""
    head = ("case", "setting", "of", "recorded", "now", "")
    rows = [
        (*check.case.named(), check.kind, check.recorded.text(), check.now.text(), "worse" * check.is_worse)
        for check in found
    ]
    worse = sum(check.is_worse for check in found)
    summary = f"{worse} of {len(found)} ratios more than {WORSE_SHARE:.0%} above the recorded one"
    return "\n".join([*table_lines([head, *rows]), "", summary])
