"""The operator's walk of ``deploy/README.md``: its commands in its order, and what happens meanwhile."""

import json
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cloud import Cloud
from tests.integration.test_documents import NAMED
from tests.support import command_line as command_lines
from tests.support.command_line import CommandLine, Watching
from tests.support.documents import REPOSITORY
from tests.support.mounts import mounted_memory
from tests.support.proxy import Proxies, unavailable
from tests.support.renewed_login import Login
from tests.support.scripted_bigquery import scripted_bigquery
from tests.support.shown_commands import WALK, Shell, shown_in
from tests.support.stored_runs import Reader, StoredRun, picture, store_run

DISK_BYTES = 160 * 2**20
#: What a waiting test is hasty about.
_HASTY = {
    "PIXARIS_SYNC_RETRY_DELAY_SECONDS_MIN": "0.1",
    "PIXARIS_SYNC_RETRY_DELAY_SECONDS_MAX": "0.5",
    "PIXARIS_SYNC_TABLE_SETTLE_SECONDS": "0",
    "PIXARIS_SYNC_DOUBT_SETTLE_SECONDS": "1",
}
#: What the config file tells instead.
_WHERE = ("PIXARIS_SYNC_LOCAL_RESULTS_FOLDER", "PIXARIS_SYNC_STATE_DIR")
#: Commands of the walk that the world does here, each with the reason.
_DONE_BY_THE_WORLD = {
    "pixaris-sync watch": "goes on beside what follows",
    "systemctl stop pixaris-sync": "needs a systemd that runs",
    "rsync -a /data/local_results/ new-machine:/data/local_results/": "needs another machine",
    "rsync config.yaml new-machine:": "needs another machine",
}


def sections() -> dict[str, list[str]]:
    """The commands of the walk, by the heading that they stand below."""
    _, _, walk = (REPOSITORY / "deploy" / "README.md").read_text(encoding="utf-8").partition(f"\n{WALK}\n")
    _, *found = re.split(r"^### (.+)\n", walk, flags=re.MULTILINE)
    return {
        heading: [one.command for one in shown_in(text)]
        for heading, text in zip(found[::2], found[1::2], strict=True)
    }


