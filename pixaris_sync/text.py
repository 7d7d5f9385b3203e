"""What a text may show: no secret, and nothing that a terminal would obey.

Services quote what they were sent. Of their texts, `scrub` keeps what helps to understand them: names of
tables, columns and permissions, also long ones.
"""

import re
from typing import Final

MASK: Final = "[...]"
#: Unbroken and this long, with capitals, small letters and digits: a key or token, not a name.
_KEY_CHARACTERS_MIN: Final = 60
#: PEM with or without its end, and its end alone (RFC 7468).
_PEM: Final = (
    re.compile(r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|$)", re.DOTALL),
    re.compile(r"[\w+/=]{0,64}\s?-----END [A-Z ]+-----"),
)
_TOKENS: Final = (
    # Access tokens as requests carry them (RFC 6750), and as Google makes access tokens, refresh tokens and
    # client secrets.
    re.compile(r"\bBearer\s+[^\s\"',;<>]+", re.IGNORECASE),
    re.compile(r"\bya29\.[\w.~+/-]+=*"),
    re.compile(r"\b1//[\w.~+/-]{20,}=*"),
    re.compile(r"\bGOCSPX-[\w-]+"),
    # JSON web tokens (RFC 7519).
    re.compile(r"\beyJ[\w-]+\.[\w.-]+"),
    # Parts of signed and session addresses, and fields of an answer about credentials.
    re.compile(
        r"\b(?:upload_id|X-Goog-[\w-]+|(?:access|refresh|id)_token|client_secret)=[^\s&\"'<>]*", re.IGNORECASE
    ),
    re.compile(
        r"\"(?:(?:access|refresh|id)_token|client_secret|private_key)\"\s*:\s*\"[^\"]*\"?", re.IGNORECASE
    ),
)
_ADDRESS: Final = re.compile(r"\b[a-z]{1,12}://[^\s\"'<>]*", re.IGNORECASE)
_UNBROKEN: Final = re.compile(rf"[A-Za-z0-9+/=]{{{_KEY_CHARACTERS_MIN},}}")
_OF_A_KEY: Final = (re.compile("[a-z]"), re.compile("[A-Z]"), re.compile("[0-9]"))
#: Control characters, separators of lines, overrides of the direction of text, lone surrogates.
_UNSHOWN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def scrub(text: str) -> str:
    """The text with `MASK` in the place of everything that looks like a token, a key or a signed address."""
    # Each in its whole length: a key before the address that it follows without a blank.
    for secret in _PEM:
        text = secret.sub(MASK, text)
    text = _ADDRESS.sub(_masked_with_query, text)
    for secret in _TOKENS:
        text = secret.sub(MASK, text)
    return _UNBROKEN.sub(_masked_key, text)


def _masked_with_query(address: re.Match[str]) -> str:
    """Addresses of upload sessions and signed ones are as good as a key; both are so by their query."""
    return MASK if "?" in address.group() else address.group()


def _masked_key(unbroken: re.Match[str]) -> str:
    return MASK if all(kind.search(unbroken.group()) for kind in _OF_A_KEY) else unbroken.group()


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can encode a string: it cannot where there are lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def counted(count: int, noun: str, plural: str = "") -> str:
    """A number of things: ``1 file``, ``2 files``; `plural` where it is more than an s at the end."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def bytes_text(count: float) -> str:
    """A number of bytes for people: ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(count) < 1024 or unit == "TiB":  # noqa: PLR2004 - the step of the units
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def span_text(seconds: float) -> str:
    """A time span for people, by its two largest units: ``2 h 5 min``."""
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    left = int(seconds)
    parts: list[str] = []
    for name, size in units:
        count, left = divmod(left, size)
        if count or (name == "s" and not parts):
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])


def seconds_text(seconds: float) -> str:
    """A time span for people that may be short: ``0.4 s``, else as `span_text`."""
    return f"{seconds:.1f} s" if seconds < 60 else span_text(seconds)  # noqa: PLR2004 - a minute


def without_run(text: str, run: str) -> str:
    """A text with ``...`` in the place of a run, and of the path or object that it stands in.

    What differs by nothing else is of one cause.
    """
    # By hand: as many patterns as runs would have to be compiled.
    kept, end = [], 0
    while (found := text.find(run, end)) >= 0:
        begin, after = found, found + len(run)
        while begin > end and not text[begin - 1].isspace():
            begin -= 1
        while after < len(text) and not text[after].isspace():
            after += 1
        if after > found + len(run) and text[after - 1] == ":":
            after -= 1
        kept += [text[end:begin], "..."]
        end = after
    return "".join(kept) + text[end:] if kept else text


def printable(text: str) -> str:
    r"""The string with each lone surrogate as a ``\uXXXX`` escape, so that it can be printed and stored."""
    return text.encode(errors="backslashreplace").decode()


def printable_line(text: str) -> str:
    r"""The string as one line that a terminal and a log show and do not obey.

    What would end the line, move the cursor, turn the direction of the text around or cannot be encoded
    stands as an escape: ``\n``, ``\x1b``, ``\u202e``.
    """
    return _UNSHOWN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
