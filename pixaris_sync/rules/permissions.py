"""Which IAM permissions are used, where each must be granted, what for, and what is lost without it.

Errors, `doctor`, the documents and deploy/terraform speak of them by this one table. Tests record what every
command sends, and compare it with the table.

Sources: "IAM permissions for JSON methods" of Cloud Storage; "IAM Permissions" of each method in BigQuery's
REST reference (discovery document of 9 October 2026); "Required permissions" of the statements in BigQuery's
"Data definition language"; "Permissions to load data into BigQuery" in "Batch loading data". Whoever began a
job may follow it by ``bigquery.jobs.create``, and may list its own by no permission.
"""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple


class Place(StrEnum):
    """What a permission is granted on."""

    BUCKET = "bucket"
    DATASET = "dataset"
    PROJECT = "project"


class Permission(NamedTuple):
    """One IAM permission.

    Attributes:
        name: as IAM spells it.
        place: where it is used, and so the narrowest place to grant it on.
        used_for: what is done with it.
        without: what is not possible without it.
        vital: without it, runs do not become rows.
        reads: reading what is in the cloud needs it too (`verify`, `pull`, `ui`, the handlers that load).
    """

    name: str
    place: Place
    used_for: str
    without: str
    vital: bool
    reads: bool

    @property
    def role(self) -> str:
        """The predefined role that has it, by its title and its name."""
        if self.name == BUCKETS_GET:
            return "Storage Bucket Viewer (roles/storage.bucketViewer)"
        return _ROLES[self.place]


_ROLES: Final[Mapping[Place, str]] = MappingProxyType(
    {
        Place.BUCKET: "Storage Object User (roles/storage.objectUser)",
        Place.DATASET: "BigQuery Data Editor (roles/bigquery.dataEditor)",
        Place.PROJECT: "BigQuery Job User (roles/bigquery.jobUser)",
    }
)

OBJECTS_CREATE: Final = "storage.objects.create"
OBJECTS_DELETE: Final = "storage.objects.delete"
OBJECTS_GET: Final = "storage.objects.get"
OBJECTS_LIST: Final = "storage.objects.list"
BUCKETS_GET: Final = "storage.buckets.get"
DATASETS_GET: Final = "bigquery.datasets.get"
TABLES_CREATE: Final = "bigquery.tables.create"
TABLES_GET: Final = "bigquery.tables.get"
TABLES_GET_DATA: Final = "bigquery.tables.getData"
TABLES_LIST: Final = "bigquery.tables.list"
TABLES_UPDATE: Final = "bigquery.tables.update"
TABLES_UPDATE_DATA: Final = "bigquery.tables.updateData"
JOBS_CREATE: Final = "bigquery.jobs.create"

PERMISSIONS: Final[Mapping[str, Permission]] = MappingProxyType(
    {
        permission.name: permission
        for permission in (
            Permission(
                OBJECTS_CREATE,
                Place.BUCKET,
                "uploading files",
                "nothing can be uploaded",
                vital=True,
                reads=False,
            ),
            Permission(
                OBJECTS_DELETE,
                Place.BUCKET,
                "replacing the object of a file that has changed; nothing else is deleted",
                "a file that changed cannot replace its older version",
                vital=False,
                reads=False,
            ),
            Permission(
                OBJECTS_GET,
                Place.BUCKET,
                "looking objects up after a lost answer, and reading them",
                "objects cannot be looked up: after a lost answer a file waits, and neither `verify` nor "
                "`pull` nor `ui` can read",
                vital=False,
                reads=True,
            ),
            Permission(
                OBJECTS_LIST,
                Place.BUCKET,
                "seeing with a new ledger what the bucket holds, and listing runs",
                "a new ledger cannot see what the bucket holds, and sends all of it again; neither `verify` "
                "nor `pull` nor `ui` can list",
                vital=False,
                reads=True,
            ),
            Permission(
                BUCKETS_GET,
                Place.BUCKET,
                "telling how the bucket is set up",
                "how the bucket is set up cannot be seen",
                vital=False,
                reads=True,
            ),
            Permission(
                DATASETS_GET,
                Place.DATASET,
                "finding the dataset and where it is; streaming rows",
                "the dataset cannot be found",
                vital=True,
                reads=True,
            ),
            Permission(
                TABLES_CREATE,
                Place.DATASET,
                "creating tables, and loading rows",
                "tables cannot be created, nor rows be loaded",
                vital=True,
                reads=False,
            ),
            Permission(
                TABLES_GET,
                Place.DATASET,
                "finding a table's columns; streaming rows",
                "tables cannot be looked up",
                vital=True,
                reads=True,
            ),
            Permission(
                TABLES_GET_DATA,
                Place.DATASET,
                "asking which rows are there already, reading rows back, and loading frames",
                "rows cannot be read: nobody can tell which were sent, so that none is",
                vital=True,
                reads=True,
            ),
            Permission(
                TABLES_LIST,
                Place.DATASET,
                "telling which tables will be deleted at a set time (`doctor`)",
                "it cannot be seen whether tables will be deleted at a set time",
                vital=False,
                reads=False,
            ),
            Permission(
                TABLES_UPDATE,
                Place.DATASET,
                "adding and widening columns, and loading rows",
                "columns cannot be added, nor rows be loaded",
                vital=True,
                reads=False,
            ),
            Permission(
                TABLES_UPDATE_DATA,
                Place.DATASET,
                "streaming and loading rows",
                "no row can be written",
                vital=True,
                reads=False,
            ),
            Permission(
                JOBS_CREATE,
                Place.PROJECT,
                "queries and load jobs, which run in the project",
                "neither queries nor load jobs can be begun",
                vital=True,
                reads=True,
            ),
        )
    }
)

_NAMED: Final = re.compile(r"\b(?:storage|bigquery)(?:\.[A-Za-z]+){2}\b")


def named_in(text: str) -> str:
    """The permission of the table that a service's answer names; empty where it names none.

    Services put it into the message alone. What decides is the status; this only tells what to grant.
    """
    return next((name for name in _NAMED.findall(text) if name in PERMISSIONS), "")


def grant_hint(names: Iterable[str], bucket: str = "") -> str:
    """What to do where some of these permissions are missing: which, on what, and a role that has them.

    Args:
        names: permissions of the table.
        bucket: the bucket's name, if that is where they are missing.
    """
    by_role: dict[tuple[Place, str], list[str]] = {}
    for name in names:
        permission = PERMISSIONS[name]
        by_role.setdefault((permission.place, permission.role), []).append(name)
    parts = []
    for (place, role), missing in by_role.items():
        where = f"bucket {bucket}" if place is Place.BUCKET and bucket else f"the {place}"
        parts.append(f"{' and '.join(missing)} on {where}, e.g. with {role}")
    return f"grant {'; and '.join(parts)}"
