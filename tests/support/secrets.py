"""The secrets that tests hand out, recognisable wherever they must not be: in logs, errors, output, ledgers.

The whole test run is searched for them: each test's captured output, and the ledgers that it leaves behind.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.oauth2 import credentials, service_account

#: What every secret of a kind begins with or holds.
MARKS: Final = (
    "secret-token",
    "secret-session",
    "secret-refresh",
    "secret-client",
    "secret-signature",
    "PRIVATE KEY",
)
#: As long as real ones are.
ACCESS_TOKEN: Final = f"ya29.secret-token-{'t' * 120}"
SESSION_ID: Final = f"secret-session-{'s' * 120}"
REFRESH_TOKEN: Final = f"1//secret-refresh-{'r' * 90}"
CLIENT_SECRET: Final = f"GOCSPX-secret-client-{'c' * 20}"
SIGNED_QUERY: Final = f"X-Goog-Credential=somebody&X-Goog-Signature=secret-signature-{'f' * 120}"

_LEDGER: Final = ".sqlite3"
#: Where a ledger may hold a session's address, until the upload has ended.
_SESSIONS: Final = ("files", "session_uri")


@cache
def private_key() -> str:
    """A service account's private key, as its key file holds it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


def service_account_key(token_uri: str) -> dict[str, str]:
    """What a service account's key file says."""
    return {
        "type": "service_account",
        "project_id": "the-project",
        "private_key_id": "key-id",
        "private_key": private_key(),
        "client_email": "robot@the-project.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }


def authorized_user(token_uri: str) -> dict[str, str]:
    """What a user's credentials file says."""
    return {
        "type": "authorized_user",
        "client_id": "client",
        "client_secret": CLIENT_SECRET,
        "refresh_token": REFRESH_TOKEN,
        "token_uri": token_uri,
    }


def ask_no_other_host(patch: Callable[[object, str, object], None]) -> None:
    """Let Google's client ask for tokens where a user's credentials file says, and nobody for boundaries.

    Args:
        patch: as `setattr`.
    """
    patch(service_account.Credentials, "_maybe_start_regional_access_boundary_refresh", _do_nothing)
    patch(credentials.Credentials, "from_authorized_user_info", staticmethod(user_credentials))


def user_credentials(info: Mapping[str, str], scopes: Sequence[str] | None = None) -> credentials.Credentials:
    """The credentials of a user's file."""
    named = {name: info[name] for name in ("refresh_token", "token_uri", "client_id", "client_secret")}
    return credentials.Credentials(None, scopes=scopes, **named)  # type: ignore[no-untyped-call]


def _do_nothing(*_: object) -> None:
    pass


def secrets_in(text: str, *more: str) -> list[str]:
    """The marks of secrets in a text; `more` are secrets of this test alone."""
    made = private_key.cache_info().currsize
    # Without the key's last line, which may be short enough to stand anywhere.
    key = private_key().splitlines()[1:-2] if made else []
    return [secret for secret in (*MARKS, *key, *more) if secret in text]


def secrets_in_ledgers(folder: Path) -> list[str]:
    """Where below a folder a ledger holds a secret in a place that is not for it."""
    return [
        f"{path}: {where}"
        for top, _, names in os.walk(folder)
        for path in (Path(top) / name for name in names if name.endswith(_LEDGER))
        for where in _in_ledger(path)
    ]


def _in_ledger(path: Path) -> Sequence[str]:
    files = [Path(f"{path}{suffix}") for suffix in ("", "-wal")]
    content = b"".join(file.read_bytes() for file in files if file.is_file())
    if not any(mark.encode() in content for mark in MARKS):
        return ()
    try:
        return sorted({f"{cell[0]}.{cell[1]}" for cell in cells(path) if misplaced(*cell)})
    except sqlite3.DatabaseError:
        return ()  # Damaged on purpose.


def misplaced(table: str, column: str, value: Any) -> bool:
    """Whether a cell of a ledger holds a secret that is not for it."""
    return (table, column) != _SESSIONS and any(mark in str(value) for mark in MARKS)


def cells(ledger: Path) -> Iterator[tuple[str, str, Any]]:
    """Every value in a ledger, with its table and column."""
    with closing(sqlite3.connect(f"{ledger.as_uri()}?mode=ro", uri=True)) as db:
        for (table,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            rows = db.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - the schema's own name
            names = [column[0] for column in rows.description]
            for row in rows:
                yield from ((table, *cell) for cell in zip(names, row, strict=True))
