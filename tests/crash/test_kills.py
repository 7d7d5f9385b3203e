"""The real process, killed at a hundred random instants and more, on a network that fails."""

import json
import math
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pixaris_sync.model import RunKey
from pixaris_sync.sandbox.emulators import Sandbox
from tests.crash.concurrent_reader import ConcurrentReader
from tests.crash.expected_cloud import Record
from tests.crash.killed_machine import RESUMABLE_BYTES, KilledMachine
from tests.crash.network_faults import Fault
from tests.crash.request_log import RequestKind, RequestLog
from tests.integration.cloud import Cloud, new_cloud
from tests.support.proof_summary import Tell
from tests.support.stored_runs import Reader

KILLS = int(os.environ.get("PIXARIS_SYNC_TEST_KILLS", "12"))
SEED = int(os.environ.get("PIXARIS_SYNC_TEST_CRASH_SEED", "20240229"))
NAMES = ("alpha", "beta")
#: With fewer kills than this some kind of fault or of instant may well not come up.
KILLS_FOR_ALL_KINDS = 100
KINDS_OF_INSTANTS_MIN = 10
_KILL_SECONDS_MAX = 6
_END_SECONDS_MAX = 300


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cloud]:
    """Both emulators, at which this process reads without a proxy in between."""
    monkeypatch.chdir(tmp_path)
    with Sandbox() as sandbox:
        yield new_cloud(sandbox, monkeypatch)


@pytest.fixture
def pixaris(cloud: Cloud) -> Reader:
    """The destination as Pixaris reads it."""
    return Reader(cloud.handler())


@pytest.mark.timeout(_END_SECONDS_MAX + _KILL_SECONDS_MAX * KILLS)
def test_nothing_is_lost_doubled_early_or_claimed_falsely_however_often_it_is_killed(
    cloud: Cloud, pixaris: Reader, tmp_path: Path, tell: Tell
) -> None:
    """Goal: the promise, for the real process.

    Method: two machines store runs of every kind into tables of their own and into a common one, while the
    process on each is killed again and again: at random times, at requests before and after they are served,
    at writes of the ledger; and started again at once. Their networks refuse, reset, delay, swallow and hold
    back. Now and then a ledger is deleted. Then the networks heal, one pass ends it, and Pixaris reads.
    """
    machines: list[KilledMachine] = []
    request_log = RequestLog(
        lambda: {run: names for each in machines for run, names in each.expected.objects_by_run().items()}
    )
    with ExitStack() as stack:
        for name in NAMES:
            machine = KilledMachine(name, tmp_path / name, cloud.environment, SEED, request_log)
            machines.append(stack.enter_context(machine))
        reader = ConcurrentReader(machines, pixaris)
        stack.enter_context(_told_of_failure(machines))
        _let_happen(machines, reader)
        for machine in machines:
            machine.heal()
        before = [machine.expected.fingerprint() for machine in machines]
        _finish(machines)
        reader.read_everything()

        _say(*_summary(machines, request_log, reader))
        _assert_no_violations(machines, request_log, reader)
        _assert_no_packets_outlived_their_sender(machines)
        _assert_rows_are_the_records(machines, pixaris)
        _assert_objects_are_the_files(machines, pixaris, request_log)
        _assert_images_are_equal(machines, pixaris, tmp_path / "read")
        assert [machine.expected.fingerprint() for machine in machines] == before
        _assert_that_it_was_hard(machines, request_log, reader)
        _tell_of_it(tell, machines, reader)


@contextmanager
def _told_of_failure(machines: Sequence[KilledMachine]) -> Iterator[None]:
    """Say how to repeat it, and what was going on."""
    try:
        yield
    except BaseException:
        _say(f"PIXARIS_SYNC_TEST_CRASH_SEED={SEED} PIXARIS_SYNC_TEST_KILLS={KILLS}")
        for machine in machines:
            _say(f"=== {machine.name}", *machine.past[-20:], machine.last_words())
        raise


def _say(*lines: str) -> None:
    print(*lines, sep="\n")  # noqa: T201 - pytest shows it where it matters


def _let_happen(machines: Sequence[KilledMachine], reader: ConcurrentReader) -> None:
    """Kills, faults, new runs and readings, until there were enough kills."""
    kills = math.ceil(KILLS / len(machines))
    killing = [threading.Thread(target=machine.run_and_kill, args=(kills,)) for machine in machines]
    others = [threading.Thread(target=machine.writer.run) for machine in machines]
    others.append(threading.Thread(target=reader.run))
    try:
        for thread in (*killing, *others):
            thread.start()
        for thread in killing:
            thread.join()
    finally:
        for machine in machines:
            machine.writer.stop()
        reader.stop()
        for thread in others:
            thread.join()


def _finish(machines: Sequence[KilledMachine]) -> None:
    for machine in machines:
        document = machine.command_line.sync()
        runs = len(machine.expected.lines())
        assert document["runs"] == {**dict.fromkeys(document["runs"], 0), "synced": runs}
        again = machine.command_line.sync()
        assert (again["files_uploaded"], again["files_found"], again["rows_synced"]) == (0, 0, 0)


def _assert_no_violations(
    machines: Sequence[KilledMachine], request_log: RequestLog, reader: ConcurrentReader
) -> None:
    assert request_log.violations == []
    assert reader.violations == []
    assert reader.failure is None, repr(reader.failure)
    for machine in machines:
        assert machine.violations == []
        assert machine.writer.failure is None, repr(machine.writer.failure)
        assert machine.proxies.storage.failures == []
        assert machine.proxies.bigquery.failures == []
        assert "Traceback" not in machine.log()


