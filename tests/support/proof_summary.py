"""What the proofs amount to, in numbers: told by their tests, summed up after a test run."""

import textwrap
from collections import Counter
from collections.abc import Callable, Mapping

from _pytest.terminal import TerminalReporter

_PROPERTY = "proof"
_WIDTH = 110


#: What pytest's fixture `record_property` is: it attaches a value to a test's report.
Record = Callable[[str, object], None]
#: Adds to a proof's numbers what a test has done for it. Only the numbers of tests that pass count.
Tell = Callable[[str, Mapping[str, int]], None]


def telling(record: Record) -> Tell:
    """Attach what is told to a test's report."""

    def tell(proof: str, counts: Mapping[str, int]) -> None:
        # Plain texts and numbers travel between processes.
        record(_PROPERTY, (str(proof), {str(what): int(count) for what, count in counts.items()}))

    return tell


def summarise(reporter: TerminalReporter) -> None:
    """Write the numbers of each proof of which a test has passed."""
    proofs: dict[str, Counter[str]] = {}
    for report in reporter.stats.get("passed", ()):
        for name, told in report.user_properties:
            if name == _PROPERTY and report.when == "call":
                proof, counts = told
                proofs.setdefault(proof, Counter()).update(counts)
    if proofs:
        reporter.section("proofs, in numbers")
    for proof, counts in proofs.items():
        line = f"{proof}: {', '.join(f'{count} {what}' for what, count in counts.items())}"
        for part in textwrap.wrap(line, _WIDTH, subsequent_indent="    ", break_on_hyphens=False):
            reporter.write_line(part)
