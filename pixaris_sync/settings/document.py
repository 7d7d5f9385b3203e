"""A YAML file as a mapping that remembers the line of each key."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pixaris_sync.errors import ConfigurationError

if TYPE_CHECKING:
    from yaml import MappingNode, Node

OPERATION = "read config"


class Document(NamedTuple):
    """What a file holds.

    Attributes:
        path: the file.
        text: all of it, with its own line ends.
        root: where its parts stand in the text; None for an empty one.
        value: what it means: a mapping, unless the file is no config at all; None for an empty one.
    """

    path: Path
    text: str
    root: "Node | None"
    value: Any

    @property
    def mapping(self) -> dict[Any, Any]:
        """What it means; nothing where it is empty, or no mapping."""
        return self.value if isinstance(self.value, dict) else {}

    def entry(self, *keys: object) -> "tuple[Node, Node] | None":
        """Key and value as they stand in the text, of a key, or of one below it; None where there is none."""
        node, found = self.root, None
        for key in keys:
            mapping = mapping_of(node)
            pairs = mapping.value if mapping else []
            # The last of several counts. A key that is no text, such as 1, is found by how it is written.
            found = next((pair for pair in reversed(pairs) if pair[0].value in (key, str(key))), None)
            node = found[1] if found else None
        return found

    def line(self, *keys: object) -> int:
        """The line of a key, from 1, also where a merge (``<<``) brings it from elsewhere; 0: none."""
        found = self.entry(*keys)
        return found[0].start_mark.line + 1 if found else 0


def read_document(path: Path, *, hint: str) -> Document:
    """Read a file.

    Raises:
        ConfigurationError: it cannot be read, or is no YAML; the cause names line and column then, and the
            hint is the given one.
    """
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        # No path can be written so: it holds a NUL.
        cause = getattr(error, "strerror", None) or "there is no such path"
        raise ConfigurationError(OPERATION, str(path), cause, hint=hint) from None
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(
            OPERATION, str(path), f"it is not valid YAML: line {line} is no UTF-8", hint=hint
        ) from None
    return parse_document(text, path, hint=hint)


def parse_document(text: str, path: Path, *, hint: str) -> Document:
    """Understand the text of a file.

    Raises:
        ConfigurationError: as `read_document`.
    """
    import yaml  # noqa: PLC0415 - often there is no file

    loader = yaml.SafeLoader("")
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        value = None if root is None else loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        cause = " ".join(str(error.problem or error.context).split())
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    except yaml.reader.ReaderError as error:
        where = f"line {text.count(chr(10), 0, error.position) + 1}: "
        cause = "a character that no YAML file may hold"
    except RecursionError:
        where, cause = "", "it is nested too deeply"
    except (yaml.YAMLError, ValueError) as error:
        # Of a date or a number that looks like one and is none, PyYAML tells no place.
        where, cause = "", " ".join(str(error).split())
    else:
        return Document(path, text, root, value)
    finally:
        loader.dispose()
    raise ConfigurationError(OPERATION, str(path), f"it is not valid YAML: {where}{cause}", hint=hint)


def mapping_of(node: "Node | None") -> "MappingNode | None":
    """The node, where it is a mapping."""
    from yaml import MappingNode  # noqa: PLC0415 - often there is no file

    return node if isinstance(node, MappingNode) else None
