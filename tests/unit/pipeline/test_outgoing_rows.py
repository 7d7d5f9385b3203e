"""A load job is known by its rows and its place."""

from pixaris_sync.model import Destination
from pixaris_sync.pipeline.outgoing_rows import job_id

DESTINATION = Destination(gcp_project="gcp", bucket="bucket", bq_dataset="gcp.pixaris")


def test_a_load_job_is_of_one_delivery_of_these_rows_in_this_place_only() -> None:
    """Goal: found again after a crash, and taken for no other. Method: vary each part of what a job is."""
    ids = ["a", "b"]
    same = job_id(DESTINATION, "t", ids, 0, 1.5)
    assert same == job_id(DESTINATION, "t", ["b", "a"], 0, 1.5)
    assert same == job_id(DESTINATION._replace(bucket="other", bq_dataset="pixaris"), "t", ids, 0, 1.5)
    others = {
        job_id(DESTINATION._replace(bq_dataset="gcp.other"), "t", ids, 0, 1.5),
        job_id(DESTINATION._replace(bq_dataset="other.pixaris"), "t", ids, 0, 1.5),
        job_id(DESTINATION, "u", ids, 0, 1.5),
        job_id(DESTINATION, "t", ["a"], 0, 1.5),
        job_id(DESTINATION, "t", ids, 1, 1.5),
        job_id(DESTINATION, "t", ids, 0, 2.5),
    }
    assert len(others | {same}) == 7
