"""Work behind the caller's back: in order, bounded, and nothing of it is lost or hushed up."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pixaris_sync.handlers.behind import Behind
from tests.unit.handlers.results import whole_runs


def test_jobs_are_done_in_order_in_one_thread() -> None:
    """Goal: runs are stored in the order of the calls. Method: many jobs; their threads and order."""
    behind = Behind("store", 10**9)
    done: list[int] = []
    threads: set[str] = set()

    def job(number: int) -> Callable[[], None]:
        def do() -> None:
            done.append(number)
            threads.add(threading.current_thread().name)

        return do

    for number in range(200):
        behind.do(job(number), 1)
    behind.wait()
    assert done == list(range(200))
    assert threads == {"pixaris-sync-store"}
    behind.wait()


def test_who_would_have_too_much_wait_waits() -> None:
    """Goal: memory is bounded. Method: jobs that are held back; one more than fits; one larger than all."""
    behind = Behind("store", 10)
    gate, taken = threading.Event(), threading.Event()

    def hold() -> None:
        gate.wait(30)

    behind.do(hold, 6)
    behind.do(lambda: None, 4)

    def one_more() -> None:
        behind.do(lambda: None, 1)
        taken.set()

    waiting = threading.Thread(target=one_more)
    waiting.start()
    assert not taken.wait(0.1)
    gate.set()
    assert taken.wait(30)
    waiting.join()
    behind.wait()
    large = threading.Event()
    behind.do(large.set, 1000)
    behind.wait()
    assert large.is_set()


def test_errors_are_raised_once_with_all_that_came_after() -> None:
    """Goal: no error is lost. Method: three jobs that fail among others; raise them, and again."""
    behind = Behind("store", 10**9)
    done: list[int] = []

    def fail(number: int) -> None:
        raise OSError(f"error {number}")

    for number in range(6):
        behind.do(lambda number=number: fail(number) if number % 2 else done.append(number), 1)  # type: ignore[misc]
    behind.wait()
    with pytest.raises(OSError, match="error 1") as raised:
        behind.raise_error()
    assert raised.value.__notes__ == ["after it: error 3", "after it: error 5"]
    assert done == [0, 2, 4]
    behind.raise_error()


#: Stores without `wait`, and ends in the way that its argument names.
ENDING = """
import atexit, multiprocessing, os, sys

atexit.register(lambda: late("last hook"))

def child(handler):
    store(handler, "child")

def late(name):
    store(handler, name)

from pixaris_sync.handlers import LocalExperimentHandler
from pixaris_sync.handlers.behind import Behind
from tests.unit.handlers.results import store

handler = LocalExperimentHandler(sys.argv[1], wait=False)
atexit.register(late, "first hook")
store(handler, "one")
process = multiprocessing.get_context("fork").Process(target=child, args=(handler,))
process.start()
process.join()
store(handler, "two")
forked = os.fork()
if not forked:
    store(handler, "forked")
    handler.flush()
    os._exit(0)
os.waitpid(forked, 0)
store(handler, "three")
failing = Behind("store", 1)
failing.do(lambda: 1 / 0, 1)
"""


def test_whatever_ends_the_interpreter_all_is_stored(tmp_path: Path) -> None:
    """Goal: what was taken is done at exit, once. Method: threads, forks, hooks around ours; one fails."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ENDING, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    assert "at exit: cannot store everything that was handed over" in ended.stderr
    assert "ZeroDivisionError" in ended.stderr
    names = sorted(name.partition("_")[2] for name in whole_runs(tmp_path / "p" / "d"))
    assert names == ["child", "first hook", "forked", "last hook", "one", "three", "two"]
