"""A run is in exactly one state: transitions in any order, judged by a model that knows no SQL."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pixaris_sync.ledger import datasets, intake, pending_rows, retry, rows, uploads
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.ledger.states import FILE_TRANSITIONS, ROW_TRANSITIONS
from pixaris_sync.model import DeliveryMethod, Problem
from tests.support.ledgers import ALL, TABLE, Book, file, found_run, record

RUNS = [f"20240101-00000{number}_x" for number in range(3)]
PATHS = ["generated_images/a.png", "generated_images/b.png"]
CAUSES = ("first cause", "second cause")
#: Every change that may be, by what changes.
TRANSITIONS: dict[str, set[tuple[str | None, str, str | None]]] = {
    "file": {(one.state, one.event, one.next_state) for one in FILE_TRANSITIONS},
    "row": {(one.state, one.event, one.next_state) for one in ROW_TRANSITIONS},
}
#: Functions that bring the event of another.
EVENTS = {"take_in_runs": "take_in"}
T = TypeVar("T")
runs = st.sampled_from(RUNS)
problems = st.sampled_from([Problem(cause, "hint") for cause in CAUSES])


@dataclass
class ModelFile:
    version: int
    state: str = "pending"
    cause: str | None = None
    ours: bool = False
    taken: bool = False
    forget_unless_found: bool = False
    #: It was left as it is, and it is not known what the bucket has.
    left: bool = False

    def wait(self) -> None:
        """Be where a file waits that may be in the bucket, or that is not."""
        self.state = "in_doubt" if self.taken else "pending"


@dataclass
class ModelRow:
    state: str
    cause: str | None = None
    taken: bool = False
    accepted: bool = False
    sent: bool = False

    @property
    def complete(self) -> bool:
        """Whether its files were all there once."""
        return self.sent or self.state == "synced"


@dataclass
class ModelRun:
    files: dict[str, ModelFile] = field(default_factory=dict)
    rows: dict[int, ModelRow] = field(default_factory=dict)
    folder_cause: str | None = None
    inspected: bool = False

    @property
    def open_parts(self) -> list[ModelFile | ModelRow]:
        return [
            *(one for one in self.files.values() if one.state != "uploaded"),
            *(one for one in self.rows.values() if one.state != "synced"),
        ]

    @property
    def held(self) -> bool:
        """Whether its files wait for an answer of the table."""
        return any(one.state == "unasked" and one.cause is None for one in self.rows.values())

    @property
    def ready(self) -> bool:
        uploaded = all(one.state == "uploaded" for one in self.files.values())
        return uploaded and self.folder_cause is None and self.inspected

    def state(self, dataset_cause: str | None) -> str:
        """The rule in plain words: the worst thing that is true of it."""
        if dataset_cause and self.open_parts:
            return "quarantined"
        if self.folder_cause and not self.held:
            return "quarantined"
        if any(one.state == "quarantined" for one in self.open_parts):
            return "quarantined"
        if any(one.cause for one in self.open_parts):
            return "failing"
        return "pending" if self.open_parts else "synced"


class WatchedBook(Book):
    """A ledger of which every change must stand in the tables of transitions."""

    def do(self, transition: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """See `Book.do`."""
        with self._watched(transition.__name__):
            return super().do(transition, *args, **kwargs)

    def claim(
        self, count: int = 100, selection: Selection = ALL, *, later_seconds: float = 0.0
    ) -> list[uploads.UploadTask]:
        """See `Book.claim`."""
        with self._watched("claim"):
            return super().claim(count, selection, later_seconds=later_seconds)

    @contextmanager
    def _watched(self, event: str) -> Iterator[None]:
        before = self._all_states()
        yield
        after = self._all_states()
        for part in before.keys() | after.keys():
            change = (before.get(part), EVENTS.get(event, event), after.get(part))
            assert change[0] == change[2] or change in TRANSITIONS[part[0]], change

    def _all_states(self) -> dict[tuple[str, str, Any], str]:
        files = self.select("SELECT run_name, path, state FROM files")
        records = self.select("SELECT run_name, line, state FROM records")
        return {
            **{("file", row["run_name"], row["path"]): row["state"] for row in files},
            **{("row", row["run_name"], row["line"]): row["state"] for row in records},
        }


class Ledger(RuleBasedStateMachine):
    """Drives every transition as the engine may, beside a model of what must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="pixaris-sync-standing-"))
        self.book = WatchedBook(self.folder)
        self.dataset_id = self.book.dataset()
        self.model: dict[str, ModelRun] = {}
        self.dataset_cause: str | None = None
        self.tasks: list[uploads.UploadTask] = []
        self.sending: list[pending_rows.PendingRow] = []
        self.lines = 0

    def teardown(self) -> None:
        self.book.ledger.close()
        shutil.rmtree(self.folder)

    def model_file(self, task: uploads.UploadTask) -> ModelFile:
        return self.model[task.run.run].files[task.path]

    def model_row(self, row: pending_rows.PendingRow) -> ModelRow:
        return self.model[row.run.run].rows[row.line]

    def look_into(
        self, name: str, versions: dict[str, int], problem: Problem | None, *, new_record: bool = False
    ) -> None:
        run = self.model.setdefault(name, ModelRun())
        run.inspected = True
        uploaded = bool(run.files) and all(one.state == "uploaded" for one in run.files.values())
        complete = uploaded or (bool(run.rows) and all(one.complete for one in run.rows.values()))
        # A new record may need files that were never there.
        complete = complete and not new_record
        run.folder_cause = problem.cause if problem and not complete else None
        for path, version in versions.items() if problem is None or complete else ():
            known = run.files.get(path)
            if known is None:
                run.files[path] = ModelFile(version)
                continue
            known.forget_unless_found = False
            if known.version != version:
                known.version = version
                known.taken |= known.left
                known.left = False
                if known.state != "uploading":
                    known.wait()
                    known.cause = None
        if problem is None or complete:
            self.let_go(run, set(versions))

    def let_go(self, run: ModelRun, found: set[str]) -> None:
        for path, one in list(run.files.items()):
            if not one.forget_unless_found or one.state in ("uploading", "uploaded"):
                continue
            if path in found:
                one.forget_unless_found = False
            elif one.ours:
                run.files[path] = ModelFile(-1, "uploaded", ours=True, left=one.taken)
            else:
                del run.files[path]

    # -- what a scan finds ---------------------------------------------------------------------------------

    @rule(
        name=runs,
        versions=st.dictionaries(st.sampled_from(PATHS), st.integers(1, 3)),
        problem=st.none() | problems,
        just_written=st.booleans(),
    )
    def store_a_run(
        self, name: str, versions: dict[str, int], problem: Problem | None, *, just_written: bool
    ) -> None:
        self.lines += 1
        files = [file(path, size=version) for path, version in versions.items()]
        one = record(name, line=self.lines, note=self.lines)
        run = found_run(one, name=name, files=files, problem=problem, just_written=just_written)
        self.book.take(run, dataset_id=self.dataset_id)
        self.look_into(name, versions, problem, new_record=True)
        self.model[name].rows[self.lines] = ModelRow("pending" if just_written else "unasked")

    @precondition(lambda self: self.model)
    @rule(data=st.data(), versions=st.dictionaries(st.sampled_from(PATHS), st.integers(1, 3)))
    def look_at_a_folder_again(self, data: st.DataObject, versions: dict[str, int]) -> None:
        name = data.draw(st.sampled_from(sorted(self.model)))
        problem = data.draw(st.none() | problems)
        files = [file(path, size=version) for path, version in versions.items()]
        found = found_run(name=name, files=files, problem=problem)
        self.book.do(intake.take_in_runs, self.dataset_id, [found])
        self.look_into(name, versions, problem)

    @rule(problem=st.none() | problems)
    def judge_the_dataset(self, problem: Problem | None) -> None:
        self.book.do(datasets.refuse_dataset, self.dataset_id, problem)
        self.dataset_cause = problem.cause if problem else None

    # -- files ---------------------------------------------------------------------------------------------

    @rule(count=st.integers(1, 4))
    def claim_files(self, count: int) -> None:
        waiting = [
            one
            for run in self.model.values()
            if run.folder_cause is None and self.dataset_cause is None and not run.held
            for one in run.files.values()
            if one.state in ("pending", "in_doubt")
        ]
        claimed = self.book.claim(count, later_seconds=1)
        assert len(claimed) == min(count, len(waiting))
        for task in claimed:
            self.model_file(task).state = "uploading"
        self.tasks += claimed

    @precondition(lambda self: self.tasks)
    @rule(was_there=st.booleans())
    def confirm_a_file(self, *, was_there: bool) -> None:
        task = self.tasks.pop()
        self.book.upload(task, was_there=was_there)
        one = self.model_file(task)
        one.ours, one.taken = True, False
        if one.version == task.version.size:
            one.state, one.cause, one.forget_unless_found = "uploaded", None, False
        else:
            one.state = "pending"
        for row in self.model[task.run.run].rows.values() if was_there else ():
            if row.state in ("pending", "unasked"):
                row.taken = True
                row.state = "in_doubt" if row.state == "pending" else "unasked"

    @precondition(lambda self: self.tasks)
    @rule(problem=problems, in_doubt=st.booleans())
    def put_a_file_off(self, problem: Problem, *, in_doubt: bool) -> None:
        task = self.tasks.pop()
        now = self.book.now
        self.book.do(uploads.reschedule_upload, task, problem, next_attempt_at=now, in_doubt=in_doubt)
        one = self.model_file(task)
        one.taken |= in_doubt
        one.wait()
        one.cause = problem.cause

    @precondition(lambda self: self.tasks)
    @rule(problem=problems)
    def give_a_file_up(self, problem: Problem) -> None:
        task = self.tasks.pop()
        self.book.do(uploads.quarantine_upload, task, problem)
        one = self.model_file(task)
        if one.version == task.version.size:
            one.state, one.cause = "quarantined", problem.cause
        else:
            one.wait()
            one.cause = None

    @precondition(lambda self: self.tasks)
    @rule()
    def give_a_file_back(self) -> None:
        task = self.tasks.pop()
        self.book.do(uploads.unclaim, task, in_doubt=True)
        self.model_file(task).taken = True
        self.model_file(task).wait()

    # -- rows ----------------------------------------------------------------------------------------------

    @precondition(lambda self: not self.sending)
    @rule(method=st.sampled_from(DeliveryMethod), count=st.integers(1, 4))
    def send_rows(self, method: DeliveryMethod, count: int) -> None:
        waiting = [
            row
            for run in self.model.values()
            if run.ready and self.dataset_cause is None
            for row in run.rows.values()
            if row.state == "pending"
        ]
        found = self.book.ready(count)
        assert len(found) == min(count, len(waiting))
        if found:
            self.book.do(rows.start_delivery, TABLE, found, method, "job")
            self.sending = found
            for row in found:
                self.model_row(row).state, self.model_row(row).sent = "sending", True

    @precondition(lambda self: self.sending)
    @rule(outcome=st.sampled_from(["accepted", "in_doubt", "pending", "quarantined"]), problem=problems)
    def end_a_delivery(self, outcome: str, problem: Problem) -> None:
        found, self.sending = self.sending, []
        if outcome == "accepted":
            self.book.do(rows.accept_rows, found)
        elif outcome == "in_doubt":
            self.book.do(rows.mark_in_doubt, found, problem, next_attempt_at=self.book.now)
        elif outcome == "pending":
            self.book.do(rows.reschedule_rows, found, problem)
        else:
            self.book.do(rows.quarantine_rows, found, problem)
        for row in map(self.model_row, found):
            row.state = outcome
            row.cause = None if outcome == "accepted" else problem.cause
            row.taken = outcome in ("accepted", "in_doubt") or (outcome == "quarantined" and row.taken)
            row.accepted = outcome == "accepted" or (outcome != "pending" and row.accepted)

    @rule(count=st.integers(1, 4), outcome=st.sampled_from(["there", "absent", "quarantined", "no answer"]))
    def ask_first(self, count: int, outcome: str) -> None:
        if self.sending:
            return
        found = self.book.ask(pending_rows.rows_to_ask_for, ALL, TABLE, count)
        expected = [row for run in self.model.values() for row in run.rows.values() if row.state == "unasked"]
        assert len(found) == (min(count, len(expected)) if self.dataset_cause is None else 0)
        problem = Problem(CAUSES[0], "hint")
        if outcome == "there":
            self.book.do(rows.confirm_rows, found)
        elif outcome == "absent":
            self.book.do(rows.permit_rows, found, doubt_until=self.book.now)
        elif outcome == "quarantined":
            self.book.do(rows.quarantine_rows, found, problem)
        else:
            self.book.do(rows.note_that_none_can_be_asked, TABLE, problem)
            for row in expected:
                row.cause = row.cause or problem.cause
            return
        for pending in found:
            row = self.model_row(pending)
            row.cause = problem.cause if outcome == "quarantined" else None
            row.state = {"there": "synced", "quarantined": "quarantined"}.get(
                outcome, "in_doubt" if row.taken else "pending"
            )
            if outcome == "there" and not row.sent:
                # It stood there before this ledger: what its folder lacks was removed by somebody.
                self.model[pending.run.run].folder_cause = None

    @rule(count=st.integers(1, 4), seen=st.booleans())
    def look_for_rows(self, count: int, *, seen: bool) -> None:
        found = self.book.do(pending_rows.rows_to_read_back, ALL, TABLE, count)
        assert all(self.model[row.run.run].ready for row in found)
        if seen:
            self.book.do(rows.confirm_rows, found)
        else:
            self.book.do(rows.reschedule_rows, found, by_load=True)
        for row in map(self.model_row, found):
            row.state, row.cause = ("synced" if seen else "pending"), None
            row.taken, row.accepted = row.taken and seen, row.accepted and seen

    # -- people and crashes --------------------------------------------------------------------------------

    @rule()
    def restart(self) -> None:
        loads = [row for row in self.sending if self._method(row) == DeliveryMethod.LOAD]
        for name in ("recover_uploads", "recover_deliveries"):
            self.book.do(getattr(uploads if name == "recover_uploads" else rows, name))
        for run in self.model.values():
            for one_row in run.rows.values():
                if one_row.state == "pending":
                    one_row.state, one_row.cause = "unasked", None
        for row in self.sending:
            if row not in loads:
                one = self.model_row(row)
                one.state, one.taken = "in_doubt", True
        self.sending, self.tasks = loads, []
        for run in self.model.values():
            for one_file in run.files.values():
                if one_file.state == "uploading":
                    one_file.state, one_file.taken = "in_doubt", True

    def _method(self, row: pending_rows.PendingRow) -> str:
        return str(
            self.book.one(
                "SELECT d.method FROM deliveries d JOIN records c ON c.delivery_id = d.id WHERE c.id = ?",
                row.id,
            )["method"]
        )

    @rule()
    def release_everything(self) -> None:
        for run in self.model.values():
            if run.state(self.dataset_cause) == "quarantined":
                run.folder_cause, run.inspected = None, False
                for one in run.files.values():
                    if one.state == "quarantined":
                        one.wait()
                        one.cause = None
                        one.forget_unless_found = True
                for row in run.rows.values():
                    if row.state == "quarantined":
                        row.state, row.cause = ("in_doubt" if row.taken else "unasked"), None
                        row.state = "accepted" if row.accepted else row.state
        self.book.do(retry.retry_runs, None)

    # -- what must hold ------------------------------------------------------------------------------------

    @invariant()
    def every_run_is_in_the_state_that_its_parts_make(self) -> None:
        found = {row["name"]: row for row in self.book.select("SELECT * FROM runs")}
        assert {name: row["state"] for name, row in found.items()} == {
            name: run.state(self.dataset_cause) for name, run in self.model.items()
        }
        for name, row in found.items():
            run = self.model[name]
            causes = {self.dataset_cause, run.folder_cause, *(one.cause for one in run.open_parts)}
            if row["state"] in ("quarantined", "failing"):
                assert row["cause"] is not None
                assert row["cause"] in causes
            else:
                assert (row["cause"], row["hint"]) == (None, None)

    @invariant()
    def every_file_is_where_the_model_has_it(self) -> None:
        found = self.book.select("SELECT run_name, path, state, cause, taken FROM files")
        assert {
            (row["run_name"], row["path"]): (row["state"], row["cause"], bool(row["taken"])) for row in found
        } == {
            (name, path): (one.state, one.cause, one.taken)
            for name, run in self.model.items()
            for path, one in run.files.items()
        }

    @invariant()
    def every_row_is_where_the_model_has_it_and_ready_with_its_files(self) -> None:
        found = self.book.select("SELECT run_name, line, state, cause, taken, ready, payload FROM records")
        assert {(row["run_name"], row["line"]): (row["state"], row["cause"]) for row in found} == {
            (name, line): (one.state, one.cause)
            for name, run in self.model.items()
            for line, one in run.rows.items()
        }
        for row in found:
            assert (row["payload"] is None) == (row["state"] == "synced")
            if row["state"] != "synced":
                assert bool(row["ready"]) == self.model[row["run_name"]].ready
                assert bool(row["taken"]) == self.model[row["run_name"]].rows[row["line"]].taken


TestStanding = Ledger.TestCase
TestStanding.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
