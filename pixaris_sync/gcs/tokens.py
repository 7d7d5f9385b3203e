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
        login: where tokens come from; None for an emulator, which wants none.
        http: whose requests carry what the login wants beside its token.
    """

    def __init__(self, login: Login | None, http: aiohttp.ClientSession) -> None:
        # The client's own would look for credentials: nothing of it is used.
        self._login = login
        self._http = http
        self._told: str | None = None
        self._lock = anyio.Lock()

    async def get(self) -> str | None:
        """A token that is not about to expire; raises as `Login.token` does."""
        if self._login is None:
            return ""
        token = self._login.fresh() or await self._renewed(self._login)
        if token != self._told:
            self._told = token
            self._http.headers.update(self._login.headers)
        return token

    async def _renewed(self, login: Login) -> str:
        wanted_since = time.monotonic()
        # One thread for all that wait.
        async with self._lock:
            if token := login.fresh():
                return token
            return await anyio.to_thread.run_sync(
                lambda: login.token(wanted_since=wanted_since), abandon_on_cancel=True
            )

    async def close(self) -> None:
        """The login is its owner's."""
