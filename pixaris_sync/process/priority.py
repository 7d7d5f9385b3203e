"""The lowest priority for the processor and the disk: behind everything else on the machine.

Training is the machine's real work. Niceness 19 leaves it nearly all of a core that both want; the policy
BATCH keeps us from interrupting it each time a packet arrives; reads and writes of the class IDLE are served
when no other process wants the disk (by the schedulers BFQ and mq-deadline; others know no classes). IDLE is
not taken for the processor: on a machine whose cores are all busy it could leave so little that requests to
the cloud run into their time limits.

Linux keeps all three by thread, and a new thread gets its maker's: all threads that exist are set, one by
one, and those that come later follow. None of it can be undone without privileges, and nothing needs any.

Between sessions niceness counts for nothing: where no control groups share out the processor, the kernel
gives each session the same (autogroup: a terminal, or a process that was started detached), and a session has
a niceness of its own. It is set where this process leads its session; in a session of others, such as a shell
that started the training, too, they would step back with it. In control groups, their weights count.

Sources: sched(7), setpriority(2), ioprio_set(2), and the kernel's tables of system calls.
"""

import ctypes
import logging
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

#: The lowest of the priorities from -20 to 19.
NICENESS: Final = 19

#: ioprio_set has no wrapper in the C library; its number depends on the architecture.
_IOPRIO_SET: Final = {
    "x86_64": 251,
    "i386": 289,
    "i686": 289,
    "aarch64": 30,
    "riscv64": 30,
    "armv7l": 314,
    "ppc64le": 273,
    "s390x": 282,
}
#: The niceness of the session among sessions; not there where the kernel does not know of it.
_AUTOGROUP: Final = Path("/proc/self/autogroup")
#: Others than root may set one in a tenth of a second, all together, and those of an array start at once.
_AUTOGROUP_TRIES: Final = 20
_AUTOGROUP_SPACING_SECONDS: Final = 0.11

_WHO_PROCESS: Final = 1
_CLASS_IDLE: Final = 3
_CLASS_SHIFT: Final = 13


def lower_priority() -> tuple[str, ...]:
    """Give this process the lowest priorities that it can have; what is refused is left as it is.

    A service manager may have set them already and may not let the process do so itself.

    Returns:
        What was set for all threads, of ``nice``, ``batch`` and ``io-idle``, and ``session`` for the session.
    """
    steps: dict[str, Callable[[int], None]] = {
        "nice": _set_nice,
        "batch": _set_batch,
        "io-idle": _set_io_idle,
    }
    threads = _threads()
    reached = [name for name, step in steps.items() if _done_for_all(name, step, threads)]
    if os.getsid(0) == os.getpid() and _session_steps_back():
        reached.append("session")
    return tuple(reached)


def _session_steps_back() -> bool:
    for _ in range(_AUTOGROUP_TRIES):
        try:
            with _AUTOGROUP.open("r+b", buffering=0) as file:
                file.write(b"%d" % NICENESS)
        except BlockingIOError:
            time.sleep(_AUTOGROUP_SPACING_SECONDS)
        except OSError as error:
            log.debug("the session's priority stays as it is: %s", error.strerror)
            return False
        else:
            return True
    return False


def _done_for_all(name: str, step: Callable[[int], None], threads: list[int]) -> bool:
    done = False
    for thread in threads:
        try:
            step(thread)
        except ProcessLookupError:
            # It ended in the meantime.
            continue
        except OSError as error:
            log.debug("priority %s stays as it is: %s", name, error.strerror)
            return False
        done = True
    return done


def _threads() -> list[int]:
    try:
        return [int(path.name) for path in Path("/proc/self/task").iterdir()]
    except OSError:
        # Without /proc: the calling one, which is 0 to all three calls.
        return [0]


def _set_nice(thread: int) -> None:
    # Raising the number is always allowed, lowering it is not.
    if os.getpriority(os.PRIO_PROCESS, thread) < NICENESS:
        os.setpriority(os.PRIO_PROCESS, thread, NICENESS)


def _set_batch(thread: int) -> None:
    # The process that started this one may have chosen IDLE, which is lower still.
    if os.sched_getscheduler(thread) != os.SCHED_IDLE:
        os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))


def _set_io_idle(thread: int) -> None:
    number = _IOPRIO_SET.get(platform.machine())
    if number is None:
        raise OSError(None, f"unknown on {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    priority = _CLASS_IDLE << _CLASS_SHIFT
    if libc.syscall(ctypes.c_long(number), _WHO_PROCESS, thread, priority) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
