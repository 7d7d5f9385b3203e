"""The rooms of the package and what each may import: one direction, like a river.

``cli`` stands highest and wires everything; below come ``daemon`` and ``report``, then the engine, then the
adapters to the outside worlds, which never know each other, then pure modules, then the vocabulary. Every
module has a room in `ROOMS`; a new one without a room fails.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import typer.main

import pixaris_sync
from pixaris_sync.cli.app import app

PACKAGE = Path(pixaris_sync.__file__).parent
LINES_MAX = 350

#: From the highest to the lowest: who stands in which layer may import what stands below it.
LAYERS = (
    ("cli",),
    ("daemon", "report"),
    ("pipeline", "verify"),
    ("scan", "watch", "ledger", "storage", "warehouse", "clock", "filesystems", "ownership", "priority"),
    ("pure",),
    ("vocabulary",),
)
#: It stands apart: it knows errors and itself, and only ``cli`` knows it.
SANDBOX = "sandbox"
#: Which modules are in which room. A folder stands for all modules in it.
ROOMS = {
    "__init__": "vocabulary",
    "__main__": "cli",
    "bandwidth": "pure",
    "cli": "cli",
    "clock": "clock",
    "concurrency": "pure",
    "contents": "scan",
    "contract": "pure",
    "cpu": "pure",
    "daemon": "daemon",
    "doorbell": "watch",
    "errors": "vocabulary",
    "files": "scan",
    "filesystems": "filesystems",
    "images": "scan",
    "imports": "pure",
    "inspection": "scan",
    "ledger": "ledger",
    "limits": "pure",
    "live_limits": "ownership",
    "memory": "priority",
    "model": "vocabulary",
    "names": "pure",
    "ownership": "ownership",
    "pipeline": "pipeline",
    "planner": "pure",
    "ports": "pure",
    "priority": "priority",
    "readback": "pure",
    "recovery": "pure",
    "report": "report",
    "retry": "pure",
    "sandbox": SANDBOX,
    "scan": "scan",
    "schema": "pure",
    "scrubbing": "pure",
    "settings": "pure",
    "storage": "storage",
    "storage_answers": "storage",
    "storage_bodies": "storage",
    "storage_connection": "storage",
    "storage_deadlines": "storage",
    "storage_session": "storage",
    "tailing": "scan",
    "tracking": "pure",
    "verify": "verify",
    "warehouse": "warehouse",
    "warehouse_calls": "warehouse",
    "warehouse_errors": "warehouse",
    "warehouse_rows": "warehouse",
    "warehouse_imports": "warehouse",
    "warehouse_sql": "warehouse",
    "watch": "watch",
    "watch_events": "watch",
}
#: Concrete adapters that only ``cli`` puts behind the ports.
WIRED = ("storage", "warehouse")
#: Libraries without disk, network, clock or tasks: all that pure modules and the vocabulary may use.
PURE_LIBRARIES = frozenset(
    {
        "codecs",
        "collections",
        "dataclasses",
        "enum",
        "functools",
        "hashlib",
        "itertools",
        "json",
        "math",
        "re",
        "types",
        "typing",
        "unicodedata",
    }
)
#: Every exception to it, by module. `random` is there for the type of a generator that is handed in.
PURE_EXCEPTIONS = {
    # Reads the environment and Pixaris' config.yaml; that is its work.
    "settings": frozenset({"os", "pathlib", "platformdirs", "pydantic", "yaml"}),
    # Speaks to the interpreter, not to the world.
    "imports": frozenset({"contextlib", "gc"}),
    # `anyio.Event`, to let tasks wait for free memory.
    "limits": frozenset({"anyio", "random"}),
    "retry": frozenset({"email", "random"}),
}
#: Which rooms alone may know a client of an outside world.
CLIENTS = {
    "aiohttp": {"storage"},
    "gcloud": {"storage"},
    "google": {"warehouse", SANDBOX},
    "requests": {"warehouse"},
    "urllib3": {"warehouse"},
    "watchfiles": {"watch"},
    "typer": {"cli"},
    "rich": {"cli", SANDBOX},
    "signal": {"cli", "daemon", SANDBOX},
}
#: What costs more than the whole rest of a `--help`.
HEAVY = ("PIL", "aiohttp", "google", "gradio", "numpy", "pandas", "watchfiles")

COMMANDS = sorted(typer.main.get_group(app).commands)


@dataclass(frozen=True)
class Module:
    """A module: its dotted name below the package, the room it is in, and what it imports when."""

    name: str
    path: Path
    room: str

    @property
    def tree(self) -> ast.Module:
        return _parsed(self.path)


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


PATHS = sorted(PACKAGE.rglob("*.py"))
#: A module without a room has its own test; here it would only hide behind a KeyError.
MODULES = [
    Module(_name(path), path, room)
    for path in PATHS
    if (room := ROOMS.get(_name(path).split(".")[0])) is not None
]
NAMES = {module.name for module in MODULES}


def _imports(tree: ast.Module, *, at_run_time: bool) -> Iterator[str]:
    """Dotted names of what a module imports, also in functions; `at_run_time`: not for types alone."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if at_run_time and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting.extend(node.orelse)
            continue
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where they lead"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _internal(module: Module) -> set[str]:
    """The modules of this package that a module imports, types included."""
    found = set()
    for name in _imports(module.tree, at_run_time=False):
        first, _, rest = name.partition(".")
        if first != PACKAGE.name:
            continue
        # What is imported from a module is no module; of the package itself only the version is.
        while rest and rest not in NAMES:
            rest = rest.rpartition(".")[0]
        found.add(rest or "__init__")
    return found


