"""The documents say what the code does: settings, exit codes, messages, columns, names of modules."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pixaris_sync
from pixaris_sync.model import Cell, Column, ColumnType
from pixaris_sync.rules.schema import plan_batch
from pixaris_sync.settings.sources import load_settings
from tests.support.documents import (
    COMMANDS,
    DEPLOY,
    DOCUMENTS,
    PARTS,
    REPOSITORY,
    TROUBLESHOOTING,
    name_of,
    rows_below,
    with_parts,
)
from tests.support.messages import explained, messages

README = REPOSITORY / "README.md"
#: The front page is read in one go; `wc -c` counts so.
README_BYTES = range(6_000, 8_501)
MAP = REPOSITORY / "pixaris_sync" / "README.md"
PACKAGE = Path(pixaris_sync.__file__).parent
ROOMS = sorted(path.parent for path in PACKAGE.glob("*/__init__.py"))
SOURCES = sorted(PACKAGE.rglob("*.py"))
RENEW = "run `make docs`"


def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_what_is_made_from_the_code_is_current(document: Path) -> None:
    """Goal: no stale table of settings, exit codes, commands or states. Method: make the parts anew."""
    assert with_parts(text_of(document)) == text_of(document), RENEW


def test_every_part_has_its_place() -> None:
    """Goal: no part gets lost. Method: its marks stand in exactly one document."""
    texts = "".join(map(text_of, DOCUMENTS))
    for name in PARTS:
        assert texts.count(f"<!-- {name} -->") == texts.count(f"<!-- /{name} -->") == 1, name


def test_every_message_is_explained() -> None:
    """Goal: who searches for a message's words finds its remedy. Method: each literal of the source."""
    page = text_of(TROUBLESHOOTING)
    lacking = [
        f"{message.place}: {message.text}" for message in messages() if not explained(message.text, page)
    ]
    assert lacking == []


def test_messages_are_found_in_the_source() -> None:
    """Goal: the test above tests something. Method: one message of each kind, one text of each other kind."""
    found = {message.text for message in messages()}
    assert {
        # An error's cause and its hint, a cause in a table, one in a statement, one with variable parts.
        "stdin is no terminal",
        "choose another --state-dir",
        "it is a folder, not a file",
        "being uploaded",
        "BigQuery refuses the row in table …: …",
    } <= found
    assert not [text for text in found if re.search(r"SELECT|Callable|^open ledger$|^look up table$", text)]


def test_a_message_that_nobody_wrote_is_not_explained() -> None:
    """Goal: the search can fail. Method: other words, and words that stand in two entries."""
    page = text_of(TROUBLESHOOTING)
    assert not explained("the moon is full", page)
    assert not explained("it is set nowhere … the bucket holds another content", page)


def test_every_command_has_an_explanation() -> None:
    """Goal: no hidden command. Method: names of the table against those of the command line."""
    shown = [name.strip("`") for name, _ in rows_below(DEPLOY / "commands.md", "Commands")]
    assert sorted(shown) == sorted(COMMANDS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_command_that_is_named_is_one_with_such_flags(document: Path) -> None:
    """Goal: what is copied is understood. Method: the words of each command, also within a sentence."""
    shown = set(re.findall(r"^(?:\S+/)?pixaris-sync ([a-z]+.*)$", text_of(document), re.MULTILINE))
    shown |= set(re.findall(r"`pixaris-sync ([a-z]+[^`]*)`", text_of(document)))
    for line in shown:
        name, *words = line.split("#")[0].split()
        if words and f"{name} {words[0]}" in COMMANDS:
            name = f"{name} {words.pop(0)}"
        options = {
            flag
            for parameter in COMMANDS[name].params
            for flag in (*parameter.opts, *parameter.secondary_opts)
        }
        assert {word.split("=")[0] for word in words if word.startswith("--")} <= {*options, "--help"}, line


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_target_of_make_that_is_named_exists(document: Path) -> None:
    """Goal: no instruction that does not work. Method: `make TARGET` in code is a target."""
    targets = set(
        re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text_of(document), re.MULTILINE)) <= targets


def _anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text_of(document), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_leads_somewhere(document: Path) -> None:
    """Goal: who reads on arrives. Method: each link within the repository, with its anchor."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(document)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (document.parent / path).resolve() if path else document
        assert there.exists(), target
        assert not anchor or anchor in _anchors(there), target


def test_the_example_of_a_config_is_understood(tmp_path: Path) -> None:
    """Goal: it can be copied. Method: load the front page's YAML as ``--config`` does."""
    [example] = re.findall(r"^```yaml\n(.*?)^```$", text_of(README), re.MULTILINE | re.DOTALL)
    config = tmp_path / "config.yaml"
    config.write_text(example, encoding="utf-8")
    settings = load_settings({}, config=config, environ={})
    assert settings.gcp_project_id == "my-project"
    assert settings.local_results_folder == Path("/data/local_results")


