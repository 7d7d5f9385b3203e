"""Where content may go that an answer names an address for, and what an address to listen at is."""

import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit, urlunsplit

#: The domain that Google's public services are in; others have their own universe.
DEFAULT_UNIVERSE: Final = "googleapis.com"
_PORT_MAX: Final = 65535


def leads_elsewhere(address: str, asked: str, universe: str = DEFAULT_UNIVERSE) -> bool:
    """Whether an answer to a request to `asked` sends content to a stranger, or less well guarded.

    The server that was asked may name itself, or one of Google's: behind a private endpoint it names those.

    Raises:
        ValueError: one of the addresses is none.
    """
    named, known = urlsplit(address), urlsplit(asked)
    googles = named.scheme == "https" and (named.hostname or "").endswith(f".{universe}")
    return not googles and (named.scheme, named.netloc) != (known.scheme, known.netloc)


def at(root: str, address: str) -> str:
    """The address with the scheme and the host of `root`: the same thing behind a private endpoint."""
    scheme, netloc, *_ = urlsplit(root)
    return urlunsplit((scheme, netloc, *urlsplit(address)[2:]))


def is_guarded(address: str) -> bool:
    """Whether secrets may be sent to an address: nobody can listen on the way."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)))


def is_loopback(host: str) -> bool:
    """Whether a host's name or number is this machine's own, that nobody else reaches."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_near(host: str) -> bool:
    """Whether a host is near this machine, so that no proxy knows it: loopback, link-local."""
    try:
        number = ip_address(host)
    except ValueError:
        return host in ("localhost", "metadata.google.internal")
    return number.is_loopback or number.is_link_local


def endpoint_root(address: str) -> str:
    """The root of an API as it is used, for a private endpoint as somebody writes it.

    Raises:
        ValueError: it is none.
    """
    if not is_guarded(address):
        raise ValueError("must be an address that begins with https://")
    parts = urlsplit(address)
    if parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("must be https:// and a host, with a port or without, and no more")
    return f"{parts.scheme}://{parts.netloc}"


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
