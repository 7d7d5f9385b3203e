"""The command line as it works with Google: with real credentials, and with emulators in Google's place.

A program: ``python -m tests.support.credentialed`` stands for ``pixaris-sync``. Where the emulators are is
said as always; unlike always, every request to them carries a token that was got for it.
"""

from typing import Any

from pixaris_sync.bigquery.sink import BigQueryRowSink
from pixaris_sync.cli import main
from pixaris_sync.gcs.store import GcsObjectStore
from pixaris_sync.login.login import Login
from pixaris_sync.process import wiring
from pixaris_sync.process.wiring import login_of
from pixaris_sync.settings.model import Settings
from tests.support.secrets import ask_no_other_host
from tests.support.stand_ins import use_instead


def _store(bucket: str, *, emulator_host: str, **options: Any) -> GcsObjectStore:
    # The login holds where it is.
    assert emulator_host
    return GcsObjectStore(bucket, emulator_host=None, **options)


def _sink(dataset: str, project: str, *, emulator_host: str, **options: Any) -> BigQueryRowSink:
    assert emulator_host
    return BigQueryRowSink(dataset, project, emulator_host=None, **options)


def _login(settings: Settings) -> Login:
    endpoints = {"storage": settings.storage_emulator_host, "bigquery": settings.bigquery_emulator_host}
    return Login(timeout_seconds=settings.request_timeout_seconds, endpoints=endpoints)


if __name__ == "__main__":
    use_instead(_store, _sink)
    setattr(wiring, login_of.__name__, _login)
    ask_no_other_host(setattr)
    main()
