"""How many files may be open, and how much at once that allows.

Each upload has a connection and, where its file is large, that file.
"""

import logging
import resource
from contextlib import suppress
from typing import Final

from pixaris_sync.errors import OPEN_FILES_HINT
from pixaris_sync.settings.model import Settings
from pixaris_sync.text import counted

log = logging.getLogger(__name__)

#: What is open at most beside connections: streams, locks, the ledger, the event loop, the watch, folders
#: that are scanned, files that are read ahead, modules that are imported.
OTHER_FILES: Final = 36
FILES_PER_UPLOAD: Final = 2


def wanted_files(settings: Settings) -> int:
    """How many files and connections are open at most where all that is set is done at once."""
    other = OTHER_FILES + settings.warehouse_threads_limit
    return other + FILES_PER_UPLOAD * settings.upload_concurrency_limit


def within_open_files(settings: Settings) -> Settings:
    """The settings, with no more uploads at once than files may be open; the limit is raised if possible."""
    wanted = wanted_files(settings)
    other = wanted - FILES_PER_UPLOAD * settings.upload_concurrency_limit
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= wanted:
        return settings
    raised = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, most))
        allowed = raised
    if allowed >= wanted:
        return settings
    uploads = max(1, (allowed - other) // FILES_PER_UPLOAD)
    log.warning(
        "only %s may be open: %s at the same time instead of %d (%s)",
        counted(allowed, "file"),
        counted(uploads, "upload"),
        settings.upload_concurrency_limit,
        OPEN_FILES_HINT,
    )
    return settings.having(upload_concurrency_limit=uploads)
