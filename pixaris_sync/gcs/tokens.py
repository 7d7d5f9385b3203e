"""The login's token for the client of the bucket, which lives in an event loop.

The client's own token knows some kinds of credentials only, repeats each failed request with growing waits,
and lets its callers share one task, so that the cancellation of one would reach the others.
"""

import time

import aiohttp
import anyio
import anyio.to_thread
from gcloud.aio.auth import Token

from pixaris_sync.login.login import Login


class SharedToken(Token):
    """What a storage client asks for a token, in one event loop.

    Args:
        login: where tokens come from.
        http: whose requests carry what the login wants beside its token.
    """

    def __init__(self, login: Login, http: aiohttp.ClientSession) -> None:
        # The client's own would look for credentials: nothing of it is used.
        self._login = login
        self._http = http
        self._told: str | None = None
        self._lock = anyio.Lock()

    async def get(self) -> str | None:
        """A token that is not about to expire; raises as `Login.token` does."""
        token = self._login.fresh() or await self._renewed()
        if token != self._told:
            self._told = token
            self._http.headers.update(self._login.headers)
        return token

    async def _renewed(self) -> str:
        wanted_since = time.monotonic()
        # One thread for all that wait.
        async with self._lock:
            if token := self._login.fresh():
                return token
            return await anyio.to_thread.run_sync(
                lambda: self._login.token(wanted_since=wanted_since), abandon_on_cancel=True
            )

    async def close(self) -> None:
        """The login is its owner's."""
