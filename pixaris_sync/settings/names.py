"""What a setting is called where it is given: flag, environment variable, key of a file; and near misses.

A variable that begins as ours do and is none of ours would be ignored without a word, so it is pointed out.
Those that begin with `TESTS_PREFIX` are for the tests of this project, and no others are left out.
"""

from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from typing import Final, Literal, NamedTuple

from pixaris_sync.settings.fields import SETTINGS
from pixaris_sync.settings.model import ENVIRONMENT_PREFIX, environment_variable

#: The keys that Pixaris' own config.yaml holds and that mean the same to us.
PIXARIS_KEYS: Final = (
    "gcp_project_id",
    "gcp_bq_experiment_dataset",
    "gcp_pixaris_bucket_name",
    "gcp_bq_feedback_table",
)
#: The key of config.yaml under which all of ours may stand.
SECTION: Final = "pixaris_sync"
#: The variable that names the config file.
CONFIG_VARIABLE: Final = f"{ENVIRONMENT_PREFIX}CONFIG"
TESTS_PREFIX: Final = f"{ENVIRONMENT_PREFIX}TEST_"
SETTINGS_PAGE: Final = "deploy/settings.md of the repository"

#: How alike two names are at least, of 1, so that the one may be meant by the other.
_ALIKE: Final = 0.75
#: The same for what does not begin as a name of ours: only a slip of the finger.
_NEARLY_EQUAL: Final = 0.9
#: A part of a name that is shorter may be meant by too many.
_PART_LENGTH_MIN: Final = 5


class Origin(NamedTuple):
    """Where a value comes from.

    Attributes:
        kind: which kind of place.
        name: the flag, the variable or the path of the file; may be empty.
        line: the line in the file, from 1; 0: not known, or no file.
    """

    kind: Literal["command line", "environment", "file", "defaults"]
    name: str = ""
    line: int = 0

    def __str__(self) -> str:
        if self.kind == "file":
            return f"{self.name} line {self.line}" if self.line else self.name
        if self.kind == "environment":
            return f"environment variable {self.name}"
        return f"flag {self.name}" if self.name else f"the {self.kind}"


def flag(key: str) -> str:
    """The flag of a setting; empty where it has none."""
    return f"--{key.replace('_', '-')}" if SETTINGS[key].has_flag else ""


def nearest(name: object, among: Iterable[str] = SETTINGS) -> str:
    """The name that may be meant by another: one that is misspelt, or less or more of it; else ""."""
    given = _bare(str(name))
    if not given:
        return ""
    if len(given) >= _PART_LENGTH_MIN and (wholes := [one for one in among if given in _bare(one)]):
        return min(wholes, key=len)
    parts = [one for one in among if len(_bare(one)) >= _PART_LENGTH_MIN and _bare(one) in given]
    if parts:
        return max(parts, key=len)
    likeness = {one: SequenceMatcher(None, given, _bare(one)).ratio() for one in among}
    best = max(likeness, key=lambda one: likeness[one], default="")
    return best if best and likeness[best] >= _ALIKE else ""


def is_section(name: object) -> bool:
    """Whether a key of a file is `SECTION`, or that misspelt."""
    return (
        isinstance(name, str) and SequenceMatcher(None, _bare(name), _bare(SECTION)).ratio() >= _NEARLY_EQUAL
    )


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """A warning for each environment variable that looks like one of ours and is none."""
    known = {environment_variable(key): key for key in SETTINGS}
    found = []
    for name in sorted(environ):
        if name in known or name == CONFIG_VARIABLE or name.startswith(TESTS_PREFIX):
            continue
        if name.startswith(ENVIRONMENT_PREFIX):
            meant = nearest(name.removeprefix(ENVIRONMENT_PREFIX), [*SETTINGS, "config"])
            meant = CONFIG_VARIABLE if meant == "config" else environment_variable(meant) if meant else ""
        else:
            meant = _slip(name, [*known, CONFIG_VARIABLE])
            if not meant:
                continue
        remedy = f"perhaps {meant} is meant" if meant else f"{SETTINGS_PAGE} lists those that are"
        found.append(f"the environment variable {name} is no setting and is ignored: {remedy}")
    return found


def _slip(name: str, known: Iterable[str]) -> str:
    """The variable of ours that somebody meant who did not even get its beginning right."""
    if not name.upper().startswith("PIXARIS"):
        return ""
    ours = [one for one in known if one.startswith(ENVIRONMENT_PREFIX)]
    likeness = {one: SequenceMatcher(None, name.upper(), one).ratio() for one in ours}
    best = max(likeness, key=lambda one: likeness[one])
    return best if likeness[best] >= _NEARLY_EQUAL else ""


def _bare(name: str) -> str:
    """A name without what people forget, add or write in another case."""
    return "".join(character for character in name.lower() if character.isalnum())
