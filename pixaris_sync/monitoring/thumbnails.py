"""Small pictures for the page: known by ids that are made here, made one at a time, kept for a while.

Nothing of a request is ever part of a path: an id either stands for an image that a page has named, or for
none. Ids cannot be guessed and differ from one process to the next.
"""

import asyncio
import hashlib
import logging
import os
import secrets
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from msgspec import Struct

from pixaris_sync.errors import LocalFileError
from pixaris_sync.local.thumbnails import thumbnail
from pixaris_sync.model import FileVersion, RunKey

log = logging.getLogger(__name__)

#: So many images have ids: several pages of them. Those that were named first are forgotten first.
_IDS_MAX: Final = 512
#: All pictures that are kept have at most so many bytes.
_KEPT_BYTES_MAX: Final = 8 * 1024 * 1024
_ID_BYTES: Final = 16
_LOWEST_PRIORITY: Final = 19


class Picture(Struct, frozen=True):
    """A small picture, of which version of the file it is, and what tells it from others."""

    version: FileVersion
    content: bytes
    etag: str


class Thumbnails:
    """The small pictures of runs below `root`; `close` at the end.

    `id_of` may be called in another thread than `get`, by one thread at a time.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._key = secrets.token_bytes(_ID_BYTES)
        self._named: OrderedDict[str, tuple[RunKey, str]] = OrderedDict()
        self._kept: OrderedDict[str, Picture] = OrderedDict()
        self._kept_bytes = 0
        # Decoding takes as much memory as an image has pixels: one at a time, and behind everything else.
        self._thread: ThreadPoolExecutor | None = None

    def id_of(self, run: RunKey, path: str) -> str:
        """The id of a run's image, `path` relative to the run's folder; the same each time."""
        named = f"{run}\0{path}".encode(errors="surrogatepass")
        id_ = hashlib.blake2b(named, key=self._key, digest_size=_ID_BYTES).hexdigest()
        self._named[id_] = run, path
        self._named.move_to_end(id_)
        if len(self._named) > _IDS_MAX:
            self._named.popitem(last=False)
        return id_

    async def get(self, id_: str) -> Picture | None:
        """The picture of that id.

        Returns:
            None where the image is missing, damaged, too large or no image.

        Raises:
            KeyError: no page has named an image by that id, or too long ago.
        """
        run, path = self._named[id_]
        kept = self._kept.get(id_)
        try:
            version, made = await self._made(run, path, kept.version if kept else None)
        except LocalFileError as error:
            log.debug("no picture of %s/%s: %s", run, path, error)
            return None
        if made is None:
            return kept
        picture = Picture(version, made, hashlib.blake2b(made, digest_size=_ID_BYTES).hexdigest())
        self._keep(id_, picture)
        return picture

    async def _made(
        self, run: RunKey, path: str, known: FileVersion | None
    ) -> tuple[FileVersion, bytes | None]:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "thumbnails", initializer=_go_behind)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, thumbnail, self._root, run, path, known)

    def _keep(self, id_: str, picture: Picture) -> None:
        before = self._kept.pop(id_, None)
        self._kept[id_] = picture
        self._kept_bytes += len(picture.content) - (len(before.content) if before else 0)
        while self._kept_bytes > _KEPT_BYTES_MAX:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= len(oldest.content)

    def close(self) -> None:
        """End the thread, once it has made what it is making."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)


def _go_behind() -> None:
    """Give this thread the lowest priority; on Linux each thread has its own."""
    # A service may be forbidden to; it has a low one already.
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
