"""What a first run asks of a dataset, without Google's client, which takes longer to import than to ask.

Two things can be seen at a glance: how the dataset is set up, and that a table is not there. Nothing else
that comes back is judged here: it is asked anew by `calls`, which knows what refusals mean, and what else may
answer in the service's place.

Sources: the references of ``datasets.get`` and ``tables.get``.
"""

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import aiohttp
import anyio.to_thread
from yarl import URL

from pixaris_sync import USER_AGENT
from pixaris_sync.bigquery.wire import Address, read_facts
from pixaris_sync.errors import SyncError
from pixaris_sync.login import certificates
from pixaris_sync.login.login import Login
from pixaris_sync.ports import DatasetFacts

if TYPE_CHECKING:
    import ssl

_NOT_FOUND: Final = "notFound"


class Glance:
    """Looks at one dataset, with a connection for each look: there are few, and only at first.

    Args:
        address: where to.
        timeout_seconds: the longest wait for an answer.
        login: whose requests they are; None for an emulator.
    """

    def __init__(self, address: Address, timeout_seconds: float, login: Login | None) -> None:
        self._address = address
        self._login = login
        self._limit = aiohttp.ClientTimeout(total=timeout_seconds)

    async def dataset(self) -> DatasetFacts | None:
        """How the dataset is set up; None: it cannot be seen at a glance."""
        status, resource = await self._get(self._path)
        if status != HTTPStatus.OK:
            return None
        try:
            named = resource["datasetReference"]["datasetId"] == self._address.dataset
            return read_facts(resource) if named else None
        except (LookupError, TypeError, ValueError):
            return None

    async def lacks(self, table: str) -> bool:
        """Whether the dataset is there, and the table is not."""
        # The dataset's absence is a 404 as well, and another matter.
        (status, answer), dataset = await asyncio.gather(
            self._get(f"{self._path}/tables/{quote(table, safe='')}"), self.dataset()
        )
        return status == HTTPStatus.NOT_FOUND and _says_not_found(answer) and dataset is not None

    @property
    def _path(self) -> str:
        project, dataset = (quote(name, safe=":") for name in (self._address.project, self._address.dataset))
        return f"/bigquery/v2/projects/{project}/datasets/{dataset}"

    async def _get(self, path: str) -> tuple[int, Any]:
        """Status and JSON of an answer; 0 where there is none that can be read."""
        try:
            headers, trust, proxy = await anyio.to_thread.run_sync(self._prepared, abandon_on_cancel=True)
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(ssl=trust),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    headers=headers,
                    timeout=self._limit,
                ) as session,
                session.get(
                    URL(f"{self._address.root}{path}", encoded=True), allow_redirects=False, proxy=proxy
                ) as answer,
            ):
                return answer.status, json.loads(await answer.read())
        except (SyncError, aiohttp.ClientError, OSError, ValueError, RecursionError):
            return 0, None

    def _prepared(self) -> "tuple[dict[str, str], ssl.SSLContext | bool, str | None]":
        """Headers, whom to trust, and the proxy in between; it blocks.

        Raises:
            SyncError: there is no token, or certificates or the proxy cannot be used.
        """
        headers, root, proxy = {"User-Agent": USER_AGENT}, self._address.root, None
        if self._login is None and not root.startswith("https:"):
            return headers, True, None
        if self._login is not None:
            headers |= {"Authorization": f"Bearer {self._login.token()}", **self._login.headers}
        if self._login is not None:
            proxy = certificates.proxy_for(root)
        return headers, certificates.context(), proxy


def _says_not_found(answer: Any) -> bool:  # noqa: ANN401 - JSON of a service, or of whoever answers
    """Whether it is the service that answers so."""
    try:
        return any(error["reason"] == _NOT_FOUND for error in answer["error"]["errors"])
    except (LookupError, TypeError):
        return False
