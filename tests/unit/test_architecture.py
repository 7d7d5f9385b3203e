"""The rooms of the package and what each may import: one direction, like a river.

``cli`` and ``handlers``, the two ways in, stand highest; below come what surrounds the engine and puts it
together, and what shows it; the engine; the adapters to the outside worlds, which never know each
other; then decisions by values alone, then the vocabulary.
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
LINES_MAX = 450
#: A module below this with one importer is half a thought: it belongs into its importer, or has a reason.
LINES_MIN = 80
ROOT_MODULES_MAX = 12

#: From the highest to the lowest: a room may import what stands in a layer below its own.
LAYERS = (
    ("cli", "handlers"),
    ("doctor",),
    ("process", "monitoring", "ui", "history", "plans"),
    ("pipeline", "verify"),
    ("local", "ledger", "gcs", "bigquery", "clock", "waiting"),
    ("login",),
    ("settings",),
    ("limits", "rules"),
    ("vocabulary",),
)
#: A folder of the package is a room, and so is a module in its root, but for these.
ROOMS_OF_ROOT_MODULES = {
    "__main__": "cli",
    **dict.fromkeys(("__init__", "errors", "footprint", "model", "ports", "text"), "vocabulary"),
}
#: It stands apart: it knows itself and what anybody may import, and only ``cli`` knows it.
SANDBOX = "sandbox"
PUBLIC = ("__init__", "errors")
#: The package itself gives what a room above it offers, to whoever asks: until then nothing is imported.
ON_DEMAND = {"__init__": "handlers"}
#: The modules below `LINES_MIN` that one module imports at most, and why each stands for itself.
SMALL = {
    "bigquery.inspection": "what is asked without the client that `trials` imports",
    "cli.doctor": "what `doctor` prints, apart from what it finds out",
    "doctor.configuration": "what doctor makes of the settings room, beside machine and cloud",
    "doctor.side_by_side": "how long anything may take, whatever is done",
    "__main__": "`python -m pixaris_sync` looks for it",
    "cli.streams": "what must be right before anything is printed",
    "cli.sandbox": "imports what starts emulators, which no other command may wait for",
    "gcs.tokens": "a login that blocks, for a client in an event loop",
    "handlers.frames": "tracking files as frames, beside runs that are stored",
    "ledger.queues": "which files are next, as statements, beside what becomes of them",
    "pipeline.snapshot": "what the engine decides by, beside how it does",
    "pipeline.tidying": "what is done for the ledger alone, beside what is carried",
    "local.page_cache": "what reading leaves behind, beside what is read",
    "cli.parameters": "what is given on a command line, beside how help shows it",
    "limits.cpu": "one of three limits side by side: uploads, bandwidth, processor",
}
#: Concrete adapters, and the rooms that alone put them behind the ports.
WIRED = ("gcs", "bigquery")
WIRING = ("process", "handlers")
#: Rooms that decide by values alone.
PURE = ("settings", "limits", "rules", "vocabulary")
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
        "msgspec",
        "re",
        "types",
        "typing",
        "unicodedata",
    }
)
#: Every exception to it, by module. `random` is there for the type of a generator that is handed in.
PURE_EXCEPTIONS = {
    # Reads the environment and Pixaris' config.yaml; that is its work.
    "settings.model": frozenset({"os", "pathlib", "platformdirs"}),
    "settings.kinds": frozenset({"os", "pathlib", "urllib"}),
    "settings.bounds": frozenset({"pathlib"}),
    "settings.names": frozenset({"difflib"}),
    "settings.document": frozenset({"pathlib", "yaml"}),
    "settings.config_file": frozenset({"os", "pathlib"}),
    "settings.additions": frozenset({"yaml"}),
    "settings.sources": frozenset({"os", "pathlib", "shlex"}),
    # Speaks to the interpreter, not to the world.
    "footprint": frozenset(
        {
            *("atexit", "contextlib", "ctypes", "gc", "importlib", "os", "ssl", "sys", "threading"),
            "warnings",
        }
    ),
    # `anyio.Event`, to let tasks wait for free memory.
    "limits.gates": frozenset({"anyio", "random"}),
    "limits.backoff": frozenset({"email", "random"}),
    "limits.fleet": frozenset({"random"}),
    # Knows days and zones of time, and is told the moment.
    "limits.timetable": frozenset({"datetime"}),
    # Takes addresses to pieces, and asks nobody.
    "rules.addresses": frozenset({"ipaddress", "urllib"}),
}
#: Which rooms alone may know a client of an outside world.
CLIENTS = {
    "aiohttp": {"bigquery", "gcs", "monitoring"},
    "google": {"bigquery", "login", SANDBOX},
    "PIL": {"handlers", "local", "ui", SANDBOX},
    "gradio": {"ui"},
    "pandas": {"handlers"},
    "prometheus_client": {"monitoring"},
    "pixaris": {"ui", SANDBOX},
    "requests": {"bigquery", "login"},
    "urllib3": {"bigquery"},
    "watchfiles": {"local"},
    "typer": {"cli"},
    "rich": {"cli", "handlers", SANDBOX},
    "signal": {"cli", "process", SANDBOX},
}
#: What costs more than the whole rest of a `--help`.
HEAVY = frozenset(
    {"PIL", "aiohttp", "google", "gradio", "numpy", "pandas", "prometheus_client", "pydantic", "watchfiles"}
)

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

    @property
    def lines(self) -> int:
        return self.path.read_bytes().count(b"\n")


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def _room(name: str) -> str:
    first = name.partition(".")[0]
    return ROOMS_OF_ROOT_MODULES.get(first, first)


MODULES = [Module(_name(path), path, _room(_name(path))) for path in sorted(PACKAGE.rglob("*.py"))]
NAMES = {module.name for module in MODULES}
ROOMS = {module.room for module in MODULES}


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
        return importer == "cli" or imported.name in PUBLIC
    if imported.room in WIRED:
        return importer in WIRING
    return _layer(importer) < _layer(imported.room)


def test_every_room_has_a_layer_and_every_layer_its_rooms() -> None:
    """Goal: no folder is outside the rules. Method: compare the layers with the package's folders."""
    assert [room for rooms in LAYERS for room in rooms if room not in ROOMS] == []
    assert {room for rooms in LAYERS for room in rooms} | {SANDBOX} == ROOMS


