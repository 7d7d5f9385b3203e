"""A load job is known by its rows and its place."""

from dataclasses import replace

from pixaris_sync.model import Destination
from pixaris_sync.pipeline.outgoing_rows import job_id

DESTINATION = Destination(gcp_project="gcp", bucket="bucket", bq_dataset="gcp.pixaris")


def test_a_load_job_is_the_same_for_the_same_rows_in_the_same_place_only() -> None:
    """Goal: found again after a crash, and taken for no other. Method: vary each part of what a job is."""
    ids = ["a", "b"]
    same = job_id(DESTINATION, "t", ids, 0)
    assert same == job_id(DESTINATION, "t", ["b", "a"], 0)
    assert same == job_id(replace(DESTINATION, bucket="other", bq_dataset="pixaris"), "t", ids, 0)
    others = {
        job_id(replace(DESTINATION, bq_dataset="gcp.other"), "t", ids, 0),
        job_id(replace(DESTINATION, bq_dataset="other.pixaris"), "t", ids, 0),
        job_id(DESTINATION, "u", ids, 0),
        job_id(DESTINATION, "t", ["a"], 0),
        job_id(DESTINATION, "t", ids, 1),
    }
    assert len(others | {same}) == 6
