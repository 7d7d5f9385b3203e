"""Ratios to raw clients, their check against what was recorded, and the loop that shares a core."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.benchmarks.busy import busy_loop
from tests.benchmarks.check import WORSE_SHARE, check_table, checks, recorded_cases
from tests.benchmarks.command_line import main
from tests.benchmarks.contenders import CONTENDERS, OBSTORE, OURS, RAW, Place
from tests.benchmarks.cores import choose_cores
from tests.benchmarks.processes import cpu_seconds_of
from tests.benchmarks.results import FREE, SHARED, Case, Run, Spread, ratio_table, ratios
from tests.benchmarks.sets import run_set
from tests.support.waiting import eventually

CASE = Case("A", 50, SHARED)


def run_of(contender: str, repeat: int, wall: float, cpu: float, case: Case = CASE) -> Run:
    return Run(case, contender, repeat, wall, cpu, 1_000_000, 1.0, 0.1)


def rounds(ours: float, case: Case = CASE) -> list[Run]:
    """Three rounds, one of them three times as slow for all; ours takes `ours` times the best of raw."""
    return [
        run
        for repeat, slow in enumerate((1.0, 3.0, 1.0))
        for run in (
            run_of(OURS, repeat, ours * 2.0 * slow, ours * 1.0 * slow, case),
            run_of(f"{RAW}/64", repeat, 4.0 * slow, 1.0 * slow, case),
            run_of(f"{RAW}/128", repeat, 2.0 * slow, 1.5 * slow, case),
            run_of(f"{OBSTORE}/64", repeat, 1.0 * slow, 0.25 * slow, case),
        )
    ]


def test_ratios_are_to_the_best_of_raw_in_the_same_round() -> None:
    """Goal: honest ratios. Method: one number of files at once is best for wall, another for CPU."""
    ours = ratios(rounds(1.5), CASE, OURS)
    assert ours is not None
    assert ours.wall == ours.cpu == Spread(1.5, 1.5, 1.5)
    theirs = ratios(rounds(1.5), CASE, OBSTORE)
    assert theirs is not None
    assert (theirs.wall.median, theirs.cpu.median) == (0.5, 0.25)
    assert ratios(rounds(1.5), Case("A", 50, FREE), OURS) is None
    assert "| A, 50 ms | shared  | 1.50 | 1.50 | 0.50 " in ratio_table(rounds(1.5))


def test_a_round_without_raw_has_no_ratio() -> None:
    """Goal: nothing is compared across rounds. Method: raw ran in the first round, ours in the second."""
    assert ratios([run_of(f"{RAW}/64", 0, 1, 1), run_of(OURS, 1, 1, 1)], CASE, OURS) is None
    assert not recorded_cases([run_of(OURS, 1, 1, 1)])
    assert ratio_table([run_of(OURS, 1, 1, 1)]) == ""


@pytest.mark.parametrize(("factor", "is_worse"), [(0.5, False), (1.14, False), (1.16, True), (4.0, True)])
def test_what_is_more_than_15_percent_above_the_recorded_ratio_is_worse(
    factor: float, *, is_worse: bool
) -> None:
    """Goal: the check can fail, and does so at its limit only. Method: ratios around it."""
    assert WORSE_SHARE == 0.15
    found = list(checks(rounds(1.4), rounds(1.4 * factor)))
    assert [(check.case, check.kind) for check in found] == [(CASE, "wall"), (CASE, "CPU")]
    assert [check.is_worse for check in found] == [is_worse] * 2
    table = check_table(found)
    assert f"| shared  | wall | 1.40     | {1.4 * factor:.2f} " in table
    assert f"{2 * is_worse} of 2 ratios" in table


def test_settings_are_checked_apart() -> None:
    """Goal: one setting hides nothing of another. Method: only the free machine became worse."""
    free = replace(CASE, setting=FREE)
    found = list(checks(rounds(1.4) + rounds(1.4, free), rounds(1.4) + rounds(2.0, free)))
    assert [(check.case.setting, check.is_worse) for check in found] == [
        *((SHARED, False), (SHARED, False), (FREE, True), (FREE, True)),
    ]


def test_who_shares_a_core_is_not_quiet(tmp_path: Path) -> None:
    """Goal: like is compared with like. Method: how pixaris-sync is started in both settings."""
    runs = run_set("tiny", tmp_path, bucket="a-bucket")
    for is_shared in (False, True):
        command = CONTENDERS[OURS].command(Place(runs, "http://localhost", tmp_path, 0, is_shared))
        assert ("--no-quiet" in command) == is_shared


def test_the_loop_computes_on_its_core_until_the_block_ends() -> None:
    """Goal: a core is really shared, and free again. Method: the kernel is asked."""
    core = choose_cores().client
    with busy_loop(core) as loop:
        assert os.sched_getaffinity(loop.pid) == {core}
        assert os.getpriority(os.PRIO_PROCESS, loop.pid) == os.getpriority(os.PRIO_PROCESS, 0)
        before = cpu_seconds_of(loop.pid)
        eventually(lambda: cpu_seconds_of(loop.pid) > before + 0.05, "it computes")
    assert loop.returncode == 0


def test_the_loop_ends_with_a_benchmark_that_is_killed() -> None:
    """Goal: no loop is left behind. Method: SIGKILL for who started it, which can do nothing any more."""
    program = (
        "import time\nfrom tests.benchmarks.busy import busy_loop\n"
        f"with busy_loop({choose_cores().client}) as loop:\n"
        "    print(loop.pid, flush=True)\n    time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as benchmark:
        assert benchmark.stdout is not None
        pid = int(benchmark.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        benchmark.send_signal(signal.SIGKILL)
    eventually(lambda: not _computes(pid), "the loop has ended")


def _computes(pid: int) -> bool:
    """Whether a process is there; where nobody waits for orphans, they stay behind as zombies."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_record_without_ratios_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: a check that compares nothing does not pass. Method: a record without raw clients, and none."""
    recorded = tmp_path / "recorded.json"
    machine = {"cores": 2, "system": "Linux", "machine": "x86_64", "python": "3.11.0"}
    recorded.write_text(json.dumps({"machine": machine, "runs": [asdict(run_of(OURS, 0, 1, 1))]}))
    arguments = ["--cache", str(tmp_path), "--check", "--recorded"]
    assert main([*arguments, str(recorded)]) == 1
    assert "has no case" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, str(tmp_path / "missing.json")])
    assert "no file" in capsys.readouterr().err


@pytest.mark.large
def test_the_check_measures_what_is_recorded_and_fails_when_it_is_worse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: `--check` is what a release waits for. Method: a tiny set, recorded slower, then faster."""
    tiny = Case("tiny", 0, SHARED)
    recorded = tmp_path / "recorded.json"
    machine = {"cores": 2, "system": "Linux", "machine": "x86_64", "python": "3.11.0"}
    for ours, code in ((1000.0, 0), (0.001, 1)):
        runs = [asdict(run) for run in rounds(ours, tiny)]
        recorded.write_text(json.dumps({"machine": machine, "runs": runs}))
        arguments = ["--cache", str(tmp_path), "--check", "--recorded", str(recorded), "--repeats", "1"]
        assert main(arguments) == code
        assert f"{2 * code} of 2 ratios" in capsys.readouterr().out
