"""Histories of folders that are pruned and pulled, beside crashes and changes by others.

`PruningMachine` is the machine that `Pruner` and `Puller` run on, each as a process of its own. At every file
that is removed it is asked whether all of its run was in the cloud at that moment.
"""

import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, Final, TypeVar

import google_crc32c
import pytest
from msgspec import structs
from pixaris.experiment_handlers.local import LocalExperimentHandler

from pixaris_sync.history.candidates import stored_at
from pixaris_sync.history.prune import Pruned, Pruner
from pixaris_sync.history.pull import Pulled, Puller
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.selection import EVERYTHING
from pixaris_sync.local import placing, removal
from pixaris_sync.model import RunKey
from pixaris_sync.verify import Finding, Sign, verify
from tests.engine.crash_points import CrashError
from tests.engine.local_folder import MARKER, StoredRun
from tests.engine.machine import Machine, in_memory_folder
from tests.support.proof_summary import Tell

T = TypeVar("T")

#: How many histories, and which: one seed makes one.
HISTORIES: Final = int(os.environ.get("PIXARIS_SYNC_TEST_PRUNE_HISTORIES", "20"))
FIRST: Final = int(os.environ.get("PIXARIS_SYNC_TEST_PRUNE_FIRST", "0"))
#: So many together are one test.
CHUNK: Final = 20
DAY_SECONDS: Final = 86400.0
#: Runs that are older are pruned.
OLD_SECONDS: Final = 30 * DAY_SECONDS
#: Instants at which a prune or a pull ends, and within how many of them.
PRUNE_ENDS: Final = {"begin": 6, "commit": 6, "call": 10, "answer": 10, "unlink": 8}
PULL_ENDS: Final = {"call": 20, "answer": 20, "put": 8, "append": 2, "renamed": 2}
#: What may have happened in a history: what never has proves nothing.
KINDS: Final = frozenset(
    {
        *(f"prune ended at {kind}" for kind in PRUNE_ENDS),
        *(f"pull ended at {kind}" for kind in ("call", "answer", "put")),
        *("pruned", "pulled", "left", "object removed", "object replaced", "row removed", "row edited"),
        *("file changed under it", "object removed under it", "ledger lost", "older ledger"),
    }
)

fired: Counter[str] = Counter()


