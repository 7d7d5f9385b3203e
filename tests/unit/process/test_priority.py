"""Stepping back, in processes of their own: it cannot be undone."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from pixaris_sync.process import priority

#: What a process tells of its threads: one was there before `lower_priority`, one came after. Of its session
#: it tells the niceness; nothing where that is the one that the kernel started with, which shares no more.
CHILD = """
import ctypes, errno, json, os, platform, sys, threading
from pathlib import Path
from pixaris_sync.process import priority

stop = threading.Event()
threading.Thread(target=stop.wait, daemon=True).start()
{before}
reached = priority.lower_priority()
threading.Thread(target=stop.wait, daemon=True).start()
session = Path("/proc/self/autogroup")
get = {{"x86_64": 252, "aarch64": 31}}.get(platform.machine())
libc = ctypes.CDLL(None)
threads = [int(path.name) for path in Path("/proc/self/task").iterdir()]
print(json.dumps({{
    "reached": reached,
    "nice": [os.getpriority(os.PRIO_PROCESS, thread) for thread in threads],
    "policy": [os.sched_getscheduler(thread) for thread in threads],
    "io": [libc.syscall(get, 1, thread) >> 13 for thread in threads] if get else None,
    "session": session.read_text().split()[-1:] if session.exists() else None,
}}))
stop.set()
"""


def step_back_in_a_child(before: str = "", *, leads_session: bool = False) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", CHILD.format(before=before)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        start_new_session=leads_session,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_all_threads_step_back_also_those_of_later() -> None:
    """Goal: no thread is left in front. Method: a thread before, one after; ask the kernel about each."""
    told = step_back_in_a_child()
    assert told["reached"] == ["nice", "batch", "io-idle"]
    assert told["nice"] == [priority.NICENESS] * 3
    assert told["policy"] == [os.SCHED_BATCH] * 3
    if told["io"] is not None:
        assert told["io"] == [3] * 3


@pytest.mark.skipif(
    not priority._AUTOGROUP.exists(), reason="this kernel gives sessions no share of their own"
)
def test_a_session_of_its_own_steps_back_and_one_of_others_does_not() -> None:
    """Goal: detached, it is behind training in another session; training in its own session stays in front.

    Method: a child that leads its session, one that has to wait until the kernel takes it, and one in the
    session of this test; ask the kernel about each.
    """
    here = priority._AUTOGROUP.read_text(encoding="ascii")
    own = step_back_in_a_child(leads_session=True)
    assert (own["reached"], own["session"]) == (["nice", "batch", "io-idle", "session"], ["19"])
    busy = """
times = iter([BlockingIOError(errno.EAGAIN, "another did")] * 3)
kernel = priority._AUTOGROUP
class Busy:
    def open(self, *rest, **options):
        for error in times:
            raise error
        return kernel.open(*rest, **options)
priority._AUTOGROUP = Busy()
"""
    assert step_back_in_a_child(busy, leads_session=True)["session"] == ["19"]
    assert "session" not in step_back_in_a_child()["reached"]
    assert priority._AUTOGROUP.read_text(encoding="ascii") == here


def test_it_can_be_done_twice() -> None:
    """Goal: a service manager's settings are no error. Method: step back before stepping back."""
    told = step_back_in_a_child("priority.lower_priority()")
    assert told["reached"] == ["nice", "batch", "io-idle"]
    assert told["nice"] == [priority.NICENESS] * 3


def test_a_policy_that_is_lower_still_stays() -> None:
    """Goal: nobody is moved up. Method: a process that was started with the policy IDLE."""
    told = step_back_in_a_child("os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))")
    assert os.SCHED_IDLE in told["policy"]


def test_what_is_refused_is_left_as_it_is() -> None:
    """Goal: a sandbox that forbids the calls stops nothing. Method: each call answers EPERM."""
    before = (
        "def refused(*_): raise PermissionError(errno.EPERM, 'no')\n"
        "os.setpriority = os.sched_setscheduler = priority._set_io_idle = refused"
    )
    told = step_back_in_a_child(before)
    assert told["reached"] == []
    assert told["policy"] == [os.SCHED_OTHER] * 3


def test_a_thread_that_ends_meanwhile_is_no_failure() -> None:
    """Goal: no race with short threads. Method: a thread that is gone before its turn."""
    seen = []

    def step(thread: int) -> None:
        if thread == 1:
            raise ProcessLookupError
        seen.append(thread)

    assert priority._done_for_all("nice", step, [1, 2])
    assert seen == [2]
    assert not priority._done_for_all("nice", step, [1])


def test_an_unknown_architecture_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no call by a wrong number. Method: a machine that is in no table."""
    monkeypatch.setattr("platform.machine", lambda: "vax")
    with pytest.raises(OSError, match="vax"):
        priority._set_io_idle(0)