def test_of_two_rooms_one_at_most_may_know_the_other() -> None:
    """Goal: one direction. Method: of each pair of rooms, what the rules allow both ways."""
    first = {module.room: module for module in reversed(MODULES)}
    for one in ROOMS:
        for other in ROOMS - {one}:
            allowed = [_may_import(one, first[other]), _may_import(other, first[one])]
            assert allowed.count(True) <= 1, (one, other)
            beside = any({one, other} <= {*rooms} for rooms in LAYERS) or SANDBOX in (one, other)
            wired = one in WIRED or other in WIRED
            assert any(allowed) or beside or wired, f"no rule tells which of {one} and {other} is above"


def test_the_root_holds_what_every_room_speaks_and_no_more() -> None:
    """Goal: the folder listing is the design. Method: count modules beside the folders."""
    assert len(list(PACKAGE.glob("*.py"))) <= ROOT_MODULES_MAX


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_module_imports_only_from_its_room_and_from_below(module: Module) -> None:
    """Goal: one direction. Method: each import, also those for types alone, must be allowed by the layers."""
    by_name = {other.name: other for other in MODULES}
    above = sorted(
        name
        for name in _internal(module)
        if not _may_import(module.room, by_name[name]) and by_name[name].room != ON_DEMAND.get(module.name)
    )
    assert not above, f"{module.name} ({module.room}) must not know {above}"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_a_module_is_read_in_one_sitting(module: Module) -> None:
    """Goal: no god files. Method: count lines."""
    assert module.lines <= LINES_MAX


def test_a_small_module_with_one_importer_has_a_reason() -> None:
    """Goal: no shards. Method: importers and lines of each module against `SMALL`, which holds no other."""
    importers: dict[str, set[str]] = {name: set() for name in NAMES}
    for module in MODULES:
        for name in _internal(module) - {module.name}:
            importers[name].add(module.name)
    small = {
        module.name
        for module in MODULES
        if module.lines < LINES_MIN and len(importers[module.name]) <= 1 and module.path.stem != "__init__"
    }
    assert small == SMALL.keys()


