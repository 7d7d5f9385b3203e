"""What others do to tables, to the bucket and to load jobs: delete, correct, add, hide, make anew, cancel.

What nobody could tell apart any more they leave alone: rows of runs that have several records in a table, of
which one is as good as another once its own is gone, and rows that are hidden while it is not known whether
they are there.
"""

import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from random import Random

from pixaris_sync.ledger.runs import OBJECT_WRITE_SECONDS
from pixaris_sync.model import Column, ColumnType, RowState
from tests.engine.invariants import Standing
from tests.engine.local_folder import MARKER, StoredRun
from tests.engine.machine import Machine
from tests.fakes.row_table import StoredRow, Table

_KEYS = ("experiment_run_name", MARKER)


class Others:
    """Lets others change a machine's cloud.

    Attributes:
        fired: how often each thing has happened.
        touched: names of runs that must not get another record, because rows or objects of theirs were
            removed.
    """

    def __init__(self, machine: Machine, chance: Random) -> None:
        self.fired: Counter[str] = Counter()
        self.touched: set[str] = set()
        self._machine = machine
        self._chance = chance
        self._made_anew: set[str] = set()

    def happen(self) -> None:
        """Let one thing happen, also while a process runs."""
        if self._machine.sink.queued and self._chance.random() < 0.3:
            self._cancel_load()
            return
        action = self._chance.choice(
            [
                self._delete_rows,
                self._fill_column,
                self._correct_cell,
                self._make_column_text,
                self._add_default,
                self._drop_table,
                self.recreate_table,
                self._remove_objects,
                self._remove_objects,
            ]
        )
        action()

    # -- what the ledger says ----------------------------------------------------------------------------

    def row_states(self) -> Mapping[Standing, RowState]:
        """The state of each record, as far as it is written down; a process may be working with it."""
        path = self._machine.ledger_path
        if not path.exists():
            return {}
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
            db.row_factory = sqlite3.Row
            return self._machine.invariants.row_states(db)

    # -- tables ------------------------------------------------------------------------------------------

    def _a_table(self) -> tuple[str, Table] | None:
        sink = self._machine.sink
        names = [name for name in sink.tables if sink.stored(name) and name not in sink.hidden]
        if not names:
            return None
        name = self._chance.choice(names)
        return name, sink.table(name)

    def all_told_apart(self) -> bool:
        """Whether each row tells of which record it is.

        It does not where a run was copied into a dataset that shares its table, and one is not synced.
        """
        records = Counter(Standing(record.run.table, record.marker) for record in self._machine.local.records)
        states = self.row_states()
        return all(
            count == 1 or states.get(standing) is RowState.SYNCED for standing, count in records.items()
        )

    def _lone_rows(self, table: str) -> list[StoredRow]:
        """Visible rows of runs that have one record in a table."""
        records = Counter(
            record.run.key.run for record in self._machine.local.records if record.run.table == table
        )
        now = self._machine.sink.clock.now()
        return [
            row
            for row in self._machine.sink.stored(table)
            if row.visible_at <= now and records[str(row.cells["experiment_run_name"])] == 1
        ]

    def _all_lone(self, table: str) -> bool:
        names = Counter(
            record.run.key.run for record in self._machine.local.records if record.run.table == table
        )
        return max(names.values(), default=0) <= 1

    def _some(self, table: str) -> list[StoredRow]:
        rows = self._lone_rows(table)
        return self._chance.sample(rows, self._chance.randint(1, len(rows))) if rows else []

    def _delete_rows(self) -> None:
        if (found := self._a_table()) is None:
            return
        name, _ = found
        rows = [row for row in self._some(name) if not self._is_pruned(name, row)]
        if rows:
            # One that its table took before it was made anew counts as gone with the old one.
            self._removed(name, rows, dropped=name in self._made_anew)
            self._machine.sink.remove_rows(name, rows)
            self.fired["deleted_rows"] += 1

    def _removed(self, table: str, rows: list[StoredRow], *, dropped: bool = False) -> None:
        self.touched |= {str(row.cells["experiment_run_name"]) for row in rows}
        self._machine.invariants.rows_removed(table, rows, self.row_states(), dropped=dropped)

    def _is_pruned(self, table: str, row: StoredRow) -> bool:
        name = row.cells["experiment_run_name"]
        return any(run.pruned and run.table == table and run.key.run == name for run in self._runs())

    def _fill_column(self) -> None:
        """Reviews: a column that records know nothing of."""
        if (found := self._a_table()) is None:
            return
        name, table = found
        if table.column("review") is None:
            table.add([Column("review", ColumnType.STRING)], self._machine.sink.clock.now())
        for row in self._lone_rows(name):
            row.cells["review"] = self._chance.choice(["good", "bad"])
            self.fired["filled_column"] += 1

    def _correct_cell(self) -> None:
        if (found := self._a_table()) is None:
            return
        name, table = found
        for row in self._some(name):
            others = [key for key in row.cells if key not in _KEYS]
            column = table.columns[self._chance.choice(others).casefold()]
            corrected = {
                ColumnType.STRING: "corrected",
                ColumnType.INTEGER: 4711,
                ColumnType.FLOAT: 4711.5,
                ColumnType.BOOLEAN: False,
            }
            if column.type in corrected:
                row.cells[column.name] = corrected[column.type]
                self.fired["corrected_cell"] += 1

    def _make_column_text(self) -> None:
        """A number's column becomes STRING in place: added, filled, dropped and renamed."""
        if (found := self._a_table()) is None:
            return
        _, table = found
        numbers = (ColumnType.INTEGER, ColumnType.FLOAT, ColumnType.BOOLEAN)
        names = [column.name for column in table.columns.values() if column.type in numbers]
        if names:
            table.make_text(self._chance.choice(names))
            self.fired["retyped_column"] += 1

    def _add_default(self) -> None:
        if (found := self._a_table()) is None:
            return
        _, table = found
        if table.column("created_at") is None:
            now = self._machine.sink.clock.now()
            table.add([Column("created_at", ColumnType.OTHER)], now)
            table.defaults["created_at"] = datetime.fromtimestamp(now, UTC)
            self.fired["default_column"] += 1

    def _drop_table(self) -> None:
        found = self._a_table()
        if found is None or not self._may_lose_all(found[0]):
            return
        name, table = found
        self._removed(name, table.rows, dropped=True)
        self._machine.sink.drop(name)
        self.fired["dropped_table"] += 1

    def recreate_table(self) -> None:
        """A table is made anew, mostly with columns of text, with or without its rows."""
        if (found := self._a_table()) is None:
            return
        name, table = found
        now = self._machine.sink.clock.now()
        kept = [row for row in table.rows if row.visible_at <= now] if self._chance.random() < 0.8 else []
        lost = [row for row in table.rows if row not in kept]
        if lost and not self._may_lose_all(name):
            return
        self._removed(name, lost, dropped=True)
        as_text = self._chance.random() < 0.4
        for column in list(table.columns.values()):
            if as_text and column.type is not ColumnType.OTHER:
                table.make_text(column.name)
        self._made_anew.add(name)
        self._machine.sink.recreate(name, list(table.columns.values()), kept)
        self.fired["recreated_table" if kept else "emptied_table"] += 1

    def _may_lose_all(self, table: str) -> bool:
        pruned = any(run.pruned and run.table == table for run in self._runs())
        return self._all_lone(table) and not pruned

    def hide_rows(self) -> None:
        """A row access policy hides a table's rows, all of which are known to be there."""
        if (found := self._a_table()) is None:
            return
        name, table = found
        states = self.row_states()
        # A row that was accepted is sent again where its table was made anew and does not show it.
        known = [RowState.SYNCED] if name in self._made_anew else [RowState.SYNCED, RowState.ACCEPTED]
        rows = Counter(Standing(name, int(row.cells[MARKER])) for row in table.rows if MARKER in row.cells)
        unknown = [key for key in states if key.table == name and states[key] not in known]
        under_way = any(request.table == name for request in self._machine.sink.held_back)
        under_way = under_way or any(load.table == name for load in self._machine.sink.queued.values())
        if under_way or any(rows[key] for key in unknown) or any(key not in states for key in rows):
            return
        if any(states[key] in (RowState.IN_DOUBT, RowState.SENDING) for key in unknown):
            return
        if max(rows.values()) > 1:
            return
        self._machine.invariants.rows_hidden(name, states)
        self._machine.sink.hidden.add(name)
        self._machine.cloud_faults.sure.add(name)
        self.fired["hidden_rows"] += 1

    def show_rows(self) -> None:
        """Nothing is hidden any more."""
        self._machine.sink.hidden.clear()
        self._machine.cloud_faults.sure.clear()

    # -- bucket and jobs ---------------------------------------------------------------------------------

    def _runs(self) -> list[StoredRun]:
        return self._machine.local.runs

    def _remove_objects(self) -> None:
        """A lifecycle rule, or a clean-up: objects of a run go, all or some."""
        store = self._machine.store
        # One that goes in the second in which it came could be written twice in a second.
        before = self._machine.clock.elapsed() - OBJECT_WRITE_SECONDS
        by_run = {
            run: [
                name
                for path in run.versions
                if (name := run.object_name(path)) in store.objects
                and store.written_at.get(name, 0.0) < before
            ]
            for run in self._runs()
        }
        runs = [run for run, names in by_run.items() if names]
        if not runs:
            return
        run = self._chance.choice(runs)
        for name in by_run[run]:
            if self._chance.random() < 0.7:
                self._machine.invariants.object_removed(name)
                self.fired["removed_objects"] += 1
        self.touched.add(run.key.run)

    def _cancel_load(self) -> None:
        self._machine.sink.cancel_job(self._chance.choice(sorted(self._machine.sink.queued)))
        self.fired["cancelled_load"] += 1
