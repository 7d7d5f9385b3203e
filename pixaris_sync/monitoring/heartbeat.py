"""Asks an address for as long as all is well, so that somebody is told when it falls silent.

A dead man's switch: whoever serves that address raises the alarm when it is not asked any more, whatever
the reason, a machine that is off included. So it is asked only after real success: a pass has ended with
everything synced, or `watch` has nothing that waits for longer than a moment. The address may hold a secret,
and no message holds more of it than the host.
"""

import logging
import time
import urllib.request
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import anyio

from pixaris_sync import USER_AGENT
from pixaris_sync.errors import ConfigurationError
from pixaris_sync.ledger.notices import NOTICE
from pixaris_sync.login import certificates
from pixaris_sync.monitoring.view import View
from pixaris_sync.pipeline.engine import Engine

log = logging.getLogger(__name__)

#: `watch` asks at most so often; what was found within that time may still be on its way.
INTERVAL_SECONDS: Final = 60.0
#: How often it looks whether all is well, once it is time.
LOOK_SECONDS: Final = 5.0
TIMEOUT_SECONDS: Final = 10.0
REDIRECTS_MAX: Final = 3


class Heartbeat:
    """Tells an address that all is well. Where it does not answer, one warning says so, and that is all.

    Args:
        url: the address.

    Attributes:
        counts: how often it answered (``ok``), and how often it did not (``failed``).
    """

    def __init__(self, url: str) -> None:
        self.counts = {"ok": 0, "failed": 0}
        self._url = url
        self._host = urlsplit(url).hostname
        self._fails = False

    async def beat(self) -> None:
        """Ask once."""
        failure = await self._ask()
        self.counts["failed" if failure else "ok"] += 1
        if failure and not self._fails:
            log.warning("the heartbeat's address at %s was not reached: %s", self._host, failure)
        elif self._fails and not failure:
            log.info("the heartbeat's address at %s is reached again", self._host)
        self._fails = bool(failure)

    async def _ask(self) -> str:
        """Ask; what went wrong, without the address."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(ssl=certificates.context()),
                    timeout=timeout,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    headers={"User-Agent": USER_AGENT},
                    trust_env=bool(urllib.request.getproxies()),
                ) as session,
                session.get(self._url, max_redirects=REDIRECTS_MAX) as answer,
            ):
                good = HTTPStatus.OK <= answer.status < HTTPStatus.MULTIPLE_CHOICES
                return "" if good else f"it answered {answer.status}"
        except TimeoutError:
            return f"no answer within {TIMEOUT_SECONDS:g} s"
        except ConfigurationError as error:
            return str(error)
        except aiohttp.TooManyRedirects:
            return "it redirects too often"
        except aiohttp.ClientConnectorError as error:
            return error.os_error.strerror or type(error.os_error).__name__
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Their texts have the address in them.
            return type(error).__name__

    async def beat_while_all_is_well(
        self, engine: Engine, read: Callable[[], Awaitable[View | None]]
    ) -> None:
        """Ask once in a while for as long as everything is synced, until cancelled."""
        while True:
            # What waits during a pause is not on its way.
            patience = 0.0 if engine.context.hold.since is not None else INTERVAL_SECONDS
            if not engine.scanning and all_is_well(await read(), time.time(), patience):
                await self.beat()
                await anyio.sleep(INTERVAL_SECONDS)
            else:
                await anyio.sleep(LOOK_SECONDS)


def all_is_well(view: View | None, now: float, patience_seconds: float = INTERVAL_SECONDS) -> bool:
    """Whether everything that was found until a moment ago is synced, and nobody need act.

    Where runs come one after another, one of them is always on its way.
    """
    if view is None or any(problem.state != NOTICE for problem in view.overview.problems):
        return False
    oldest_at = view.overview.oldest_pending_at
    return oldest_at is None or now - oldest_at < patience_seconds