class PruningMachine(Machine):
    """A machine on which ``prune``, ``pull`` and ``verify`` run.

    Attributes:
        unproven: files that were removed while not all of their run was in the cloud.
        removed: how many files were removed.
    """

    def __init__(self, folder: Path, *, seed: int = 0) -> None:
        super().__init__(folder, seed=seed)
        self.unproven: list[str] = []
        self.removed = 0

    def prune(self, *, removes: bool = True, older_than_seconds: float = OLD_SECONDS) -> list[Pruned]:
        """Prune to the end.

        Raises:
            CrashError: it ended at the instant chosen.
        """

        async def work(ledger: Ledger) -> list[Pruned]:
            pruner = Pruner(self.settings, ledger, self.store, self.sink, now=self.clock.now, removes=removes)
            return [one async for one in pruner.prune(EVERYTHING, older_than_seconds)]

        with self._watched_removals():
            return self._alone(work)

    def pull(self, *names: str) -> list[Pulled]:
        """Pull to the end; raises as `prune`."""

        async def work(_: Ledger) -> list[Pulled]:
            puller = Puller(self.settings, self.store, self.sink, now=self.clock.now)
            return [one async for one in puller.pull(names)]

        with self._crashing_places():
            return self._alone(work)

    def verify(self) -> list[Finding]:
        """What differs."""

        async def work(ledger: Ledger) -> list[Finding]:
            found = [one async for one in verify(self.settings, ledger, self.store, self.sink)]
            return [one for one in found if one.sign is not Sign.SAME]

        return self._alone(work)

    def _alone(self, work: Callable[[Ledger], Awaitable[T]]) -> T:
        self.crash_points.restart()
        with self.ledger() as ledger:
            try:
                return self.clock.run(partial(work, ledger))
            except BaseExceptionGroup as group:
                raise self._root_cause(group) from group
            finally:
                self._stamp_folders()

    def _stamp_folders(self) -> None:
        """Give what was changed by the machine's own clock a time of the virtual one."""
        for path in self.local.root.rglob("*"):
            if path.stat().st_mtime > self.clock.now() + DAY_SECONDS:
                self.local._stamp(path)

    @contextmanager
    def _watched_removals(self) -> Iterator[None]:
        def unlink(name: str, *, dir_fd: int) -> None:
            self.crash_points.reach("unlink")
            path = Path(Path(f"/proc/self/fd/{dir_fd}").readlink()) / name
            self._check_removal(path)
            os.unlink(name, dir_fd=dir_fd)
            self.removed += 1

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(removal, "os", SimpleNamespace(**{**vars(os), "unlink": unlink}))
            yield

    def _check_removal(self, path: Path) -> None:
        """Make sure that the cloud has all of a file's run at this moment, and the file as it is."""
        project, dataset, name, *parts = path.relative_to(self.local.root).parts
        run = self.local.find(RunKey(project, dataset, name))
        relative = "/".join(parts)
        stored = None if run is None else self.store.objects.get(run.object_name(relative))
        if run is None or stored is None or stored.content != path.read_bytes():
            self.unproven.append(f"{path}: the bucket does not hold it")
        elif not self.is_in_cloud(run):
            self.unproven.append(f"{path}: not all of its run is in the cloud")
        elif self.clock.now() - _stored_at(run) < OLD_SECONDS:
            self.unproven.append(f"{path}: it is young")

    def is_in_cloud(self, run: StoredRun) -> bool:
        """Whether each file of a run is an object as it is, and each record a row that says the same."""
        for path, versions in run.versions.items():
            stored = self.store.objects.get(run.object_name(path))
            if stored is None or not versions or stored.content != versions[-1]:
                return False
        rows = {row[MARKER]: row for row in self.sink.visible_rows(run.table) if MARKER in row}
        for record in self.local.records:
            if record.run is run:
                row = rows.get(record.marker, {})
                said = [value for value in record.values.values() if isinstance(value, int | float)]
                if not row or not {*said} <= {*row.values()}:
                    return False
        return True

    def replace_object(self, name: str) -> None:
        """Somebody puts another content in an object's place."""
        stored, content = self.store.objects[name], b"another"
        self.invariants.removed_objects[name] = stored.content
        remote = structs.replace(
            stored.remote,
            size=len(content),
            crc32c=google_crc32c.value(content),
            generation=self.store._next_generation(),
        )
        self.store.objects[name] = replace(stored, remote=remote, content=content)

    @contextmanager
    def _crashing_places(self) -> Iterator[None]:
        """A process that is gone puts nothing in its place any more, and cleans nothing up."""

        def before(kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def reached(*args: Any, **kwargs: Any) -> Any:
                self.crash_points.reach(kind)
                return real(*args, **kwargs)

            return reached

        def unless_gone(real: Callable[..., Any]) -> Callable[..., Any]:
            return lambda *args: None if self.crash_points.crashed else real(*args)

        with pytest.MonkeyPatch.context() as patch:
            for name, kind in (("_put", "put"), ("append", "append"), ("rename_run", "renamed")):
                patch.setattr(placing, name, before(kind, getattr(placing, name)))
            for name in ("_take_back", "remove_hidden", "_remove_empty"):
                patch.setattr(placing, name, unless_gone(getattr(placing, name)))
            yield


class History:
    """What happens to one machine, from a seed."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.chance = Random(seed)  # noqa: S311 - a test's chance needs no secrecy
        self.machine = PruningMachine(folder, seed=seed)
        self._copies: list[bytes] = []

    def run(self) -> None:
        """Let it happen."""
        machine, chance = self.machine, self.chance
        for number in range(chance.randint(1, 5)):
            self._store(f"old{number}")
        machine.run_pass()
        self._copies.append(machine.copy_ledger())
        machine.clock.let_pass(40 * DAY_SECONDS)
        for number in range(chance.randint(0, 2)):
            self._store(f"young{number}")
        if chance.random() < 0.7:
            machine.run_pass()
        changed = self._change_cloud() if chance.random() < 0.4 else set[StoredRun]()
        self._replace_ledger()
        before, shown = snapshot(machine.local.root), as_pixaris_shows(machine.local.root)
        changed = changed | self._prune(before)
        self._compare_pruned(before, shown)
        if chance.random() < 0.5:
            self._replace_ledger()
        self._pass_sends_nothing_of_old_runs()
        if chance.random() < 0.5:
            self._replace_ledger()
        self._pull()
        assert snapshot(machine.local.root) == before, "what was pulled is not what was pruned"
        if not changed:
            assert as_pixaris_shows(machine.local.root) == shown
        self._pass_sends_nothing_of_old_runs()
        names = {str(run.key) for run in changed}
        others = [one for one in machine.verify() if not any(name in one.subject for name in names)]
        assert not [
            one for one in others if one.run is None or one.run not in {run.key for run in changed}
        ], others
        machine.check()

    def _store(self, name: str) -> None:
        chance, local = self.chance, self.machine.local
        values = {"score": chance.random(), "curve": {"a": chance.random()}, "odd name": "x"}
        run = local.store(
            dataset=chance.choice(["d", "e"]),
            name=name,
            images=chance.randint(1, 3),
            image_bytes=chance.choice([0, 0, 300_000]),
            saved=chance.choice([[], ["config.json"], ["config.json", "mask.png"]]),
            values={key: value for key, value in values.items() if chance.random() < 0.5},
        )
        if chance.random() < 0.15:
            local.commit(run, {"score": chance.random()})
        self.machine.clock.let_pass(1.0)

    def _change_cloud(self) -> set[StoredRun]:
        """Others change what the cloud has of a run."""
        machine, run = self.machine, self.chance.choice(self.machine.local.runs)
        objects = [name for name in map(run.object_name, run.versions) if name in machine.store.objects]
        rows = [
            row for row in machine.sink.stored(run.table) if row.cells["experiment_run_name"] == run.key.run
        ]
        kind = self.chance.choice(["object removed", "object replaced", "row removed", "row edited"])
        if kind.startswith("object") and objects:
            name = self.chance.choice(objects)
            if kind == "object removed":
                machine.invariants.object_removed(name)
            else:
                machine.replace_object(name)
        elif rows and kind == "row removed":
            machine.invariants.rows_removed(run.table, rows, {})
            table = machine.sink.table(run.table)
            table.rows[:] = [row for row in table.rows if row not in rows]
            machine.sink._seen[run.table] -= len(rows)
        elif rows and kind == "row edited":
            rows[0].cells["timestamp"] = "corrected"
        else:
            return set()
        fired[kind] += 1
        return {run}

    def _replace_ledger(self) -> None:
        event, machine = self.chance.random(), self.machine
        if event < 0.2:
            machine.lose_ledger()
            fired["ledger lost"] += 1
        elif event < 0.4:
            machine.put_ledger_back(self.chance.choice(self._copies))
            fired["older ledger"] += 1
        else:
            return
        machine.run_pass()

    def _prune(self, before: dict[str, bytes]) -> set[StoredRun]:
        """Prune to the end, through crashes; others change things beside it. Runs that were changed."""
        machine, changed = self.machine, set[StoredRun]()
        for _ in range(self.chance.choice([0, 1, 1, 2])):
            kind = self.chance.choice(list(PRUNE_ENDS))
            machine.crash_points.arm(kind, self.chance.randint(1, PRUNE_ENDS[kind]))
            try:
                machine.prune()
            except CrashError:
                fired[f"prune ended at {kind}"] += 1
            machine.crash_points.arm("", 0)
        strikes = self.chance.random() < 0.3

        def strike(method: str) -> None:
            if strikes and not changed and method == "list" and self.chance.random() < 0.5:
                changed.update(self._strike(before))

        machine.store.on_call = strike
        for pruned in machine.prune():
            fired["left" if pruned.problem else "pruned"] += 1
        machine.store.on_call = lambda _: None
        assert not machine.unproven, machine.unproven
        return changed

    def _strike(self, before: dict[str, bytes]) -> set[StoredRun]:
        """While a prune asks for objects, a file that is here changes, or an object goes."""
        machine, chance = self.machine, self.chance
        run = chance.choice(machine.local.runs)
        path = chance.choice([path for path in run.versions if path.startswith("generated_images/")])
        place = machine.local.path(run, path)
        if run.object_name(path) not in machine.store.objects or not place.exists():
            return set()
        if chance.random() < 0.5:
            machine.invariants.object_removed(run.object_name(path))
            fired["object removed under it"] += 1
        else:
            machine.local.put_image(run, path)
            before[str(place.relative_to(machine.local.root))] = place.read_bytes()
            fired["file changed under it"] += 1
        return {run}

    def _compare_pruned(self, before: dict[str, bytes], shown: object) -> None:
        """Only images and saved arguments are gone, and Pixaris lists the same runs."""
        root = self.machine.local.root
        after = snapshot(root)
        assert after.items() <= before.items()
        for path in before.keys() - after.keys():
            assert not path.endswith(("args.json", ".jsonl")), path
        assert as_pixaris_shows(root, images=False) == (shown[0], shown[1])  # type: ignore[index]

    def _pass_sends_nothing_of_old_runs(self) -> None:
        machine = self.machine
        old = {run.key for run in machine.local.runs if "_old" in run.key.run}
        uploads = len(machine.store.uploads)
        left = machine.run_pass(full=self.chance.random() < 0.3)
        sent = {RunKey(*remote.name.split("/")[1:4]) for remote in machine.store.uploads[uploads:]}
        newer = {
            run.key for run in machine.local.runs if any(len(all_) > 1 for all_ in run.versions.values())
        }
        assert sent & old <= newer, "a pruned run was sent again"
        del left

    def _pull(self) -> None:
        machine = self.machine
        for _ in range(self.chance.choice([0, 1, 1, 2])):
            kind = self.chance.choice(list(PULL_ENDS))
            machine.crash_points.arm(kind, self.chance.randint(1, PULL_ENDS[kind]))
            try:
                machine.pull("p")
            except CrashError:
                fired[f"pull ended at {kind}"] += 1
            machine.crash_points.arm("", 0)
        for pulled in machine.pull("p"):
            fired["pulled"] += bool(pulled.files)


def _stored_at(run: StoredRun) -> float:
    at = stored_at(run.key.run)
    assert at is not None
    return at


def snapshot(root: Path) -> dict[str, bytes]:
    """All files below a folder, by path; what is hidden, too."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def as_pixaris_shows(root: Path, *, images: bool = True) -> tuple[Any, ...]:
    """What Pixaris' own handler lists and loads."""
    handler = LocalExperimentHandler(str(root))
    places = {project: sorted(found) for project, found in handler.load_projects_and_datasets().items()}
    frames, pictures = {}, {}
    for project, datasets in places.items():
        for dataset in datasets:
            frame = handler.load_experiment_results_for_dataset(project, dataset)
            frames[project, dataset] = frame.to_csv()
            for run in frame["experiment_run_name"]:
                found = handler.load_images_for_experiment(project, dataset, run, str(root))
                pictures[run] = [Path(path).read_bytes() for path in found] if images else []
    return (places, frames, pictures) if images else (places, frames)


@pytest.mark.parametrize("first", range(FIRST, FIRST + HISTORIES, CHUNK))
def test_pruned_histories(first: int, caplog: pytest.LogCaptureFixture, tell: Tell) -> None:
    """Goal: nothing is removed that was not proven at that moment, and all of it comes back as it was.

    Method: a history for each seed, with crashes and changes by others; see `History.run`.
    """
    caplog.set_level("CRITICAL")
    seeds = range(first, min(first + CHUNK, FIRST + HISTORIES))
    for seed in seeds:
        run_history(seed)
    tell("histories with prune and pull", {"histories": len(seeds)})


def run_history(seed: int) -> None:
    """One history; whatever is wrong with it fails, with the seed in a note."""
    with in_memory_folder() as folder:
        try:
            History(seed, folder).run()
        except Exception as error:
            error.add_note(f"this is history {seed}; replay it with PIXARIS_SYNC_TEST_PRUNE_FIRST={seed}")
            raise


def test_everything_happened_in_them(tell: Tell) -> None:
    """Goal: the histories prove what they seem to. Method: each kind of event, in a thousand of them."""
    if not fired or HISTORIES < CHUNK:
        pytest.skip("too few histories were run")
    assert {"pruned", "pulled", "left"} <= fired.keys()
    if HISTORIES >= 500:
        assert not KINDS - {kind for kind, count in fired.items() if count}
    tell("what happened in them", dict(sorted(fired.items())))
