"""Who may ask: by the name that a request is for, and by what a browser says of the page that sends it.

Sources: RFC 9110, 7.2 and 15.5.20 (Host; 421 Misdirected Request); the Fetch standard (Origin); "Fetch
Metadata Request Headers", W3C (Sec-Fetch-Site, -Mode, -Dest); Content Security Policy Level 3, W3C.
"""

import socket
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final
from urllib.parse import urlsplit

#: What every answer says: nothing is run, loaded, framed or kept but what this server itself serves.
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "pixaris-sync",
}
_OWN_SITES: Final = ("same-origin", "none")


class Names:
    """The names that this server has.

    At an address of its own it is that address, and for the machine itself ``localhost``. At all addresses it
    is any address, written in numbers: no name of somebody else's leads there. The host that the settings
    name and the machine's own name are always right.

    Args:
        named: the host as the settings name it.
        bound: the address that is listened at.
    """

    def __init__(self, named: str, bound: str) -> None:
        self._bound = ip_address(bound.partition("%")[0])
        self._texts = {named.lower(), socket.gethostname().lower()}
        self._named = named

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return self._bound.is_loopback

    def shown(self, port: int) -> str:
        """The host and port, as an address of a page has them."""
        named = "localhost" if self._bound.is_unspecified else self._named
        return f"[{named}]:{port}" if ":" in named else f"{named}:{port}"

    def include(self, host: str) -> bool:
        """Whether a ``Host`` is one of them; its port does not matter: it may be forwarded."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
        except ValueError:
            return False
        address = _address(name)
        if address is not None:
            loopback = self.loopback and address.is_loopback
            return self._bound.is_unspecified or loopback or address == self._bound
        reaches_here = self.loopback or self._bound.is_unspecified
        return name in self._texts or (name == "localhost" and reaches_here)


def refusal(headers: Mapping[str, str], path: str, names: Names) -> tuple[int, str] | None:
    """Why a request is refused, as a status and words; None where it is not.

    Args:
        headers: of the request.
        path: what it asks for.
        names: of this server.
    """
    host = headers.get("Host", "")
    if not names.include(host):
        return 421, "this is no name of this server; --listen may name it"
    origin = headers.get("Origin")
    if origin is not None and origin.lower() != f"http://{host}".lower():
        return 403, "pages of other sites may not read this"
    site = headers.get("Sec-Fetch-Site", "none")
    if site not in _OWN_SITES and not _follows_link(headers, path):
        return 403, "pages of other sites may not load this"
    return None


def _follows_link(headers: Mapping[str, str], path: str) -> bool:
    """Whether somebody follows a link to the page itself: then nobody but they will read it."""
    return (
        path == "/"
        and headers.get("Sec-Fetch-Mode") == "navigate"
        and headers.get("Sec-Fetch-Dest") == "document"
    )


def _address(name: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(name.partition("%")[0])
    except ValueError:
        return None
