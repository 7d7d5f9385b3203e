"""deploy/terraform: what it makes fits the provider's schema, and grants what is used and nothing else.

Neither Google nor Terraform's registry is asked: the schema is an extract, see tests.support.terraform.
"""

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from pixaris_sync.rules.permissions import PERMISSIONS, Place
from pixaris_sync.settings.fields import SETTINGS
from pixaris_sync.settings.model import environment_variable
from tests.support.terraform import MODULE, Resource, faults, granted, read_module, read_schema, resources

TERRAFORM = shutil.which("terraform")
#: What each kind of binding grants on.
BINDINGS = {
    "google_storage_bucket_iam_member": Place.BUCKET,
    "google_bigquery_dataset_iam_member": Place.DATASET,
    "google_project_iam_member": Place.PROJECT,
}


def _found() -> list[Resource]:
    return resources(read_module())


def _of(kind: str) -> Resource:
    [one] = [resource for resource in _found() if resource.type == kind]
    return one


def test_every_argument_is_one_of_the_providers() -> None:
    """Goal: `terraform plan` refuses nothing. Method: each resource against the provider's schema."""
    schema = read_schema()
    found = _found()
    assert len(found) > len(BINDINGS)
    assert [fault for resource in found for fault in faults(resource, schema)] == []


def _misspelt(body: dict[str, Any]) -> None:
    body["uniform_bucket_access"] = body.pop("uniform_bucket_level_access")


def _without_location(body: dict[str, Any]) -> None:
    del body["location"]


def _no_block(body: dict[str, Any]) -> None:
    body["versioning"] = True


def _block(body: dict[str, Any]) -> None:
    body["location"] = [{"__is_block__": True}]


def _misspelt_within(body: dict[str, Any]) -> None:
    body["soft_delete_policy"][0]["retention_seconds"] = 1


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (_misspelt, "it has no argument uniform_bucket_access"),
        (_without_location, "it needs location"),
        (_no_block, "versioning is a block"),
        (_block, "location is an argument"),
        (_misspelt_within, "soft_delete_policy: it has no argument retention_seconds"),
    ],
)
def test_an_argument_that_the_provider_does_not_have_is_found(
    spoil: Callable[[dict[str, Any]], None], fault: str
) -> None:
    """Goal: the check above can fail. Method: the bucket with one fault each."""
    bucket = _of("google_storage_bucket")
    body = copy.deepcopy(dict(bucket.body))
    spoil(body)
    told = list(faults(Resource(bucket.type, bucket.name, body), read_schema()))
    assert len(told) == 1
    assert told[0].endswith(fault)
    assert list(faults(Resource("google_bucket", "x", body), read_schema())) == [
        "google_bucket.x: no such resource"
    ]


def test_every_reference_leads_somewhere() -> None:
    """Goal: no undeclared variable. Method: each reference of all expressions; each variable is used."""
    module, schema = read_module(), read_schema()
    text = json.dumps(module)
    declared = {name for block in module["variable"] for name in block}
    assert set(re.findall(r"\bvar\.(\w+)", text)) == declared
    local = {name for block in module["locals"] for name in block} - {"__is_block__"}
    assert set(re.findall(r"\blocal\.(\w+)", text)) == local
    made = {(one.type, one.name) for one in _found()}
    references = set(re.findall(r"\b(google_\w+)\.(\w+)(?:\[[^\]]*\])?\.(\w+)", text))
    assert references
    for kind, name, attribute in references:
        assert (kind, name) in made
        assert attribute in schema["resources"][kind]["attributes"], f"{kind}.{attribute}"


def test_the_provider_that_is_asked_for_is_the_one_of_the_schema() -> None:
    """Goal: what was checked is what runs. Method: the constraint against the extract's version."""
    [terraform] = read_module()["terraform"]
    asked = terraform["required_providers"][0]["google"]
    major_minor, _, _ = read_schema()["provider"].rpartition(".")
    assert (asked["source"], asked["version"]) == ("hashicorp/google", f"~> {major_minor}")


def test_the_roles_grant_what_is_used_and_nothing_else() -> None:
    """Goal: least privilege. Method: the roles of both kinds of account against the table of permissions.

    That the table is what the program uses, is seen in tests/integration/test_permissions.py.
    """
    assert granted("writer") == PERMISSIONS.keys()
    assert granted("readers") == {name for name, permission in PERMISSIONS.items() if permission.reads}


def test_every_permission_is_granted_on_the_narrowest_place() -> None:
    """Goal: nothing of another bucket or dataset. Method: the role of each binding against the table."""
    [roles] = [block["roles"] for block in read_module()["locals"]]
    bound = [one for one in _found() if one.type in BINDINGS]
    assert {one.type for one in bound} == BINDINGS.keys()
    for binding in bound:
        [role] = re.findall(r'custom_role\.roles\[\\?"(\w+)\\?"\]\.name', binding.body["role"])
        places = {PERMISSIONS[permission].place for permission in roles[role]}
        assert places == {BINDINGS[binding.type]}, str(binding)
        assert roles[role] == sorted(set(roles[role]))


def test_nothing_that_was_carried_is_deleted() -> None:
    """Goal: no result is lost to the set-up. Method: what `doctor` fails for, and what `destroy` would do."""
    bucket, dataset = _of("google_storage_bucket"), _of("google_bigquery_dataset")
    assert not {"lifecycle_rule", "retention_policy", "default_event_based_hold"} & bucket.body.keys()
    assert not {"default_table_expiration_ms", "default_partition_expiration_ms"} & dataset.body.keys()
    assert (bucket.body["force_destroy"], dataset.body["delete_contents_on_destroy"]) == (False, False)
    for one in (bucket, dataset):
        assert one.body["lifecycle"][0]["prevent_destroy"] is True
    assert bucket.body["location"] == dataset.body["location"] == "${var.location}"


def test_nobody_else_may_read_and_no_key_is_made() -> None:
    """Goal: nothing to steal. Method: the bucket's access, kinds of resources, and no basic role."""
    bucket = _of("google_storage_bucket").body
    assert (bucket["uniform_bucket_level_access"], bucket["public_access_prevention"]) == (True, "enforced")
    assert not [one for one in _found() if "key" in one.type]
    text = json.dumps(read_module())
    assert set(re.findall(r"roles/[\w.]+", text)) == {"roles/iam.workloadIdentityUser"}
    assert "allUsers" not in text
    assert "allAuthenticatedUsers" not in text


def test_its_output_is_a_whole_destination() -> None:
    """Goal: copied into an environment file, it works. Method: names of its lines against the settings."""
    [environment] = [
        block["environment"]["value"] for block in read_module()["output"] if "environment" in block
    ]
    lines = dict(re.findall(r"^ *(PIXARIS_SYNC_\w+)=(\S+)$", environment, re.MULTILINE))
    keys = ("gcp_project_id", "gcp_bq_experiment_dataset", "gcp_pixaris_bucket_name")
    assert all(key in SETTINGS for key in keys)
    assert list(lines) == [environment_variable(key) for key in keys]
    assert lines[environment_variable(keys[1])].startswith("${var.project_id}.")


@pytest.mark.skipif(TERRAFORM is None, reason="terraform is not installed")
def test_it_is_formatted_as_terraform_does_it() -> None:
    """Goal: no noise in changes. Method: `terraform fmt -check`, which needs no provider."""
    assert TERRAFORM
    done = subprocess.run(
        [TERRAFORM, "fmt", "-check", "-diff", "-recursive", str(MODULE)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
