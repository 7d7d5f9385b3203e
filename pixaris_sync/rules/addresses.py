"""Where content may go that an answer names an address for, and what an address to listen at is."""

import re
from typing import Final
from urllib.parse import urlsplit

_GOOGLES: Final = ".googleapis.com"
_PORT_MAX: Final = 65535


def leads_elsewhere(address: str, asked: str) -> bool:
    """Whether an answer to a request to `asked` sends content to a stranger, or less well guarded.

    The server that was asked may name itself, or one of Google's: behind a private endpoint it names those.

    Raises:
        ValueError: one of the addresses is none.
    """
    named, known = urlsplit(address), urlsplit(asked)
    googles = named.scheme == "https" and (named.hostname or "").endswith(_GOOGLES)
    return not googles and (named.scheme, named.netloc) != (known.scheme, known.netloc)


def host_and_port(address: str) -> tuple[str, int]:
    """The host and port that ``HOST:PORT`` names.

    Raises:
        ValueError: it names none.
    """
    host, _, port = address.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    # Nobody can tell the end of an IPv6 address from a port.
    if not host.strip("[]") or (":" in host and not bracketed) or not re.fullmatch("[0-9]{1,5}", port):
        raise ValueError("must be HOST:PORT, such as 127.0.0.1:9465, [::1]:9465 or gpu1:9465")
    if int(port) > _PORT_MAX:
        raise ValueError(f"its port must not be more than {_PORT_MAX}")
    return host[1:-1] if bracketed else host, int(port)