@dataclass
class Operator:
    """A machine, who operates it, and the world around them.

    Attributes:
        service: ``pixaris-sync`` as the service runs it.
        home: where commands are given.
        folder: the results folder, which documents call /data/local_results; `backup` is a copy.
        answers: what each command printed, by heading.
    """

    service: CommandLine
    cloud: Cloud
    proxies: Proxies
    login: Login
    pixaris: Reader
    home: Path
    folder: Path
    backup: Path
    shell: Shell
    answers: dict[str, list[str]] = field(default_factory=dict)
    watching: Watching | None = None

    @property
    def watch(self) -> Watching:
        """The service."""
        assert self.watching is not None
        return self.watching

    def in_words_of_here(self, command: str) -> str:
        """A command of the document, with the names that this test has for its places."""
        project, dataset, bucket = NAMED
        for theirs, ours in (
            ("/data/local_results", str(self.folder)),
            ("/backup/local_results", str(self.backup)),
            (bucket, self.cloud.bucket),
            (dataset, self.cloud.dataset),
            (project, self.cloud.project),
        ):
            command = re.sub(rf"(?<![\w-]){re.escape(theirs)}(?![\w-])", ours, command)
        return command

    def store(self, name: str) -> StoredRun:
        """Store a run, as training does."""
        return store_run(self.folder, name, project="shop", dataset="shoes", images=2)

    def arrives(self, run: StoredRun) -> None:
        """Wait until a run shows in the cloud."""
        self.watch.until(lambda: run.name in self.pixaris.runs("shop", "shoes"), f"{run.name} arrives")

    def until_logged(self, text: str) -> None:
        """Wait until the service says so."""
        self.watch.until(lambda: text in self.watch.log(), f"the log says {text!r}")

    # What happens before the commands of a section, and what must be true after them.

    def set_it_up(self) -> Iterator[None]:
        """Old runs are there."""
        for name in ("20240301-101500_baseline", "20240302-101500_sharper"):
            _aged(self.store(name.partition("_")[2]), name)
        yield
        assert (self.home / "config.yaml").is_file()
        assert f"gcp_pixaris_bucket_name = {self.cloud.bucket}" in self.answers["Set it up"][-1]

    def ask_the_doctor(self) -> Iterator[None]:
        yield
        [told] = self.answers["Ask the doctor"]
        assert "failed" not in told
        assert "client" not in told or "secret" not in told

    def carry_what_is_there(self) -> Iterator[None]:
        yield
        planned, applied, verified = self.answers["Carry what is there"]
        assert "$" in planned
        assert "2 rows synced" in applied
        assert "0 missing, 0 extra, 0 differs" in verified
        assert len(self.pixaris.runs("shop", "shoes")) == 2

    def let_it_serve(self) -> Iterator[None]:
        yield
        assert "2 synced" in self.answers["Let it serve"][-1]
        self.arrives(self.store("served"))

    def an_outage(self) -> Iterator[None]:
        self.proxies.storage.rule = self.proxies.bigquery.rule = lambda _: unavailable()
        stored = self.store("meanwhile")
        self.watch.until(lambda: self._status()["problems"], "status has the cause")
        yield
        assert "503" in self.answers["An outage"][-1]
        self.proxies.storage.rule = self.proxies.bigquery.rule = lambda _: None
        self.arrives(stored)
        self.until_logged("again after")

    def an_expired_login(self) -> Iterator[None]:
        self.watch.until(lambda: self._status()["runs"]["pending"] == 0, "nothing is under way")
        self.login.good = b""
        stored = self.store("late")
        self.until_logged("everything is paused until this is mended")
        # The one that `gcloud` writes.
        self.login.good = b"second"
        yield
        self.arrives(stored)

    def a_full_disk(self) -> Iterator[None]:
        self.watch.until(lambda: self._status()["runs"]["pending"] == 0, "nothing is under way")
        downloads = self.home / ".local" / "state" / "old-downloads"
        downloads.mkdir()
        _fill(downloads / "archive.tar")
        stored = self.store("remembered")
        self.until_logged("cannot write")
        yield
        assert not downloads.exists()
        self.arrives(stored)

    def a_quarantined_run(self) -> Iterator[None]:
        stored = store_run(self.folder, "bare", project="shop", dataset="shoes", images=0)
        kept = self.backup / stored.folder.relative_to(self.folder) / "generated_images"
        kept.mkdir(parents=True)
        picture().save(kept / "left.png")
        self.watch.until(lambda: self._status()["runs"]["quarantined"], "it is quarantined")
        yield
        assert "put the images back" in self.answers["A quarantined run"][0]
        self.arrives(stored)

    def free_the_disk(self) -> Iterator[None]:
        self.watch.until(lambda: self._status()["runs"]["pending"] == 0, "nothing is under way")
        old = self.folder / "shop" / "shoes" / "20240301-101500_baseline" / "generated_images"
        assert len(list(old.iterdir())) == 2
        yield
        would, freed, _ = self.answers["Free the disk"]
        assert "2 runs" in would
        assert "2 runs" in freed
        assert list(old.iterdir()) == []

    def move_to_a_new_machine(self) -> Iterator[None]:
        assert self.watch.end() == 0, self.watch.log()
        # Another disk, another user: no ledger there.
        moved = self.folder.with_name("moved")
        self.folder.rename(moved)
        shutil.copytree(moved, self.folder)
        shutil.rmtree(self.home / ".local" / "state" / "pixaris-sync")
        objects = self.pixaris.objects()
        yield
        _, synced, _, ledgers = self.answers["Move to a new machine"]
        assert "0 files uploaded" in synced
        assert self.pixaris.objects() == objects
        assert str(self.folder) in ledgers.replace("\n", "")
        runs = self.pixaris.runs("shop", "shoes")
        assert len(runs) == len(set(runs)) == 7

    def _status(self) -> dict[str, Any]:
        return self.service.status()