def _told(record: Record) -> tuple[str, str, str]:
    """What tells records of one dataset apart; an integer score stands in a FLOAT column."""
    return record["experiment_run_name"], record["marker"], repr(float(record["score"]))


def _assert_no_packets_outlived_their_sender(machines: Sequence[KilledMachine]) -> None:
    """Packets that were held back came to nothing by a reset; what proxies had taken, they passed on."""
    for machine in machines:
        held, fired = machine.proxies.bigquery, machine.fired
        assert held.dropped == fired[Fault.HELD_PACKETS], "packets arrived after their sender had gone"
        assert held.let_go == fired[Fault.HELD_REQUEST]


def _assert_rows_are_the_records(machines: Sequence[KilledMachine], pixaris: Reader) -> None:
    """Every tracking record is one row, and every row a tracking record."""
    records = [(run, record) for machine in machines for run, record in machine.expected.records()]
    for key in sorted({run.dataset_key for run, _ in records}):
        frame = pixaris.frame(key.project, key.dataset)
        rows = Counter(_told(frame.loc[at].to_dict()) for at in frame.index)
        assert rows == Counter(_told(record) for run, record in records if run.dataset_key == key), str(key)


def _assert_objects_are_the_files(
    machines: Sequence[KilledMachine], pixaris: Reader, request_log: RequestLog
) -> None:
    """Every file is an object with its content, written once; nothing else is in the bucket."""
    expected = {name: content for machine in machines for name, content in machine.expected.objects().items()}
    found = pixaris.objects()
    assert found.keys() == expected.keys()
    for name, content in expected.items():
        crc32c, generation = found[name]
        assert content == (crc32c if isinstance(content, str) else json.loads(pixaris.content(name))), name
        assert request_log.generations[name] == {generation: crc32c}, name


def _assert_images_are_equal(machines: Sequence[KilledMachine], pixaris: Reader, scratch: Path) -> None:
    """Every image that Pixaris downloads is the local one, pixel by pixel."""
    for machine in machines:
        for run in machine.expected.lines():
            folder = machine.expected.folder / run.project / run.dataset / run.run / "generated_images"
            local = {path.name: _pixels(path) for path in folder.iterdir()}
            assert _downloaded(pixaris, run, scratch) == local, str(run)


def _downloaded(pixaris: Reader, run: RunKey, scratch: Path) -> dict[str, tuple[str, tuple[int, int], bytes]]:
    images = pixaris.images(run, scratch)
    return {name: (image.mode, image.size, image.tobytes()) for name, image in images.items()}


def _pixels(path: Path) -> tuple[str, tuple[int, int], bytes]:
    with Image.open(path) as image:
        return image.mode, image.size, image.tobytes()


def _summary(
    machines: Sequence[KilledMachine], request_log: RequestLog, reader: ConcurrentReader
) -> list[str]:
    kills, fired, caught = _sum_up(machines)
    return [
        f"seed {SEED}: {kills.total()} kills",
        f"killed at: {_counts(kills)}",
        f"left behind in states: {_counts(caught)}",
        f"faults: {_counts(fired)}",
        f"requests: {_counts(request_log.requests)}",
        f"{sum(machine.writer.stored for machine in machines)} runs, {_large_files(machines)} large files",
        f"{len(request_log.generations)} objects",
        f"{request_log.rows_sent} rows sent, {reader.rows_seen} visible",
        f"{reader.readings} readings, {sum(machine.ledgers_lost for machine in machines)} ledgers lost",
    ]


def _tell_of_it(tell: Tell, machines: Sequence[KilledMachine], reader: ConcurrentReader) -> None:
    kills, fired, caught = _sum_up(machines)
    told = {
        "processes killed": kills.total(),
        "runs": sum(machine.writer.stored for machine in machines),
        "large files": _large_files(machines),
        "rows": reader.rows_seen,
        "readings by Pixaris meanwhile": reader.readings,
        "ledgers deleted": sum(machine.ledgers_lost for machine in machines),
    }
    tell("real kills", told)
    tell("where they were killed", dict(sorted(kills.items())))
    tell("states they left behind", dict(sorted(caught.items())))
    tell("faults of their networks", {str(fault): count for fault, count in sorted(fired.items())})


def _sum_up(machines: Sequence[KilledMachine]) -> tuple[Counter[str], Counter[Fault], Counter[str]]:
    kills: Counter[str] = sum((machine.kills for machine in machines), Counter())
    fired: Counter[Fault] = sum((machine.fired for machine in machines), Counter())
    caught: Counter[str] = sum((machine.caught for machine in machines), Counter())
    return kills, fired, caught


def _counts(counts: Mapping[Any, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _large_files(machines: Sequence[KilledMachine]) -> int:
    images = (path for machine in machines for path in machine.expected.folder.rglob("*.png"))
    return sum(path.stat().st_size > RESUMABLE_BYTES for path in images)


def _assert_that_it_was_hard(
    machines: Sequence[KilledMachine], request_log: RequestLog, reader: ConcurrentReader
) -> None:
    """The kills, faults and readings that this test is about did happen."""
    kills, fired, caught = _sum_up(machines)
    assert kills.total() >= KILLS
    assert reader.readings > 0
    if KILLS < KILLS_FOR_ALL_KINDS:
        return
    assert set(fired) == set(Fault)
    assert {kind for kind, count in request_log.requests.items() if count} == set(RequestKind)
    assert len(kills) >= KINDS_OF_INSTANTS_MIN
    assert {"uploading", "sending", "accepted", "in_doubt"} <= caught.keys()
    assert sum(machine.ledgers_lost for machine in machines) >= len(machines)
    assert _large_files(machines) > 0
