"""A Slurm of a test's own: one node on this machine, whose daemons listen on the loopback interface alone.

All of it lies in one folder: its configuration, its state, its logs, and a key of munge, by which its
programs trust each other. Of the machine's own Slurm, where there is one, nothing is read or changed.
"""

import contextlib
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.scripted_gcs import unused_port
from tests.support.waiting import eventually

_PROGRAMS: Final = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol")
#: Debian keeps the daemons where only root looks.
_SEARCHED: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
#: More than the machine has: so several tasks run at the same time wherever the tests do.
_PROCESSORS: Final = 16
_MEMORY_MIB: Final = 64_000
_PATIENCE_SECONDS: Final = 60.0
_END_SECONDS: Final = 15.0

#: Nothing is confined or accounted for, as that needs cgroups and a database. See slurm.conf(5).
_CONFIGURATION: Final = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
JobRequeue=1
KillWait=5
ReturnToService=2
MailProg=/bin/true
NodeName=node NodeHostname={host} NodeAddr=127.0.0.1 CPUs={processors} RealMemory={memory_mib}
PartitionName=all Nodes=node Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True, slots=True)
class Job:
    """A job, or one task of an array.

    Attributes:
        number: its own, by which its processes are known. One task's is the array's too.
        name: as people write it: of a task, the array's number and its place, ``12_3``.
        state: such as PENDING, RUNNING, COMPLETED, FAILED.
        reason: why it waits or has failed, or ``None``.
        exit_code: of its script; 0 until that has ended.
        restarts: how often it was requeued and began again.
    """

    number: str
    name: str
    state: str
    reason: str
    exit_code: int
    restarts: int

    @property
    def has_ended(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.state not in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "REQUEUED")


