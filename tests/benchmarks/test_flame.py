"""Profiles: what counts as work, what it is for, and how it is drawn."""

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import pixaris_sync
from tests.benchmarks import flame, parts
from tests.benchmarks.command_line import main
from tests.benchmarks.flame import flame_graph, small_flame_graph, summary, working_stacks
from tests.benchmarks.parts import (
    HTTP,
    LEDGER,
    PARTS,
    READING,
    REST,
    ROWS,
    SCAN,
    START,
    Stacks,
    by_part,
    part_of,
    parts_table,
)

PACKAGE = Path(pixaris_sync.__file__).parent
MAIN = ("_run_module_as_main (<frozen runpy>)", "main (pixaris_sync/cli/app.py)")
LOOP = (
    *(*MAIN, "work_as_owner (pixaris_sync/process/wiring.py)", "carry (pixaris_sync/cli/passes.py)"),
    "BaseEventLoop._run_once (asyncio/base_events.py)",
)


def test_a_profile_leaves_out_threads_that_wait() -> None:
    """Goal: profiles show work. Method: stacks of work and of waiting; the graph and the table know one."""
    collapsed = (
        "run (pixaris_sync/a.py);digest (x.py) 30\nThread.run (t.py);Condition.wait (threading.py) 900\n 7"
    )
    stacks = working_stacks(collapsed)
    assert stacks == {("run (pixaris_sync/a.py)", "digest (x.py)"): 30}
    assert "100.0%  pixaris_sync/a.py" in summary(stacks, "A")
    assert "digest (x.py): 30 samples, 100.0%" in "".join(ET.fromstring(flame_graph(stacks)).itertext())  # noqa: S314 - written above


@pytest.mark.parametrize(
    ("frames", "part"),
    [
        (MAIN, START),
        (
            (*LOOP, "f (pixaris_sync/pipeline/lane.py)", "_find_and_load (<frozen importlib._bootstrap>)"),
            START,
        ),
        ((*LOOP, "f (pixaris_sync/settings/model.py)", "f (msgspec/structs.py)"), START),
        ((*LOOP, "f (pixaris_sync/gcs/inspection.py)"), START),
        ((*LOOP, "f (pixaris_sync/pipeline/uploads.py)", "f (pixaris_sync/gcs/calls.py)", "f (x.py)"), HTTP),
        ((*LOOP, "Handle._run (asyncio/events.py)", "f (aiohttp/client_proto.py)"), HTTP),
        ((*LOOP, "_SelectorSocketTransport._read_ready (asyncio/selector_events.py)"), HTTP),
        ((*MAIN, "in_event_loop (pixaris_sync/process/service.py)", "Runner.run (asyncio/runners.py)"), HTTP),
        (("Thread.run (threading.py)", "f (pixaris_sync/ledger/rows.py)"), LEDGER),
        (("Thread.run (threading.py)", "f (pixaris_sync/local/contents.py)", "f (zlib.py)"), READING),
        ((*LOOP, "f (pixaris_sync/pipeline/discovery.py)", "f (pixaris_sync/local/run_folder.py)"), SCAN),
        ((*LOOP, "f (pixaris_sync/bigquery/sink.py)", "f (aiohttp/client.py)"), ROWS),
        ((*LOOP, "f (pixaris_sync/ledger/rows.py)", "f (pixaris_sync/text.py)"), REST),
        (LOOP, REST),
        (("Thread.run (threading.py)", "f (x.py)"), REST),
    ],
)
def test_the_innermost_module_says_what_work_is_for(frames: tuple[str, ...], part: str) -> None:
    """Goal: a table by part that can be checked. Method: stacks of each kind."""
    assert part_of(frames) == part


def test_what_parts_are_told_by_is_in_the_package() -> None:
    """Goal: a module that is renamed does not slip into the rest. Method: each name against the modules."""
    modules = [str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")]
    for begin in (*parts._PART_OF, *parts._RUNNERS):
        assert any(module.startswith(begin) for module in modules), begin


def test_shares_are_told_in_microseconds_a_file() -> None:
    """Goal: parts add up to what was measured without the profiler. Method: four samples in two parts."""
    stacks: Stacks = {("f (pixaris_sync/gcs/calls.py)",): 3, ("f (pixaris_sync/ledger/rows.py)",): 1}
    assert by_part(stacks) == {part: {HTTP: 0.75, LEDGER: 0.25}.get(part, 0) for part in PARTS}
    table = parts_table(stacks, cpu_seconds=2.0, files=1_000).splitlines()
    cells = {row.split("|")[1].strip(): row.split("|")[2].strip() for row in table}
    assert (cells[HTTP], cells[LEDGER], cells[ROWS], cells["all"]) == ("1500", "500", "0", "2000")


def test_a_picture_for_a_document_is_small_and_keeps_what_is_wide() -> None:
    """Goal: pictures that may lie beside documents. Method: many stacks, of which one is half of all."""
    stacks = {
        (
            "_find_and_load (<frozen importlib._bootstrap>)",
            *(f"function_{number >> bit & 3} (a/module_{bit}.py)" for bit in range(0, 12, 2)),
        ): 1 + number % 7
        for number in range(4_096)
    }
    stacks[("wide (pixaris_sync/a.py)",)] = sum(stacks.values())
    drawn = small_flame_graph(stacks)
    assert len(flame_graph(stacks)) > 60_000 >= len(drawn)
    picture = ET.fromstring(drawn)  # noqa: S314 - drawn above
    titles = [element.text or "" for element in picture.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) > 80
    assert "importlib" not in drawn
    assert any(title.startswith("wide (pixaris_sync/a.py)") and title.endswith("50.0%") for title in titles)


@pytest.mark.large
def test_a_pass_is_profiled_by_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the measurement does not rot. Method: a tiny set once; what is told and drawn."""
    if not (Path(sys.executable).parent / "py-spy").exists():
        pytest.skip("py-spy is not installed: make bench installs it")
    monkeypatch.setattr(flame, "_SAMPLES_MIN", 1)
    monkeypatch.setattr(flame, "_PASSES", 1)
    arguments = ["flame", "--cache", str(tmp_path), "--sets", "tiny", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--small", str(tmp_path / "small" / "before")]) == 0
    printed = capsys.readouterr().out
    assert f"| {START} " in printed
    assert "innermost module" in printed
    assert (tmp_path / "small" / "before-tiny.svg").stat().st_size <= 60_000
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["tiny.svg", "tiny.txt"]
    assert main([*arguments, "--parts"]) == 0
    assert "innermost module" not in capsys.readouterr().out
