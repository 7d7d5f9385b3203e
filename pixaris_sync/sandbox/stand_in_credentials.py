"""Application Default Credentials for a machine that has none.

Google's BigQuery client asks for them even when it talks to an emulator, and Pixaris gives it no others. The
file written here holds a user's credentials whose access token does not expire, so that the client never has
to reach Google: neither for another token, nor for the access boundary that service accounts have.
"""

import json
import os
from pathlib import Path

_STAND_IN = "stand-in"
_NEVER = "9999-01-01T00:00:00Z"


def write_stand_in_credentials(path: Path) -> None:
    """Write a file for ``GOOGLE_APPLICATION_CREDENTIALS`` that holds no secret and opens no real service."""
    user = {
        "type": "authorized_user",
        "account": "sandbox",
        "client_id": _STAND_IN,
        "client_secret": _STAND_IN,
        "refresh_token": _STAND_IN,
        "token": _STAND_IN,
        "expiry": _NEVER,
    }
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(user, file)
