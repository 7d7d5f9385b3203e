"""Names and values that have broken programs before, for folders, files, keys and runs.

Names of files are as ``os.fsdecode`` gives them, so that bytes which are no UTF-8 stand as lone surrogates.
"""

import json
import os
from random import Random
from typing import Any, Final

#: What a folder or file can be called on Linux: neither empty nor ``.`` nor ``..``, no slash, no NUL.
FILE_NAMES: Final = (
    "...",
    ".. ",
    "..\\..\\x",
    "%2e%2e%2f",
    "a\nb",
    "a\r\nb",
    "\x1b]0;owned\x07",
    "\x1b[2J",
    "\x7f\x80\x9b",
    os.fsdecode(b"\xff\xfe"),
    os.fsdecode(b"caf\xe9"),
    os.fsdecode(b"\xed\xa0\x80"),
    "e\u0301",
    "\u00e9",
    "\u202egnp.exe",
    "\u2028",
    "\ufeff",
    "\U0001f4a5",
    "n" * 240,
    "\u00fc" * 120,
    " ",
    "-rf",
    "~",
    "$HOME",
    "*?[a]",
    "a'b\"c`d",
    "`;DROP TABLE x;--",
    "a;b--c",
    "?project=x#y&z",
    "results",
    "pickled_results",
    "experiment_tracking.jsonl",
    "args.json",
    "generated_images",
    "CON",
    "nul.",
    "__proto__",
    "a:b|c<d>",
)

#: What a record may call its run instead of a folder's name.
RUN_NAMES: Final[tuple[Any, ...]] = (
    "",
    ".",
    "..",
    "../..",
    "../pit0/x",
    "/etc",
    "a/b",
    "a\\b",
    "C:\\x",
    "a\0b",
    "\0",
    "\ud800",
    "a\ud83d",
    "a\nb",
    "x" * 2000,
    "\u00fc" * 600,
    "feedback_iterations",
    "generated_images",
    None,
    1,
    True,
    [],
    {},
    ["20250101-000000_x"],
    {"a": 1},
)

KEYS: Final = (
    "",
    " ",
    ".",
    "..",
    "../x",
    "/etc/passwd",
    "a\\b",
    "a/b",
    "a\0b",
    "\0",
    "\ud800",
    "\udc80\ud800",
    "a`b",
    "`",
    "\\`",
    "a\\",
    "';DROP TABLE x;--",
    '"',
    "a\nb",
    "a;b--c",
    "__proto__",
    "constructor",
    "__class__",
    "_TABLE_SUFFIX",
    "_PARTITIONTIME",
    "_field_1",
    "__ROOT__",
    "1a",
    "SELECT",
    "k" * 301,
    "k" * 5000,
    "\u00fc",
    "\u0130",
    "\u017f",
    "\U0001f4a5",
    "Score",
    "SCORE",
    "score",
    "score__string",
    "score__float",
    "args",
    "generated_images",
    "timestamp",
    "TIMESTAMP",
    "experiment_run_name ",
    "Experiment_Run_Name",
    "max_parallel_jobs",
    "hyperparameters",
)

VALUES: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    -0.0,
    1,
    -(2**63),
    2**63 - 1,
    2**63,
    2**64,
    10**400,
    2**53 + 1,
    0.1,
    1e308,
    5e-324,
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    "NaN",
    "a\0b",
    "\ud800",
    "\udc80\\ud800",
    "a\r\nb",
    "x" * 100_000,
    "`;DROP TABLE x;--",
    [],
    [[[]]],
    [None, True, 1, "x", {"a": float("nan")}],
    ["\ud800"],
    {},
    {"": None},
    {"a": {"b": [1, float("inf"), "\ud800"]}},
)


def key(random: Random) -> str:
    return random.choice(KEYS)


def value(random: Random) -> Any:
    return random.choice(VALUES)


def nested(random: Random, levels: int) -> str:
    """JSON text nested so deep, as lists, dicts or both."""
    kinds = random.choice([("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
    inside = json.dumps(value(random)) if kinds[0] != "[" else ""
    return kinds[0] * levels + (inside or "") + kinds[1] * levels


def mutated(random: Random, data: bytes) -> bytes:
    """Bytes with some of them changed, lost, doubled, moved, or set to NUL."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 6)):
        start = random.randrange(len(changed) + 1)
        end = min(len(changed), start + random.choice([1, 1, 2, 7, 40, 400]))
        piece = bytes(changed[start:end])
        match random.randrange(6):
            case 0:
                changed[start:end] = random.randbytes(len(piece))
            case 1:
                del changed[start:end]
            case 2:
                changed[start:start] = piece
            case 3:
                changed[start:end] = bytes(len(piece))
            case 4:
                at = random.randrange(len(changed) + 1)
                changed[at:at] = piece
            case 5:
                changed[start:start] = random.choice(
                    [b"\n", b"\r", b"{", b"}", b'"', b"\\", b"\xff", b"\xef\xbb\xbf"]
                )
    return bytes(changed)
