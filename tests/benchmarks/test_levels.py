"""The measurement of levels of concurrency: what it makes of uploads, and that it runs."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.benchmarks.cloud import SeenUploads
from tests.benchmarks.command_line import main
from tests.benchmarks.levels import LevelCase, LevelRun, Rates, levels_text, rates, verdict
from tests.benchmarks.server import uploads
from tests.benchmarks.server.uploads import Uploads

CASE = LevelCase("A", 50)


def test_the_second_half_counts_until_the_last_upload_begins() -> None:
    """Goal: neither the search for a level nor the end bends the rate. Method: a slow start, an even half.

    Two at a time, ten uploads end a second apart and ten a tenth of it; the last begins at the 18th end.
    """
    ends = [float(number) for number in range(1, 11)] + [10 + number / 10 for number in range(1, 11)]
    ended = tuple((at, 2 * at) for at in ends)
    found = rates(SeenUploads(0.0, ended[17][0], ended, 0, 6.6), until=100.0)
    assert found.steady == pytest.approx(10)
    assert found.level == pytest.approx(2)
    assert found.whole == pytest.approx(20 / 11)
    assert found.server_share == pytest.approx(0.6)


def test_what_arrives_after_a_run_was_ended_does_not_count() -> None:
    """Goal: a drain is no rate. Method: uploads that go on for as long again, ten times as slowly."""
    ended = tuple((at, at) for at in [*range(1, 11), *range(20, 110, 10)])
    seen = SeenUploads(0.0, 10.0, tuple((float(at), float(seconds)) for at, seconds in ended), 0, 1)
    assert rates(seen, until=10.0).steady == pytest.approx(1)


@pytest.mark.parametrize("ended", [(), ((1.0, 1.0),), ((1.0, 1.0), (1.0, 1.0))])
def test_too_few_uploads_have_no_rate(ended: tuple[tuple[float, float], ...]) -> None:
    """Goal: no number out of nothing. Method: none, one, two at the same time."""
    with pytest.raises(ValueError, match="too few"):
        rates(SeenUploads(0.0, 5.0, ended, 0, 1), until=10.0)


def test_its_own_level_is_compared_with_the_best_within_a_round() -> None:
    """Goal: a noisy round bends nothing. Method: two rounds, one half as fast for all; the best is 64."""
    runs = [
        LevelRun(CASE, fixed, repeat, 10, Rates(rate / 2 * noise, rate * noise, fixed or 50, share), 3)
        for repeat, noise in enumerate((1.0, 0.5))
        for fixed, rate, share in ((None, 950.0, 0.5), (32, 600.0, 0.5), (64, 1000.0, 0.9))
    ]
    judged = verdict(runs, CASE)
    assert judged.best == 64
    assert (judged.ratio.least, judged.ratio.most) == (0.95, 0.95)
    assert judged.whole_ratio.median == 0.95
    text = levels_text(runs)
    assert "| 64! " in text
    assert "| its own " in text
    assert "0.95 times the files/s of the best one held, 64" in text


def test_the_server_takes_down_uploads_and_refuses_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: true numbers. Method: three uploads overlap where two are taken; time is passed in."""
    now = 100.0
    monkeypatch.setattr(uploads, "time", SimpleNamespace(monotonic=lambda: now, process_time=lambda: now / 2))
    book = Uploads(at_once=2)
    assert book.begin()
    now = 101.0
    assert book.begin()
    now = 102.0
    assert not book.begin()
    book.end(stored=False)
    book.end(stored=True)
    now = 104.0
    assert book.begin()
    book.end(stored=False)
    book.end(stored=True)
    told = book.told()
    assert told["cpu_seconds"] == 2.0
    assert (told["began_at"], told["last_began_at"], told["refused"]) == (100.0, 104.0, 1)
    assert [(at, seconds - told["ended"][0][1]) for at, seconds in told["ended"]] == [(102.0, 0), (104.0, 2)]


@pytest.mark.large
def test_levels_are_held_found_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: the measurement does not rot. Method: a tiny set, copied, at two levels and its own.

    How many uploads are under way never exceeds a level that is held; on a busy machine there are fewer.
    """
    told = tmp_path / "levels.json"
    arguments = ["levels", "--cache", str(tmp_path), "--cases", "tiny:20", "--fixed", "1,3", "--files", "60"]
    assert main([*arguments, "--json", str(told)]) == 0
    document = json.loads(told.read_text())
    found = {run["fixed"]: run for run in document["runs"]}
    assert found.keys() == {None, 1, 3}
    assert all(run["files"] == 60 for run in found.values())
    assert 0 < found[1]["rates"]["level"] <= 1.01
    assert 0 < found[3]["rates"]["level"] <= 3.01
    assert document["verdicts"][0]["best"] in (1, 3)
    assert f"| {found[3]['rates']['steady']:.0f} " in capsys.readouterr().out


@pytest.mark.large
def test_a_service_that_refuses_is_measured(tmp_path: Path) -> None:
    """Goal: push-back is seen. Method: one upload at a time is taken, eight are held; a run is cut short."""
    told = tmp_path / "levels.json"
    arguments = ["levels", "--cache", str(tmp_path), "--cases", "tiny:20:1", "--fixed", "8", "--files", "60"]
    assert main([*arguments, "--seconds", "8", "--json", str(told)]) == 0
    runs = json.loads(told.read_text())["runs"]
    assert all(run["refused"] > 0 for run in runs)
