"""Whom connections trust, and the proxy in between: decided here for the bucket, the tables and for tokens.

The variables are those that requests, curl and OpenSSL know. The first that is set decides alone; without
any, the system's certificates are trusted, and those that come with requests.
"""

import os
import ssl
from functools import lru_cache
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pixaris_sync.errors import ConfigurationError, Failure
from pixaris_sync.footprint import importing

VARIABLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
_FOLDER_VARIABLE: Final = "SSL_CERT_DIR"
#: How OpenSSL finds a certificate in a folder: by the hash of its subject.
_HASHED: Final = "[0-9a-f]" * 8 + ".*"


def chosen() -> tuple[str, str] | None:
    """The variable that decides, and its value; None where none is set."""
    return next(((name, value) for name in VARIABLES if (value := os.environ.get(name))), None)


def bundle() -> str | None:
    """The file or folder of certificates that is trusted alone, where a variable names one.

    Raises:
        ConfigurationError: it cannot be used.
    """
    found = chosen()
    if found is None:
        return None
    _check(*found)
    return found[1]


def context() -> ssl.SSLContext:
    """What connections to Google's services are made with; one for all of them.

    Raises:
        ConfigurationError: the certificates that a variable names cannot be used.
    """
    return _context(chosen())


def new_context() -> ssl.SSLContext:
    """The same, for a caller alone; raises as `context` does."""
    return _made(chosen())


def _made(found: tuple[str, str] | None) -> ssl.SSLContext:
    if found is None:
        with importing():
            from requests.utils import DEFAULT_CA_BUNDLE_PATH  # noqa: PLC0415 - emulators are asked without

        made = ssl.create_default_context()
        made.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
        return made
    _check(*found)
    name, value = found
    if Path(value).is_dir():
        return ssl.create_default_context(capath=value)
    try:
        return ssl.create_default_context(cafile=value)
    except ssl.SSLError:
        raise _unusable(name, value, "it holds no certificates in PEM form") from None


_context = lru_cache(maxsize=1)(_made)


def proxy_for(address: str) -> str | None:
    """The proxy that requests to an address go through, by HTTPS_PROXY, ALL_PROXY and NO_PROXY.

    Raises:
        ConfigurationError: it is none of HTTP.
    """
    with importing():
        from requests.utils import get_environ_proxies, select_proxy  # noqa: PLC0415 - as above

    proxy = select_proxy(address, get_environ_proxies(address))
    if not proxy:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    scheme = urlsplit(proxy).scheme
    if scheme not in ("http", "https"):
        raise ConfigurationError(
            "use",
            "the proxy",
            f"it is one of {scheme}, and only http:// and https:// are spoken",
            hint="correct HTTPS_PROXY or ALL_PROXY, or except *.googleapis.com in NO_PROXY",
        )
    return str(proxy)


def _check(name: str, value: str) -> None:
    path = Path(value)
    try:
        if path.is_dir():
            if not any(path.glob(_HASHED)):
                cause = "the folder holds no certificates that are named by their hash"
                raise _unusable(name, value, cause, f"run `openssl rehash {value}`")
            return
        if name == _FOLDER_VARIABLE and path.exists():
            raise _unusable(name, value, "it is no folder", f"name it in {VARIABLES[2]} instead")
        with path.open("rb") as file:
            file.read(1)
    except FileNotFoundError:
        raise _unusable(name, value, "it does not exist") from None
    except OSError as error:
        raise _unusable(name, value, f"it cannot be read ({error.strerror})") from None


def _unusable(name: str, value: str, cause: str, hint: str = "") -> ConfigurationError:
    return ConfigurationError(
        "use",
        f"the certificates {value} ({name})",
        cause,
        hint=hint or f"let {name} name a file of certificates in PEM form, or unset it",
        # A login helps as little, and the same holds: nothing works until somebody mends it.
        failure=Failure.CREDENTIALS,
    )
