"""A login that is revoked, and renewed by whoever puts another file in its place."""

import json
from dataclasses import dataclass
from pathlib import Path

from tests.support.scripted_bigquery import Answer, Asked, ScriptedBigQuery
from tests.support.secrets import authorized_user, service_account_key

_REFUSED = Answer(400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."})


@dataclass
class Login:
    """Credentials in a file, and the service that gives tokens for some of them, by what stands in a request.

    Its tokens expire at once: it is asked for each request.
    """

    file: Path
    service: ScriptedBigQuery
    good: bytes = b""

    def write(self, content: dict[str, str]) -> None:
        """Put credentials in the place of what was there, as somebody who logs in does."""
        self.file.write_text(json.dumps(content))

    def as_user(self, name: str) -> dict[str, str]:
        """A login of its own."""
        credentials = authorized_user(f"{self.service.url}/token")
        return credentials | {"refresh_token": f"{credentials['refresh_token']}{name}"}

    def as_robot(self) -> dict[str, str]:
        """A service account's key."""
        return service_account_key(f"{self.service.url}/token")

    def answer(self, asked: Asked) -> Answer:
        """Give a token, or none."""
        self.service.asked.append(asked)
        if not self.good or self.good not in asked.body:
            return _REFUSED
        assert isinstance(self.service.token.body, dict)
        return Answer(body=self.service.token.body | {"expires_in": 1})
