"""How many files may be open, and what becomes of errors that come of it."""

import errno
import logging
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from pixaris_sync.bigquery.errors import translate
from pixaris_sync.errors import OPEN_FILES_HINT, Failure, SyncError
from pixaris_sync.gcs.answers import unanswered
from pixaris_sync.ledger.trouble import translated
from pixaris_sync.local.safe_open import local_error
from pixaris_sync.login.source import _unopened
from pixaris_sync.pipeline.unexpected import Reports
from pixaris_sync.process.open_files import within_open_files
from pixaris_sync.settings.model import Settings

SETTINGS = Settings(gcp_project_id="p", gcp_bq_experiment_dataset="p.d", gcp_pixaris_bucket_name="b")
#: What a hard limit, a soft limit and 192 uploads come to: uploads, soft limit.
LIMITS = {
    "many": (20_000, 1024, 192, 1024),
    "few, and more for the asking": (20_000, 64, 192, 424),
    "few": (64, 64, 12, 64),
    "in between": (256, 64, 108, 256),
    "nearly none": (20, 20, 1, 20),
    "no limit": (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 192, resource.RLIM_INFINITY),
    "no hard limit": (resource.RLIM_INFINITY, 64, 192, 424),
}


@pytest.mark.parametrize(("most", "allowed", "uploads", "raised"), LIMITS.values(), ids=LIMITS)
def test_as_many_uploads_as_files_may_be_open(
    most: int,
    allowed: int,
    uploads: int,
    raised: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Goal: no limit is run into, and a word where it binds. Method: a table of limits."""
    limits = [(allowed, most)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: limits.append(limit))
    with caplog.at_level(logging.WARNING):
        found = within_open_files(SETTINGS)
    assert (found.upload_concurrency_limit, limits[-1]) == (uploads, (raised, most))
    assert len(caplog.messages) == (uploads < 192)


def _reported(error: OSError) -> SyncError:
    outer = RuntimeError("something went wrong")
    outer.__cause__ = error
    return Reports(None).as_error("do", "it", outer)


TELLERS: dict[str, Callable[[OSError], SyncError]] = {
    "a run's file": lambda error: local_error("read", "a", error),
    "the ledger": lambda error: translated("open ledger", Path("/nowhere/ledger"), error),
    "the bucket": lambda error: unanswered("upload", "a", error, sent=False, writes=True),
    "the credentials": lambda error: _unopened(error, "the file", ""),
    "the tables": lambda error: translate(error, "ask", "a", repeatable=True),
    "what nobody thought of": _reported,
}


@pytest.mark.parametrize("tell", TELLERS.values(), ids=TELLERS)
@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
def test_too_many_open_files_pass_and_are_called_so(tell: Callable[[OSError], SyncError], code: int) -> None:
    """Goal: nothing is quarantined for it, and the hint helps. Method: each place that meets the system."""
    error = tell(OSError(code, os.strerror(code)))
    assert error.failure is Failure.TRANSIENT
    assert error.hint == OPEN_FILES_HINT
