"""Where content may go that an answer names an address for, as those of upload sessions do."""

from typing import Final
from urllib.parse import urlsplit

_GOOGLES: Final = ".googleapis.com"


def leads_elsewhere(address: str, asked: str) -> bool:
    """Whether an answer to a request to `asked` sends content to a stranger, or less well guarded.

    The server that was asked may name itself, or one of Google's: behind a private endpoint it names those.

    Raises:
        ValueError: one of the addresses is none.
    """
    named, known = urlsplit(address), urlsplit(asked)
    googles = named.scheme == "https" and (named.hostname or "").endswith(_GOOGLES)
    return not googles and (named.scheme, named.netloc) != (known.scheme, known.netloc)
