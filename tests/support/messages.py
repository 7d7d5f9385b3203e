"""What the program can say of what goes wrong: every cause, hint and warning in its source."""

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pixaris_sync

PACKAGE = Path(pixaris_sync.__file__).parent
#: Stands for what differs from message to message.
VARIABLE = "\N{HORIZONTAL ELLIPSIS}"

#: Modules whose texts are no causes and no hints.
OTHER_TEXTS = {
    "cli/app.py": "help",
    "cli/commands.py": "help",
    "cli/tools.py": "help",
    "cli/config_show.py": "the frame of a report; what is wrong comes from elsewhere",
    "cli/help.py": "help",
    "cli/doctor.py": "the frame of the checks; what is wrong comes from elsewhere",
    "doctor/checks.py": "checks: each is shown with its remedy below it",
    "doctor/cloud.py": "the same",
    "doctor/configuration.py": "the same",
    "doctor/examination.py": "the same",
    "doctor/judgements.py": "the same",
    "doctor/machine.py": "the same",
    "gcs/inspection.py": "conditions of lifecycle rules, for such checks",
    "bigquery/trials.py": "statements, and the names of what is tried",
    "cli/options.py": "help",
    "cli/progress.py": "progress",
    "cli/history.py": "the frame of what was pruned and pulled; what is wrong comes from elsewhere",
    "cli/sandbox.py": "what the sandbox says of itself",
    "cli/panes.py": "the frame of the live view; what is wrong comes from elsewhere",
    "cli/report.py": "the frame of reports; what is wrong comes from elsewhere",
    "gcs/bodies.py": "request bodies",
    "monitoring/guards.py": "what is said to foreign pages, and a policy for browsers",
    "monitoring/page.py": "the frame of the page; what is wrong comes from elsewhere",
    "monitoring/sections.py": "the same",
    "monitoring/metrics.py": "what metrics mean",
    "cli/shards.py": "the frame of what shards tell; what is wrong comes from elsewhere",
    "cli/story.py": "the frame of a run's story; what is wrong comes from elsewhere",
    "ports.py": "types",
    "rules/permissions.py": "the table of permissions, and what to grant: `grant ... on ..., e.g. with ...`",
    "process/priority.py": "the log's word on priorities",
    "bigquery/sql.py": "statements",
    "ledger/endings.py": "statements",
    "ledger/selection.py": "statements",
    "ledger/states.py": "the tables of transitions",
    "settings/bounds.py": "the words for bounds, which follow `it must be`",
}
#: Texts that have blanks and are no messages, each with its reason.
NO_MESSAGES = {
    r".*(\| None\]?|Callable\[.*|Iterator\[.*|list\[.*)|(Iterable|Mapping)\[.*": "a type",
    r"(bytes|Bearer|multipart|application/json|text/plain;|private,).*|\{.*": "a request",
    rf"[{VARIABLE},:; ()]*(and |line )?[{VARIABLE},:; ()]*( more| like it\))*": "empty",
    r".*%\(levelname\)s.*": "the format of the log",
    "no flag": "a mark of settings",
    "Unable to find acceptable .*": "a part of what requests says",
    "due to concurrent update": "a part of what BigQuery says",
    rf"odd {VARIABLE}": "a digest",
    rf"pixaris-sync {VARIABLE}.*SQLite.*": "the head of a report",
    r"\w+(, \w+)+|iif\(.*": "columns of a statement",
    r"command line|storing results|catching up|finishing what is in flight|only in the table|not the same": (
        "a part of another text"
    ),
    r"carrying what is stored by now": "a part of another text",
    rf"next: .*|{VARIABLE} taken up again": "what `retry` did",
    rf"{VARIABLE}: {VARIABLE} written: .*| +`pixaris-sync sync.*": "what `config init` did",
    rf"for {VARIABLE}; Enter takes .*": "what `config init` asks",
    r"# Settings of Pixaris.*": "the head of a config file",
    rf"found in the working folder|environment variable {VARIABLE}|the defaults": "where a value is from",
    rf"line {VARIABLE}(, column {VARIABLE})?: ": "a part of another text",
    r"pixaris-sync config init": "a command",
    r"(bandwidth limit: .*|.* % of one core)| until .*, then .*": "what `limit` shows",
    r"was not paused, and goes on|not paused|all work": "what `resume` and `status` show of a pause",
    rf"A ledger is only a cache.*|Forget it.*|nothing was changed|{VARIABLE} is forgotten: .*": "a question",
    rf"{VARIABLE}: files of its runs alone": "a line of the list of ledgers",
    rf"gs://.*|{VARIABLE} synced, .*|emulators {VARIABLE}| \(not there now\)|not known: an older .*": (
        "what `status --ledgers` shows"
    ),
    r"08:00,5MB 20:00,none or .*": "the form of a timetable, in another text",
    rf"module {VARIABLE} has no attribute {VARIABLE}|there is always another name": "wrong code",
    r".*must be positive|the connection limits|it is .*, and no positive multiple of .*": "wrong code",
    r"the journal has ended.*|no engine is running.*": "wrong code",
    r"no ((object|dataset) resource|page of a listing|session URI in the answer|range of received bytes)": (
        "becomes: the answer cannot be read"
    ),
    r"(the )?(bucket|Google Cloud credentials|metadata server|token service)( .)?": "a subject",
    r"(impersonated )?service account( key)?|work(load identity federation|force identity)|Source\(.*": (
        "who one is"
    ),
    r"ahead of|the certificates .* \(.*\)": "a part of another text",
    rf"(its|it|cannot|{VARIABLE} is|the)( |name|part|prefix|objects'|table id|bucket|{VARIABLE}|:)*": "empty",
    r"all runs|is to be sent|is in the cloud already|was sent from here before|.*: its row": (
        "a part of another text"
    ),
    r"select by|list price of .*": "what was tried; what a plan says of its dollars",
    rf"process {VARIABLE} on {VARIABLE} .*|(another )?process ({VARIABLE} )?on this machine": "an owner",
}
_STATEMENT = re.compile(
    r"\b(SELECT|UPDATE|INSERT|JOIN|GLOB|ORDER BY|IS NULL|CASE|WHERE|COLUMN|INDEXED|AND|state <>)\b"
    r"|\biif\(|state = |= \?|[>=+] :|\|\| '/'"
)
#: What was tried, as a verb phrase: the first text of an error.
_OPERATION = re.compile(
    r"(add|apply|ask|begin|carry|change|compare|create|deliver|find|follow|forget|get|insert|list|load|look|map|"
    r"name|open|pause|prepare|read|resume|scan|select|set|show|store|take|tell|upload|use|verify|watch|widen|"
    r"work|write)"
    r"( [a-zA-Z]+)*"
)
#: Calls whose texts are no messages: logs, nouns, and what settings and flags say of themselves.
_OTHER_CALLS = re.compile(r"(.*\.)?(debug|info|counted|Meta|Option|Argument|execute|executemany|compile|sub)")


