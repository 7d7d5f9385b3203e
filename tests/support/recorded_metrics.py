"""Metrics of a real process, recorded while it works, and played to Prometheus' own judgement of rules.

A process that writes its textfile some dozen times a second is recorded; each writing then stands for a
scrape, one minute after the other. So hours are recorded in seconds, with the values that the process told.
The moments among them are moved along.
"""

import bisect
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.support.command_line import TIMEOUT_SECONDS, CommandLine
from tests.support.prometheus import promtool

#: A scrape stands for so many seconds.
SCRAPE_SECONDS: Final = 60
_EXPOSED: Final = "pixaris_sync_exposed_timestamp_seconds"
_MOMENT: Final = "_timestamp_seconds"
#: Runs the command that it is given, in a hurry to tell how it is.
_HASTY: Final = """
import sys
from pixaris_sync.monitoring import heartbeat, textfile
textfile.LOOK_SECONDS, textfile.AGE_SECONDS_MAX = float(sys.argv.pop(1)), 0.0
heartbeat.LOOK_SECONDS = heartbeat.INTERVAL_SECONDS = 0.1
from pixaris_sync.cli import main
sys.argv = ["pixaris-sync", *sys.argv[4:]]
main()
"""

Frame = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


def hasty(command_line: CommandLine, look_seconds: float = 0.02) -> CommandLine:
    """The same command line, whose processes tell how they are all the time."""
    return command_line.within(sys.executable, "-c", _HASTY, str(look_seconds))


def parsed(text: str) -> Frame:
    """The values of metrics, by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Recording:
    """What a process told, scrape by scrape.

    Args:
        path: of the textfile.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._frames: list[Frame] = []
        self._exposed: list[float] = []

    def __len__(self) -> int:
        return len(self._frames)

    def record(self, scrapes: int, until: Callable[[Frame], object] = lambda _: True) -> None:
        """Record so many scrapes that fulfil a condition, with those that come before the first of them."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while scrapes > 0:
            assert time.monotonic() < deadline, f"not told in time; the last: {self._frames[-1:]}"
            frame = parsed(self._path.read_text(encoding="utf-8")) if self._path.exists() else {}
            [exposed] = [value for (name, _), value in frame.items() if name == _EXPOSED] or [0.0]
            if exposed <= (self._exposed or [0.0])[-1]:
                time.sleep(0.005)
                continue
            self._frames.append(frame)
            self._exposed.append(exposed)
            scrapes -= bool(until(frame))

    def series(self, *, answers: int, scraped: bool) -> dict[str, list[float | None]]:
        """Each series as Prometheus would have it; None: it is gone.

        Args:
            answers: how many scrapes more there are after the end of the process.
            scraped: the process itself is asked, and does not answer then; else its textfile is read, and
                stays as it is.
        """
        found: dict[str, list[float | None]] = {}
        labels = {"job": "pixaris-sync" if scraped else "node", "instance": "machine"}
        frames = [*self._frames, *([{}] if scraped else self._frames[-1:]) * answers]
        for at, frame in enumerate(frames):
            for (name, own), value in frame.items():
                if abs(value) == float("inf"):
                    continue  # promtool knows no way to write it.
                pairs = ",".join(f"{key}={json.dumps(text)}" for key, text in {**labels, **dict(own)}.items())
                values = found.setdefault(f"{name}{{{pairs}}}", [None] * len(frames))
                values[at] = self._moved(value) if name.endswith(_MOMENT) else value
        up = [1.0] * len(self._frames) + [0.0 if scraped else 1.0] * answers
        found[f"up{{job={json.dumps(labels['job'])},instance={json.dumps(labels['instance'])}}}"] = [*up]
        return found

    def _moved(self, moment: float) -> float:
        """When something happened, in the time of the scrapes."""
        exposed = self._exposed
        at = min(max(bisect.bisect_left(exposed, moment), 1), len(exposed) - 1)
        before, after = exposed[at - 1], exposed[at]
        return SCRAPE_SECONDS * (at - 1 + (moment - before) / (after - before))


def check_alerts(
    rules: Path, series: Mapping[str, Sequence[float | None]], expected: set[str], scratch: Path
) -> None:
    """Let Prometheus judge the rules over series: exactly the `expected` alerts fire at some time."""
    scrapes = max(map(len, series.values()))
    end = f"{SCRAPE_SECONDS * scrapes}s"
    test: dict[str, Any] = {
        "interval": f"{SCRAPE_SECONDS}s",
        "input_series": [
            {"series": name, "values": " ".join(_word(values, at) for at in range(len(values)))}
            for name, values in series.items()
        ],
        "promql_expr_test": [
            {
                "expr": 'group by (alertname) (max_over_time(ALERTS{alertstate="firing"}[30d]))',
                "eval_time": end,
                "exp_samples": [
                    {"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(expected)
                ],
            },
            {
                # Where nothing was judged, nothing fires.
                "expr": "max(max_over_time(pixaris_sync_at_work[30d]))",
                "eval_time": end,
                "exp_samples": [{"labels": "{}", "value": 1}],
            },
        ],
    }
    path = scratch / "recorded.yml"
    document = {"rule_files": [str(rules)], "evaluation_interval": f"{SCRAPE_SECONDS}s", "tests": [test]}
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    judged = subprocess.run(
        [promtool(), "test", "rules", str(path)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout + judged.stderr


def _word(values: Sequence[float | None], at: int) -> str:
    """A value in promtool's notation: `_` where there is none, `stale` where it has just gone."""
    value = values[at]
    if value is not None:
        return repr(value)
    return "stale" if at and values[at - 1] is not None else "_"