def test_the_front_page_is_short() -> None:
    """Goal: it is read to its end. Method: its size."""
    assert README.stat().st_size in README_BYTES


def test_every_page_is_reached_from_the_front_page() -> None:
    """Goal: no page that nobody finds. Method: follow the links."""
    reached, waiting = set[Path](), [README]
    while waiting:
        document = waiting.pop()
        if document not in reached and document.suffix == ".md":
            reached.add(document)
            targets = re.findall(r"\]\(([^)#:\s]+)", text_of(document))
            waiting += [(document.parent / target).resolve() for target in targets]
    assert set(DOCUMENTS) <= reached


@pytest.mark.parametrize("path", [*DOCUMENTS, *SOURCES], ids=name_of)
def test_nobody_is_told_to_install_it_from_an_index(path: Path) -> None:
    """Goal: no command that installs somebody else's package. Method: no document, no hint says so."""
    assert not re.search(r"pip3? install\s[^.\n]*\bpixaris[-_]sync\b(?!/)", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("key", "value", "columns"),
    [
        ("cfg scale", 1.5, []),
        ("1st", "a", []),
        ("seed", "random", [Column("seed", ColumnType.INTEGER)]),
        ("Seed", 1, [Column("seed", ColumnType.INTEGER)]),
    ],
)
def test_the_examples_of_columns_are_what_the_rules_make(
    key: str, value: str | float, columns: list[Column]
) -> None:
    """Goal: people find their values. Method: each example of the map, by the code that makes columns."""
    plan = plan_batch([("id", [Cell(key, ColumnType.OTHER, value)])], columns)
    [name] = plan.rows[0].cells
    shown = {example.split(":")[0]: column for example, _, column in rows_below(MAP, "Names of columns")}
    assert shown[f"`{key}`"] == f"`{name}`"


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name)
def test_every_room_lists_its_modules(room: Path) -> None:
    """Goal: the first file of a folder is its map. Method: the names in backticks of its list."""
    listed = re.findall(r"^\* .*(?:\n  .*)*", _docstring(room.name), re.MULTILINE)
    named = set(re.findall(r"(?<!`)`(\w+)`(?!`)", "".join(listed)))
    assert named == {path.stem for path in room.glob("*.py")} - {"__init__"}


def test_the_map_and_the_package_show_every_room() -> None:
    """Goal: one tree in both places. Method: the folders against the lines of each tree."""
    for text in (text_of(MAP), _docstring("")):
        assert re.findall(r"^ +(\w+)/ ", text, re.MULTILINE)
        assert {*re.findall(r"^ +(\w+)/ ", text, re.MULTILINE)} == {room.name for room in ROOMS}


def _docstring(room: str) -> str:
    name = f"pixaris_sync.{room}".rstrip(".")
    return importlib.import_module(name).__doc__ or ""


@pytest.mark.parametrize("path", [MAP, *SOURCES], ids=name_of)
def test_every_module_that_is_named_exists(path: Path) -> None:
    """Goal: no word of what is gone. Method: `room.module` and `room.module.name` in backticks resolve."""
    assert [name for name in _named(path) if not _resolves(name, path)] == []


def _named(path: Path) -> Iterator[str]:
    """Dotted names in single backticks that begin with a room or with a module of the same folder."""
    beside = {one.stem for one in path.parent.glob("*.py")} if path.suffix == ".py" else set()
    rooms = {room.name for room in ROOMS}
    for name in re.findall(r"(?<!`)`([a-z_]\w*(?:\.\w+)+)`(?!`)", path.read_text(encoding="utf-8")):
        if name.split(".")[0] in rooms | beside and not name.endswith(
            (".py", ".md", ".json", ".yaml", ".service")
        ):
            yield name


def _resolves(name: str, path: Path) -> bool:
    room = "" if path.suffix == ".md" else path.parent.relative_to(PACKAGE).as_posix().replace("/", ".")
    prefixes = ["pixaris_sync", *([f"pixaris_sync.{room}"] if room not in ("", ".") else [])]
    return any(_found(f"{prefix}.{name}") for prefix in prefixes)


def _found(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            if not hasattr(found, part) and part not in getattr(found, "__annotations__", {}):
                return False
            found = getattr(found, part, None)
        return count > 1
    return False
