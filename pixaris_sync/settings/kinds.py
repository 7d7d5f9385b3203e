"""The kinds of values: their bounds, how people write them, and what is checked beside.

A kind is a type for msgspec, annotated with `msgspec.Meta` for its bounds, and with `Before` and `After`.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from pixaris_sync.limits.bandwidth import BYTES_PER_SECOND_MIN
from pixaris_sync.limits.fleet import MACHINES_MAX
from pixaris_sync.limits.timetable import Timetable, is_timetable
from pixaris_sync.rules.addresses import endpoint_root, host_and_port
from pixaris_sync.text import MASK, counted

KIBIBYTE: Final = 1024
MEBIBYTE: Final = 1024 * 1024
_MONTH_SECONDS: Final = 30 * 24 * 3600
#: A rate as people write it; not "10 MB per minute" for 10 MB.
_RATE: Final = re.compile(
    r"\s*(?P<number>\d{1,15}(?:\.\d{1,6})?)\s*(?P<unit>[kmg]i?b|b)?(?:/s)?\s*", re.IGNORECASE | re.ASCII
)
_UNITS: Final = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": KIBIBYTE,
    "mib": MEBIBYTE,
    "gib": 1024**3,
}
#: How switches are written, in any case.
_SWITCHES: Final = MappingProxyType(
    {
        **dict.fromkeys(("true", "1", "on", "yes", "y", "t"), True),
        **dict.fromkeys(("false", "0", "off", "no", "n", "f"), False),
    }
)
_NO_FRACTION: Final = re.compile(r"\.0*\s*$")


class Before(NamedTuple):
    """What is given goes through `read` first, which raises a `ValueError` that says what is wrong."""

    read: Callable[[Any], Any]


class After(NamedTuple):
    """A value of the right type goes through `check` last, which raises a `ValueError` that says so."""

    check: Callable[[Any], Any]


class Secret:
    """A text that no message shows."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def reveal(self) -> str:
        """The text, for whoever it is meant for."""
        return self._text


def converted(kind: Any, given: object) -> Any:  # noqa: ANN401 - of any kind
    """What is given, as a value of a kind; texts of numbers and switches are understood.

    Raises:
        ValueError: it is none; says what is wrong.
        msgspec.ValidationError: it is none, by its type or bounds.
    """
    for mark in kind.__metadata__:
        if isinstance(mark, Before):
            given = mark.read(given)
    if isinstance(given, str):
        given = _understood(given, kind.__origin__)
    # msgspec would take more texts for numbers, and null for None.
    value = msgspec.convert(given, kind, strict=isinstance(given, str), dec_hook=_decoded)
    for mark in kind.__metadata__:
        if isinstance(mark, After):
            value = mark.check(value)
    return value


def _understood(text: str, plain: Any) -> object:  # noqa: ANN401 - a type, or a union
    """A text as the switch or number that is meant, where no text is; else as it is."""
    kinds = {getattr(one, "__origin__", one) for one in (plain, *get_args(plain))}
    if str in kinds or not text.isascii():
        return text
    try:
        if bool in kinds:
            return _SWITCHES.get(text.lower(), text)
        if int in kinds:
            return int(_NO_FRACTION.sub("", text))
        return float(text) if float in kinds else text
    except ValueError:
        return text


def _decoded(kind: type, given: object) -> Path | Secret:
    if kind is Path and isinstance(given, str | Path):
        return Path(given)
    if kind is Secret and isinstance(given, str):
        return Secret(given)
    raise TypeError


def unless_none(check: Callable[[Any], Any]) -> After:
    """A check of what may also be None."""
    return After(lambda value: None if value is None else check(value))


def _none_of_text(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


def _rate_of_text(value: str) -> int | None:
    if value.strip().lower() in ("none", "off"):
        return None
    found = _RATE.fullmatch(value)
    if not found:
        raise ValueError(
            "must be bytes per second, such as 10MiB or 500KiB, or none, or a timetable such as "
            "08:00,5MB 20:00,none"
        )
    return int(float(found["number"]) * _UNITS[(found["unit"] or "").lower()])


def _rate(value: object) -> object:
    if not isinstance(value, str):
        return value
    if not is_timetable(value):
        return _rate_of_text(value)
    timetable(value)
    return " ".join(value.replace(";", " ").split())


def timetable(text: str) -> Timetable:
    """The timetable of a `BandwidthLimit` that is a text.

    Raises:
        ValueError: it is none.
    """
    found = Timetable.parse(text, _rate_of_text)
    if any(entry.rate is not None and entry.rate < BYTES_PER_SECOND_MIN for entry in found.entries):
        raise ValueError(f"has a rate that is too low: the least is {BYTES_PER_SECOND_MIN} bytes per second")
    return found


def _of_this_machine(percent: float) -> float:
    most = 100 * (os.cpu_count() or 1)
    if percent > most:
        raise ValueError(f"must not be more than {most}: this machine has {counted(most // 100, 'core')}")
    return percent


def _address(value: str) -> str:
    host_and_port(value)
    return value


def _http(url: Secret) -> Secret:
    try:
        parts = urlsplit(url.reveal())
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError("must be an address that begins with https:// or http://")
    return url


def _bare_name(value: str) -> str:
    if "/" in value or "\\" in value or value in (".", ".."):
        raise ValueError("must be a bare file name")
    return value


def _bucket(value: str) -> str:
    if "/" in value:
        raise ValueError("it must be the bucket's name alone, without gs:// and without a folder")
    return value


def _at_home(value: Path) -> Path:
    """``~`` is the home folder also where no shell replaced it: in a file, in a service's variables."""
    try:
        return value.expanduser()
    except RuntimeError:
        raise ValueError("it begins with ~, and there is no such home folder") from None


def _file(value: Path) -> Path:
    if not value.name:
        raise ValueError("must name a file")
    return _at_home(value)


Text = Annotated[str, Meta(min_length=1)]
FileName = Annotated[Text, After(_bare_name)]
BucketName = Annotated[Text, After(_bucket)]
Folder = Annotated[Path, After(_at_home)]
OptionalFolder = Annotated[Path | None, unless_none(_at_home)]
OptionalFile = Annotated[Path | None, unless_none(_file)]
Seconds = Annotated[float, Meta(gt=0, le=_MONTH_SECONDS)]
PatienceSeconds = Annotated[float, Meta(ge=0, le=_MONTH_SECONDS)]
#: Bytes per second, also as text with a unit; None, "none" or "off" for no limit; or a `timetable`, which
#: stays a text.
BandwidthLimit = Annotated[Annotated[int, Meta(ge=BYTES_PER_SECOND_MIN)] | str | None, Before(_rate)]
#: Percent of one core, up to all cores; None or "none" for no limit.
CpuLimit = Annotated[
    Annotated[float, Meta(ge=1)] | None, Before(_none_of_text), unless_none(_of_this_machine)
]
#: How many machines share the destination; None or "none" where nobody says.
FleetSize = Annotated[Annotated[int, Meta(ge=1, le=MACHINES_MAX)] | None, Before(_none_of_text)]
#: An HTTP address that no message shows.
SecretAddress = Annotated[Secret | None, unless_none(_http)]
#: An HTTPS address of a host alone, which requests with credentials are sent to.
Endpoint = Annotated[str | None, Before(_none_of_text), unless_none(endpoint_root)]
#: Host and port, an IPv6 address in brackets; None or "none" for none.
Listen = Annotated[str | None, Before(_none_of_text), unless_none(_address)]
LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["text", "json"]
