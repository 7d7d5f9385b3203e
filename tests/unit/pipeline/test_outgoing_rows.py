"""Which of the rows that were looked for a table shows: one row there answers for one record."""

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from pixaris_sync.ledger.pending_rows import PendingRow
from pixaris_sync.model import DatasetKey, Destination, RowState, RunKey
from pixaris_sync.pipeline.outgoing_rows import MappedRow, job_id, map_row, sort_by_presence

RUN = RunKey("shop", "shoes", "20240101-000001_x")
DESTINATION = Destination(gcp_project="gcp", bucket="bucket", bq_dataset="gcp.pixaris")


def mapped(number: int, value: object) -> MappedRow:
    payload = json.dumps({"experiment_run_name": RUN.run, "score": value})
    row = PendingRow(
        id=number,
        run=RUN,
        digest=payload,
        ordinal=0,
        line=number,
        payload=payload,
        state=RowState.IN_DOUBT,
        since=0.0,
        attempts=0,
        sends=1,
    )
    return map_row(row, DESTINATION)


def read(value: object) -> Mapping[str, object]:
    """A row as the table shows it, of which only the score differs."""
    return {cell.key: cell.value for cell in mapped(0, "").cells} | {"score": value}


@pytest.mark.parametrize(("shown", "found"), [(0, []), (1, [1]), (2, [1, 2]), (3, [1, 2])])
def test_equal_records_need_a_row_each(shown: int, found: list[int]) -> None:
    """Goal: neither doubled nor lost. Method: two equal records, and more and more rows."""
    batch = [mapped(1, "a"), mapped(2, "a")]
    there, missing = sort_by_presence(batch, [read("a")] * shown, {1: {}, 2: {}}, DESTINATION)
    assert [row.id for row in there] == found
    assert len(there) + len(missing) == 2


def test_records_that_differ_by_a_type_only_need_a_row_each() -> None:
    """Goal: the same where a column of text makes them look alike. Method: 1 and "1", and one row "1"."""
    batch = [mapped(1, 1), mapped(2, "1")]
    there, missing = sort_by_presence(batch, [read("1")], {1: {}, 2: {}}, DESTINATION)
    assert (len(there), len(missing)) == (1, 1)


@pytest.mark.parametrize(("synced", "found"), [(0, [1]), (1, [])])
def test_the_row_of_a_synced_record_answers_for_no_other(synced: int, found: list[int]) -> None:
    """Goal: what is synced keeps its row. Method: one row, and an equal record that is synced or not."""
    equals = {1: {DatasetKey(RUN.project, RUN.dataset): synced}}
    there, _ = sort_by_presence([mapped(1, "a")], [read("a")], equals, DESTINATION)
    assert [row.id for row in there] == found


def test_a_load_job_is_of_one_delivery_of_these_rows_in_this_place_only() -> None:
    """Goal: found again after a crash, and taken for no other. Method: vary each part of what a job is."""
    ids = ["a", "b"]
    same = job_id(DESTINATION, "t", ids, 0, 1.5)
    assert same == job_id(DESTINATION, "t", ["b", "a"], 0, 1.5)
    assert same == job_id(replace(DESTINATION, bucket="other", bq_dataset="pixaris"), "t", ids, 0, 1.5)
    others = {
        job_id(replace(DESTINATION, bq_dataset="gcp.other"), "t", ids, 0, 1.5),
        job_id(replace(DESTINATION, bq_dataset="other.pixaris"), "t", ids, 0, 1.5),
        job_id(DESTINATION, "u", ids, 0, 1.5),
        job_id(DESTINATION, "t", ["a"], 0, 1.5),
        job_id(DESTINATION, "t", ids, 1, 1.5),
        job_id(DESTINATION, "t", ids, 0, 2.5),
    }
    assert len(others | {same}) == 7
