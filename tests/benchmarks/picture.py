"""Draws the standings: one panel of bars a case, readable on light and dark pages."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from tests.benchmarks.contenders import OURS
from tests.benchmarks.results import FREE, Case, Run, Standing, standings

_WIDTH = 760
_LABEL_WIDTH = 170
_BAR_WIDTH = 400
_ROW_HEIGHT = 22
_HEAD_HEIGHT = 34
_GAP = 18
_MARGIN = 16
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.h{font-weight:600}.o{fill:#0969da}.b{fill:#a8b1bb}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.o{fill:#4493f8}.b{fill:#57606a}}"
)


def draw(path: Path, runs: Sequence[Run], descriptions: Mapping[str, str]) -> None:
    """Write an SVG of all cases, on the free machine if there are any.

    Args:
        path: where to.
        runs: what was measured.
        descriptions: of each case's set, by the case's `what`.
    """
    parts: list[str] = []
    top = _MARGIN
    cases = dict.fromkeys(run.case for run in runs)
    for case in [case for case in cases if case.setting == FREE] or cases:
        found = sorted(standings(runs, case), key=lambda standing: standing.wall.median)
        parts += _panel(case, found, descriptions[case.what], top)
        top += _HEAD_HEIGHT + len(found) * _ROW_HEIGHT + _GAP
    parts.append(_text(_MARGIN, top, "Wall seconds, whole process, median; shorter is better."))
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + _MARGIN}" '
        f'width="{_WIDTH}" role="img" aria-label="Wall time of pixaris-sync and others">'
        f"<style>{_STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def _panel(case: Case, found: Sequence[Standing], described: str, top: float) -> list[str]:
    parts = [_text(_MARGIN, top + 14, case.title(described), "h")]
    longest = max(standing.wall.median for standing in found)
    for number, standing in enumerate(found):
        y = top + _HEAD_HEIGHT + number * _ROW_HEIGHT - 8
        width = max(1.0, standing.wall.median / longest * _BAR_WIDTH)
        kind = "o" if standing.contender == OURS else "b"
        label = f"{standing.wall.median:.2f} s"
        if standing.wall_ratio and standing.contender != OURS:
            label += f"  ({standing.wall_ratio.median:.2g}x)"
        begin = _MARGIN + _LABEL_WIDTH
        parts += [
            _text(_MARGIN, y + 12, standing.contender, "h" if kind == "o" else ""),
            f'<rect class="{kind}" x="{begin}" y="{y}" width="{width:.1f}" height="15" rx="2"/>',
            _text(begin + width + 6, y + 12, label),
        ]
    return parts


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    attribute = f' class="{kind}"' if kind else ""
    return f'<text{attribute} x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