class Slurm:
    """A running Slurm.

    Attributes:
        environment: what its programs need.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._hastened: set[tuple[str, int]] = set()
        self.environment: Mapping[str, str] = {"SLURM_CONF": str(folder / "slurm.conf")}

    def submit(self, command: Sequence[str], *, environment: Mapping[str, str], folder: Path) -> str:
        """Submit jobs by a command, as a user does from a folder; what it answers."""
        return self._ask(*command, environment=environment, folder=folder)

    def jobs(self, number: str) -> list[Job]:
        """A job, or all tasks of an array."""
        shown = self._ask("scontrol", "show", "job", "--oneliner", number)
        return [_job(line) for line in shown.splitlines() if line]

    def processes(self, job: Job) -> list[int]:
        """The processes that a running job has; none where it has just ended."""
        listed = self._run("scontrol", "listpids", job.number).stdout
        return [int(line.split()[0]) for line in listed.splitlines()[1:] if line.split()[0].isdigit()]

    def requeue(self, job: Job) -> None:
        """End a job and let it begin again, as an administrator does."""
        self._ask("scontrol", "requeue", job.name)

    def signal(self, job: Job, name: str) -> None:
        """Send a signal to a job's script, as Slurm does ahead of the end of its time."""
        self._ask("scancel", "--batch", f"--signal={name}", job.name)

    def cancel(self, number: str) -> None:
        """Cancel a job, or all tasks of an array."""
        self._ask("scancel", number)

    def lose_node(self) -> None:
        """Let the node be lost, with all that runs there, and come back."""
        self._ask("scontrol", "update", "nodename=node", "state=down", "reason=lost")
        # It may have come back by itself, which is no reason to fail.
        self._run("scontrol", "update", "nodename=node", "state=resume")
        eventually(
            lambda: "DOWN" not in self._node_state(), "the node is back", timeout_seconds=_PATIENCE_SECONDS
        )

    def hasten(self, jobs: Sequence[Job]) -> None:
        """Let those begin soon that were requeued: Slurm gives them two minutes to rest.

        Not at once: in the second in which a node has ended a job it refuses to begin it ("credential
        revoked").
        """
        for job in jobs:
            restart = job.name, job.restarts
            if job.state == "PENDING" and job.reason == "BeginTime" and restart not in self._hastened:
                self._hastened.add(restart)
                self._run("scontrol", "update", f"jobid={job.name}", "StartTime=now+2")

    def end_jobs(self) -> None:
        """Cancel whatever there is, and wait until its processes are gone."""
        self._run("scancel", f"--user={_user()}")
        eventually(lambda: not self._queue(), "no job is left", timeout_seconds=_PATIENCE_SECONDS)

    def is_ready(self) -> bool:
        """Whether it takes jobs."""
        return self._node_state().startswith("IDLE")

    def logs(self) -> str:
        """What its daemons have told."""
        return "\n".join(
            f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}"
            for log in sorted(self._folder.glob("*.log"))
        )

    def _queue(self) -> str:
        return self._run("squeue", "--noheader").stdout.strip()

    def _node_state(self) -> str:
        found = re.search(r"\bState=(\S+)", self._run("scontrol", "show", "node", "node").stdout)
        return found[1] if found else ""

    def _run(
        self,
        program: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [program, *arguments],
            env={**(os.environ if environment is None else environment), **self.environment},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE_SECONDS,
        )

    def _ask(
        self,
        program: str,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> str:
        answer = self._run(program, *arguments, environment=environment, folder=folder)
        assert answer.returncode == 0, f"{program} {' '.join(arguments)}: {answer.stderr}\n{self.logs()}"
        return answer.stdout


def missing_program() -> str | None:
    """Which of Slurm's programs is not installed here, if one is not."""
    return next((name for name in _PROGRAMS if shutil.which(name, path=_SEARCHED) is None), None)


@contextlib.contextmanager
def running_slurm() -> Iterator[Slurm]:
    """Start a Slurm of one's own; afterwards nothing of it is left, and nothing that it ran."""
    # The path of a socket may not be long, and pytest's folders have long ones.
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    slurm = Slurm(folder)
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        _write_configuration(folder)
        socket_ = folder / "munge.socket"
        daemons.append(_start(folder, *_munged(folder)))
        eventually(socket_.exists, "munged listens", timeout_seconds=_PATIENCE_SECONDS)
        configuration = str(folder / "slurm.conf")
        daemons.append(_start(folder, "slurmctld", "-D", "-f", configuration))
        daemons.append(_start(folder, "slurmd", "-D", "-N", "node", "-f", configuration))
        try:
            eventually(slurm.is_ready, "Slurm is ready", timeout_seconds=_PATIENCE_SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{slurm.logs()}") from None
        try:
            yield slurm
        finally:
            slurm.end_jobs()
    finally:
        for daemon in reversed(daemons):
            _end(daemon)
        shutil.rmtree(folder, ignore_errors=True)


def _user() -> str:
    """Who runs all of it, whatever the environment says."""
    return pwd.getpwuid(os.getuid()).pw_name


def _write_configuration(folder: Path) -> None:
    (folder / "state").mkdir()
    (folder / "spool").mkdir()
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    (folder / "slurm.conf").write_text(
        _CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            user=_user(),
            folder=folder,
            controller_port=unused_port(),
            node_port=unused_port(),
            processors=_PROCESSORS,
            memory_mib=_MEMORY_MIB,
        )
    )


def _munged(folder: Path) -> Sequence[str]:
    """Its command. It is forced, as it would refuse a folder that others may not enter; none need to."""
    files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed"}
    named = (f"--{option}={folder}/munge.{ending}" for option, ending in files.items())
    return ("munged", "--force", "--foreground", *named)


def _start(folder: Path, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
    with (folder / f"{program}.log").open("ab") as log:
        return subprocess.Popen(
            [shutil.which(program, path=_SEARCHED) or program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _job(line: str) -> Job:
    told = dict(re.findall(r"\b(\w+)=(\S*)", line))
    array, task = told.get("ArrayJobId"), told.get("ArrayTaskId")
    code, _, number = told["ExitCode"].partition(":")
    return Job(
        number=told["JobId"],
        name=told["JobId"] if array is None else f"{array}_{task}",
        state=told["JobState"],
        reason=told["Reason"],
        exit_code=int(code) or (128 + int(number) if int(number) else 0),
        restarts=int(told["Restarts"]),
    )


def send(process: int, number: signal.Signals) -> bool:
    """Send a signal to a process of a job; whether it was there."""
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return False
    return True
