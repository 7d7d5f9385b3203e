"""What a pass needs before its first file leaves, and what it leaves for later."""

import subprocess
import sys
from typing import Final

from tests.support.command_line import CommandLine
from tests.support.stored_runs import Reader, store_run

#: Runs `sync`, and tells on its last line what was imported when the first upload was about to leave.
_PROGRAM: Final = """
import atexit, sys
from pixaris_sync.gcs.store import GcsObjectStore

imported = []
upload = GcsObjectStore.upload

async def noted(*arguments, **options):
    imported.append([*sys.modules])
    return await upload(*arguments, **options)

GcsObjectStore.upload = noted
atexit.register(lambda: print(*imported[0]))
from pixaris_sync.cli import main
sys.argv = ["pixaris-sync", "sync"]
main()
"""
#: What is needed later, or by others.
_LATER: Final = frozenset(
    {
        *("google.api_core", "google.auth", "google.cloud.bigquery", "google.protobuf"),
        *("requests", "urllib3", "cryptography.x509", "jwt.algorithms", "pandas", "yaml", "rich"),
        *("chardet", "charset_normalizer"),
        *("pixaris_sync.doctor.machine", "pixaris_sync.process.shard_report", "pixaris_sync.verify"),
        *("pixaris_sync.bigquery.calls", "pixaris_sync.cli.shards", "pixaris_sync.monitoring.view"),
    }
)


def test_the_first_file_leaves_before_the_client_of_the_tables_is_imported(
    command_line: CommandLine, pixaris: Reader
) -> None:
    """Goal: a quick start. Method: what a first pass to emulators has imported at its first upload."""
    run = store_run(command_line.folder)
    told = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env=command_line.environment,
        cwd=command_line.folder.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    imported = set(told.stdout.splitlines()[-1].split())
    assert "gcloud.aio.storage" in imported
    assert not _LATER & imported
    assert pixaris.runs() == [run.name]