@dataclass(frozen=True, slots=True)
class Message:
    """A cause or a hint, with ``…`` for its variable parts, and where it stands in the source."""

    text: str
    place: str


def messages() -> list[Message]:
    """All of them, in the order of the source; each text once."""
    found: dict[str, Message] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).as_posix()
        if module in OTHER_TEXTS or module.startswith("sandbox/"):
            continue
        for line, text in _texts(ast.parse(path.read_text(encoding="utf-8"))):
            if is_message(text):
                found.setdefault(text, Message(text, f"{module}:{line}"))
    return list(found.values())


def is_message(text: str) -> bool:
    """Whether a text may be shown as a cause or a hint."""
    return " " in text.strip() and not any(re.fullmatch(pattern, text, re.DOTALL) for pattern in NO_MESSAGES)


def explained(text: str, page: str) -> bool:
    """Whether a page holds the message, its variable parts as they are or spelt out for an example."""
    parts = [re.escape(_words(part)) for part in text.split(VARIABLE)]
    pattern = r"\W*[^|;]{0,40}\W*".join(part for part in parts if re.search(r"\w", part))
    return bool(re.search(pattern, _words(page.replace("\\|", "|"))))


def _words(text: str) -> str:
    return " ".join(text.split())


def _texts(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of each literal that is no docstring, no name of an operation and in no other call."""
    skipped = {skipped for node in ast.walk(tree) for skipped in _skipped(node)}
    for node in ast.walk(tree):
        text = None if node in skipped else _text(node)
        line: int = getattr(node, "lineno", 0)
        if text is not None and _STATEMENT.search(text):
            # The ledger says why a run waits in a statement of its own.
            yield from ((line, said) for said in re.findall(r"\b(?:THEN|ELSE) '([^']+)'", text))
        elif text is not None:
            yield line, text.removeprefix("error: ").removeprefix("hint: ")


def _skipped(node: ast.AST) -> Iterable[ast.AST]:
    """What below a node holds no message."""
    match node:
        case ast.Expr(value=ast.Constant() as docstring):
            return [docstring]
        case ast.JoinedStr():
            return [child for child in ast.walk(node) if child is not node]
        case ast.Call() if _OTHER_CALLS.fullmatch(ast.unparse(node.func)):
            return ast.walk(node)
        case ast.Call(args=[first, *_]) if _OPERATION.fullmatch(_text(first) or ""):
            return [first]
        case ast.Assign(targets=[target], value=value) if "operation" in ast.unparse(target).lower():
            # ``operation, hint = ...`` names what is tried first.
            return value.elts[:1] if isinstance(value, ast.Tuple) else [value]
    return []


def _text(node: ast.AST) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        # A line of the log is put together later.
        return re.sub(r"%[sdgr]", VARIABLE, node.value)
    if isinstance(node, ast.JoinedStr):
        parts = (part.value if isinstance(part, ast.Constant) else VARIABLE for part in node.values)
        return "".join(map(str, parts))
    return None
