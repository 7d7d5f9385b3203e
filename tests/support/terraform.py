"""The Terraform module of deploy/terraform as values, and the provider's schema to judge it by.

The schema is an extract of what the package ``cdktf-cdktf-provider-google`` carries, for the resources that
the module uses. It is made anew from that package's wheel, of which nothing is run or installed::

    python -m tests.support.terraform WHEEL
"""

import io
import json
import re
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import hcl2

from tests.support.documents import DEPLOY

MODULE: Final = DEPLOY / "terraform"
SCHEMA: Final = Path(__file__).with_name("terraform_provider.json")
#: Of every resource: Terraform's own, not the provider's.
META: Final = frozenset({"count", "for_each", "depends_on", "lifecycle", "provider"})
_BLOCK: Final = "__is_block__"
_COMMENTS: Final = ("__comments__", "__inline_comments__")


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource of the module: its type, its name, and its body, in which a block is a list."""

    type: str
    name: str
    body: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.type}.{self.name}"


@cache
def read_module(folder: Path = MODULE) -> Mapping[str, list[Any]]:
    """All blocks of a module, by their kind; parsing it takes a while."""
    found: dict[str, list[Any]] = {}
    for path in sorted(folder.glob("*.tf")):
        with path.open(encoding="utf-8") as file:
            for kind, blocks in _plain(hcl2.load(file)).items():
                found.setdefault(kind, []).extend(blocks)
    return found


def _plain(value: Any) -> Any:
    """What was read, with strings as they are meant and without comments."""
    if isinstance(value, dict):
        return {_plain(key): _plain(inner) for key, inner in value.items() if key not in _COMMENTS}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, str) and len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1]
    return value


def resources(module: Mapping[str, list[Any]]) -> list[Resource]:
    """The resources of a module."""
    return [
        Resource(kind, name, body)
        for block in module["resource"]
        for kind, named in block.items()
        for name, body in named.items()
    ]


def granted(account: str) -> set[str]:
    """The permissions of the custom roles for an account: ``writer`` or ``readers``."""
    module = read_module()
    [roles] = [block["roles"] for block in module["locals"] if "roles" in block]
    bindings = [one for one in resources(module) if one.name == account and "role" in one.body]
    names = [re.findall(r'custom_role\.roles\[\\?"(\w+)\\?"\]', one.body["role"]) for one in bindings]
    return {permission for [name] in names for permission in roles[name]}


# -- the provider's schema ---------------------------------------------------------------------------------


def read_schema() -> dict[str, Any]:
    """The extract: the provider's version, and its resources."""
    schema: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return schema


def faults(resource: Resource, schema: Mapping[str, Any]) -> Iterator[str]:
    """What the provider would refuse in a resource: unknown names, missing ones, blocks that are none."""
    known = schema["resources"].get(resource.type)
    if known is None:
        yield f"{resource}: no such resource"
        return
    body = {name: value for name, value in resource.body.items() if name not in META}
    yield from _body_faults(str(resource), body, known["arguments"])


def _body_faults(where: str, body: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[str]:
    given = {name: value for name, value in body.items() if name != _BLOCK}
    for name in given.keys() - known.keys():
        yield f"{where}: it has no argument {name}"
    for name, argument in known.items():
        if argument["required"] and name not in given:
            yield f"{where}: it needs {name}"
    for name in given.keys() & known.keys():
        inner, value = known[name].get("block"), given[name]
        blocks = isinstance(value, list) and all(isinstance(one, dict) and _BLOCK in one for one in value)
        if blocks != (inner is not None):
            yield f"{where}: {name} is {'an argument' if blocks else 'a block'}"
        elif inner is not None:
            for one in value:
                yield from _body_faults(f"{where}.{name}", one, inner)


def extract(wheel: Path) -> dict[str, Any]:
    """What the wheel says of the resources that the module uses."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(archive.read(name))) as package:
            member = package.extractfile("package/.jsii")
            assert member is not None
            assembly = json.load(member)
    version = re.search(r"hashicorp/google/([\d.]+)", assembly["readme"]["markdown"])
    assert version
    used = sorted({resource.type for resource in resources(read_module())})
    return {
        "made by": "python -m tests.support.terraform WHEEL",
        "made from": wheel.name,
        "provider": version[1],
        "resources": {name: _of_resource(assembly["types"], name) for name in used},
    }


def _of_resource(types: Mapping[str, Any], name: str) -> dict[str, Any]:
    title = "".join(part.capitalize() for part in name.removeprefix("google_").split("_"))
    package = f"@cdktf/provider-google.{title[0].lower()}{title[1:]}"
    # What ends so is about the package's own classes.
    own = re.compile(r".*Input|tfResourceType|timeouts")
    attributes = (
        one["name"]
        for one in types[f"{package}.{title}"]["properties"]
        if one.get("immutable") and not own.fullmatch(one["name"])
    )
    arguments = _arguments(types, f"{package}.{title}Config")
    return {"arguments": arguments, "attributes": sorted({*map(_snake, attributes), *arguments})}


def _arguments(types: Mapping[str, Any], struct: str) -> dict[str, Any]:
    found = {}
    for one in types[struct]["properties"]:
        argument: dict[str, Any] = {"required": not one.get("optional", False)}
        inner = re.search(rf"{re.escape(struct.rpartition('.')[0])}\.\w+", json.dumps(one["type"]))
        if inner:
            argument["block"] = _arguments(types, inner[0])
        found[_snake(one["name"])] = argument
    return dict(sorted(found.items()))


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


if __name__ == "__main__":
    SCHEMA.write_text(f"{json.dumps(extract(Path(sys.argv[1])), indent=1)}\n", encoding="utf-8")
