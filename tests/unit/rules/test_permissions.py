"""The table of permissions: what a refusal names, and what is to be granted then."""

import pytest

from pixaris_sync.rules.permissions import (
    BUCKETS_GET,
    JOBS_CREATE,
    OBJECTS_GET,
    OBJECTS_LIST,
    PERMISSIONS,
    TABLES_GET,
    TABLES_GET_DATA,
    Place,
    grant_hint,
    named_in,
)


@pytest.mark.parametrize("name", PERMISSIONS)
def test_a_permission_is_found_in_the_words_of_a_refusal(name: str) -> None:
    """Goal: none is taken for another whose name begins alike. Method: each, in words of both services."""
    for words in (
        f"robot@p.iam.gserviceaccount.com does not have {name} access to the Google Cloud Storage object.",
        f"Access Denied: Table p:d.t: Permission {name} denied on table p:d.t (or it may not exist).",
        f"Permission '{name}' denied",
    ):
        assert named_in(words) == name


@pytest.mark.parametrize(
    "words",
    [
        "",
        "User does not have permission to query table p:d.t",
        "Permission bigquery.tables.getIamPolicy denied",
        "Permission storage.multipartUploads.create denied",
        "table p:bigquery.tables",
    ],
)
def test_what_is_not_used_is_not_named(words: str) -> None:
    """Goal: no wrong remedy. Method: refusals without a name, and with other names."""
    assert named_in(words) == ""


def test_a_hint_says_what_to_grant_on_what_and_which_role_has_it() -> None:
    """Goal: who does what it says has mended it. Method: one, several of one role, several places."""
    assert grant_hint([OBJECTS_LIST], "b") == (
        "grant storage.objects.list on bucket b, e.g. with Storage Object User (roles/storage.objectUser)"
    )
    several = grant_hint([OBJECTS_GET, OBJECTS_LIST, BUCKETS_GET], "b")
    assert "grant storage.objects.get and storage.objects.list on bucket b, e.g. with Storage Obj" in several
    assert several.endswith(
        "; and storage.buckets.get on bucket b, e.g. with Storage Bucket Viewer (roles/storage.bucketViewer)"
    )
    both = grant_hint([TABLES_GET_DATA, JOBS_CREATE])
    assert "on the dataset, e.g. with BigQuery Data Editor" in both
    assert "on the project, e.g. with BigQuery Job User" in both


def test_every_permission_is_in_its_place() -> None:
    """Goal: it is granted where it counts. Method: services against places."""
    for name, permission in PERMISSIONS.items():
        assert permission.name == name
        assert name.startswith("storage.") == (permission.place is Place.BUCKET)
        assert (permission.place is Place.PROJECT) == (name == JOBS_CREATE)
    assert PERMISSIONS[TABLES_GET].reads
