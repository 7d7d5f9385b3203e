"""The command line as it works with Google: with real credentials, and with emulators in Google's place.

A program: ``python -m tests.support.credentialed`` stands for ``pixaris-sync``. Where the emulators are is
said as always; unlike always, every request to them carries a token that was got for it.
"""

from typing import Any

from pixaris_sync.bigquery.sink import BigQueryRowSink
from pixaris_sync.cli import main
from pixaris_sync.gcs.store import GcsObjectStore
from tests.support.secrets import ask_no_other_host
from tests.support.stand_ins import use_instead


def _store(bucket: str, *, emulator_host: str, **options: Any) -> GcsObjectStore:
    return GcsObjectStore(bucket, api_root=emulator_host, **options)


def _sink(dataset: str, project: str, *, emulator_host: str, **options: Any) -> BigQueryRowSink:
    # Google's client finds the emulator in the environment.
    assert emulator_host
    return BigQueryRowSink(dataset, project, emulator_host=None, **options)


if __name__ == "__main__":
    use_instead(_store, _sink)
    ask_no_other_host(setattr)
    main()