@pytest.mark.parametrize(
    "module",
    [module for module in MODULES if module.room in PURE],
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


def test_every_leave_to_know_a_client_is_in_use() -> None:
    """Goal: no leave that nobody needs. Method: each room of `CLIENTS` imports that library."""
    used = {(library, module.room) for module in MODULES for library in _libraries(module)}
    meant = {(library, room) for library, rooms in CLIENTS.items() for room in rooms}
    assert meant <= used


def test_the_rules_find_what_breaks_them(tmp_path: Path) -> None:
    """Goal: the checks above can fail. Method: a module that breaks them, seen through the same functions."""
    path = tmp_path / "planner.py"
    path.write_text(
        "import os\n"
        "from typing import TYPE_CHECKING\n"
        "from pixaris_sync.ledger import rows\n"
        "from pixaris_sync import cli, __version__\n"
        "if TYPE_CHECKING:\n    import pandas\n    from pixaris_sync.gcs.store import GcsObjectStore\n"
        "def later():\n    from pixaris_sync.sandbox.demo import run_demo\n",
        encoding="utf-8",
    )
    module = Module("rules.planner", path, "rules")
    by_name = {other.name: other for other in MODULES}
    forbidden = {name for name in _internal(module) if not _may_import("rules", by_name[name])}
    assert forbidden == {"ledger.rows", "cli", "gcs.store", "sandbox.demo"}
    assert _libraries(module) - PURE_LIBRARIES == {"os"}
    assert not _may_import("pipeline", by_name["gcs.store"])
    assert not _may_import("cli", by_name["bigquery.sink"])
    assert not _may_import("handlers", by_name["cli.app"])
    assert not _may_import("cli", by_name["handlers.local"])
    assert not _may_import("process", by_name["handlers.local"])
    assert not _may_import("ledger", by_name["local.watch"])
    assert not _may_import("limits", by_name["settings"])
    assert not _may_import("sandbox", by_name["model"])
    assert not _may_import("sandbox", by_name["handlers.local"])
    assert _may_import("process", by_name["gcs.store"])
    assert _may_import("handlers", by_name["gcs.store"])
    assert _may_import("handlers", by_name["process.ownership"])
    assert _may_import("pipeline", by_name["ledger.rows"])


@pytest.mark.parametrize("command", ["", *COMMANDS, "config show", "config init"])
def test_help_imports_nothing_heavy(command: str) -> None:
    """Goal: help and completion answer at once. Method: what a fresh interpreter holds after --help."""
    shown, imported = _imported_by("from pixaris_sync.cli import main\nmain()", *command.split(), "--help")
    assert "Usage:" in shown
    assert not imported & HEAVY


def test_the_package_imports_none_of_its_rooms() -> None:
    """Goal: the command pays for no handler. Method: what a fresh interpreter holds after the import."""
    _, imported = _imported_by("import pixaris_sync")
    assert not imported & HEAVY
    assert {name for name in imported if name.startswith("pixaris_sync")} == {"pixaris_sync"}


def test_a_pass_that_tells_no_metrics_imports_nothing_for_them() -> None:
    """Goal: what is not asked for costs nothing. Method: what is behind `watch`, `sync` and `backfill`."""
    _, imported = _imported_by("import pixaris_sync.cli.passes")
    assert "prometheus_client" not in imported
    shown = {name for name in imported if name.startswith("pixaris_sync.monitoring.")}
    assert shown == {"pixaris_sync.monitoring.grouping"}


def test_a_training_process_imports_what_it_stores_with_and_no_more(tmp_path: Path) -> None:
    """Goal: storing locally costs neither Google's clients nor pandas. Method: the same, after a run."""
    _, imported = _imported_by(
        "import sys\n"
        "from PIL import Image\n"
        "from pixaris_sync import ExperimentHandler, LocalExperimentHandler\n"
        "handler = LocalExperimentHandler(sys.argv[1], wait=False)\n"
        "assert isinstance(handler, ExperimentHandler)\n"
        "handler.store_results('p', 'd', 'r', [(Image.new('RGB', (1, 1)), 'a.png')], {})\n"
        "handler.close()",
        str(tmp_path),
    )
    assert (tmp_path / "p" / "d" / "experiment_tracking.jsonl").exists()
    # Pillow imports NumPy by itself, if it is there.
    assert imported & HEAVY <= {"PIL", "numpy"}


def _imported_by(code: str, *arguments: str) -> tuple[str, set[str]]:
    """What a fresh interpreter prints while it runs this code, and the modules that it holds at its end."""
    tell = "import atexit, sys\natexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
    done = subprocess.run(
        [sys.executable, "-c", tell + code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout, set(done.stderr.splitlines()[-1].split())