def _libraries(module: Module) -> set[str]:
    """The libraries that a module imports when it is run."""
    return {name.split(".")[0] for name in _imports(module.tree, at_run_time=True)} - {PACKAGE.name}


def _layer(room: str) -> int:
    return next(index for index, rooms in enumerate(LAYERS) if room in rooms)


def _may_import(importer: str, imported: Module) -> bool:
    """Whether a room may know a module of another."""
    if importer == imported.room:
        return True
    if SANDBOX in (importer, imported.room):
        return importer == "cli" or imported.name == "errors"
    if imported.room in WIRED:
        return importer == "cli"
    return _layer(importer) < _layer(imported.room)


def test_every_module_has_a_room_and_every_room_a_module() -> None:
    """Goal: no module is outside the rules. Method: compare the table with the package's files."""
    there = {_name(path).split(".")[0] for path in PATHS}
    assert there == ROOMS.keys()
    assert {*ROOMS.values()} == {room for rooms in LAYERS for room in rooms} | {SANDBOX}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_module_imports_only_from_its_room_and_from_below(module: Module) -> None:
    """Goal: one direction. Method: each import, also those for types alone, must be allowed by the layers."""
    by_name = {other.name: other for other in MODULES}
    above = sorted(name for name in _internal(module) if not _may_import(module.room, by_name[name]))
    assert not above, f"{module.name} ({module.room}) must not know {above}"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_module_is_read_in_one_sitting(module: Module) -> None:
    """Goal: no god files. Method: count lines."""
    lines = module.path.read_bytes().count(b"\n")
    assert lines <= LINES_MAX


@pytest.mark.parametrize(
    "module",
    [module for module in MODULES if module.room in ("pure", "vocabulary")],
    ids=lambda module: module.name,
)
def test_a_pure_module_knows_neither_disk_nor_network_nor_clock(module: Module) -> None:
    """Goal: decisions are functions of values. Method: only listed libraries, no built-in for I/O."""
    allowed = PURE_LIBRARIES | PURE_EXCEPTIONS.get(module.name, frozenset())
    assert _libraries(module) <= allowed
    called = {
        node.func.id
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"open", "print", "input", "exec", "eval", "__import__"}


def test_every_exception_for_pure_modules_is_in_use() -> None:
    """Goal: no leave that nobody needs. Method: compare each exception with what the module imports."""
    by_name = {module.name: module for module in MODULES}
    for name, libraries in PURE_EXCEPTIONS.items():
        assert libraries <= _libraries(by_name[name]), name


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_client_is_known_to_its_adapter_alone(module: Module) -> None:
    """Goal: another client, or command line, is one room's business. Method: libraries against `CLIENTS`."""
    foreign = {
        library for library in _libraries(module) & CLIENTS.keys() if module.room not in CLIENTS[library]
    }
    assert not foreign


def test_the_rules_find_what_breaks_them(tmp_path: Path) -> None:
    """Goal: the checks above can fail. Method: a module that breaks them, seen through the same functions."""
    path = tmp_path / "planner.py"
    path.write_text(
        "import os\n"
        "from typing import TYPE_CHECKING\n"
        "from pixaris_sync.ledger import rows\n"
        "from pixaris_sync import report, __version__\n"
        "if TYPE_CHECKING:\n    import pandas\n    from pixaris_sync.storage import GcsObjectStore\n"
        "def later():\n    from pixaris_sync.sandbox.demo import run_demo\n",
        encoding="utf-8",
    )
    module = Module("planner", path, "pure")
    by_name = {other.name: other for other in MODULES}
    forbidden = {name for name in _internal(module) if not _may_import("pure", by_name[name])}
    assert forbidden == {"ledger.rows", "report", "storage", "sandbox.demo"}
    assert _libraries(module) - PURE_LIBRARIES == {"os"}
    assert not _may_import("pipeline", by_name["storage"])
    assert not _may_import("scan", by_name["watch"])
    assert not _may_import("sandbox", by_name["model"])


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_nothing_heavy(command: str) -> None:
    """Goal: help and completion answer at once. Method: what a fresh interpreter holds after --help."""
    code = (
        "import atexit, sys\n"
        "def tell():\n"
        f"    print('heavy:', *sorted({set(HEAVY)!r} & sys.modules.keys()), file=sys.stderr)\n"
        "atexit.register(tell)\n"
        "from pixaris_sync.cli import main\n"
        "main()\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, *command.split(), "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "Usage:" in shown.stdout
    assert shown.stderr.splitlines()[-1] == "heavy:"