def _aged(run: StoredRun, name: str) -> None:
    """Let a run that nobody has seen yet be an old one."""
    for path in (run.tracking, run.folder / "args.json"):
        path.write_text(path.read_text(encoding="utf-8").replace(run.name, name), encoding="utf-8")
    run.folder.rename(run.folder.with_name(name))


def _fill(path: Path) -> None:
    """Leave no room on the disk that a file is on."""
    with path.open("wb", buffering=0) as file:
        for size in (2**16, 2**9, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue


@pytest.fixture
def operator(
    proxied: CommandLine,
    cloud: Cloud,
    proxies: Proxies,
    pixaris: Reader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Operator]:
    """An operator on a machine whose home is on a small disk, with a login that works."""
    monkeypatch.setattr(command_lines, "COMMAND", (sys.executable, "-m", "tests.support.credentialed"))
    home, folder, backup = tmp_path / "home", tmp_path / "local_results", tmp_path / "backup"
    for path in (home, folder, backup):
        path.mkdir(exist_ok=True)
    with scripted_bigquery() as tokens, mounted_memory(home / ".local" / "state", DISK_BYTES):
        login = Login(tmp_path / "credentials.json", tokens, good=b"first")
        monkeypatch.setattr(tokens, "next_answer", login.answer)
        login.write(login.as_user("first"))
        programs = tmp_path / "bin"
        _install(programs / "pixaris-sync", f'exec {sys.executable} -m tests.support.credentialed "$@"')
        (tmp_path / "second.json").write_text(json.dumps(login.as_user("second")))
        _install(programs / "gcloud", f"cp {tmp_path / 'second.json'} {login.file}")
        named = [name for name in proxied.environment if name.startswith(("PIXARIS_SYNC_GCP_", "XDG_"))]
        service = proxied.but(**dict.fromkeys([*named, *_WHERE])).but(
            **_HASTY,
            HOME=str(home),
            PATH=f"{programs}{os.pathsep}{os.environ['PATH']}",
            PYTHONPATH=f"{REPOSITORY}{os.pathsep}{sysconfig.get_path('purelib')}",
            GOOGLE_APPLICATION_CREDENTIALS=str(login.file),
        )
        shell = Shell(service.environment, tmp_path, folder=home)
        service = service.but(PIXARIS_SYNC_CONFIG=str(home / "config.yaml"))
        yield Operator(service, cloud, proxies, login, pixaris, home, folder, backup, shell)


def _install(program: Path, line: str) -> None:
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{line}\n")
    program.chmod(0o755)


@pytest.fixture
def stays() -> Iterator[ExitStack]:
    """Ends what was begun, however the walk ends."""
    with ExitStack() as stack:
        yield stack


@pytest.mark.large
@pytest.mark.timeout(600)
def test_the_operators_walk_is_as_it_is_written(operator: Operator, stays: ExitStack, tmp_path: Path) -> None:
    """Goal: acceptance: whoever operates it can do as the document says, from the first day to the last.

    Method: its commands, in its order, by a user whose login, disk, network and runs get into the trouble
    that the section is about; each section has its beginning and its end here, and none is left out.
    """
    written = sections()
    assert written
    for heading, commands in written.items():
        happens = getattr(operator, re.sub(r"\W+", "_", heading.lower()))()
        next(happens)
        for command in commands:
            if command == "pixaris-sync watch":
                operator.watching = stays.enter_context(Watching(operator.service, tmp_path))
                operator.watching.wait_until_ready()
            elif command not in _DONE_BY_THE_WORLD:
                answer = operator.shell.run(operator.in_words_of_here(command))
                operator.answers.setdefault(heading, []).append(answer)
        with pytest.raises(StopIteration):
            next(happens)
