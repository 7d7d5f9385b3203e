"""What a command does not need is not imported; what it needs costs little memory and time."""

import gc
import json
import os
import platform
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import certifi
import pytest

from pixaris_sync.footprint import _Process, importing, without
from pixaris_sync.ledger.database import set_fact
from pixaris_sync.pipeline.adoption import CHECKED

#: What a pass that finds nothing new does without, and when it is needed.
NEEDLESS = {
    "PIL": "to check images",
    "aiohttp": "to ask the bucket",
    "cryptography": "to ask the cloud",
    "gcloud": "to ask the bucket",
    "google.cloud.bigquery": "to ask the dataset",
    "numpy": "to read whole tables",
    "pandas": "to read whole tables",
    "pixaris_sync.sandbox": "to try things out",
    "pixaris_sync.gcs.calls": "to ask the bucket",
    "pixaris_sync.verify": "to verify",
    "pixaris_sync.bigquery.calls": "to ask the dataset",
    "pixaris_sync.local.watch": "to follow",
    "pydantic": "to check what texts and switches need no check for",
    "platformdirs": "to find a state folder where none is named",
    "requests": "to ask the dataset",
    "rich": "on a terminal",
    "watchfiles": "to follow",
    "yaml": "to read a config file",
}

#: Runs the command line, and tells at its very end of the interpreter that it ran in.
PROGRAM = """
import gc, json, sys
from pixaris_sync.cli import main
try:
    main()
finally:
    state = {
        "modules": [*sys.modules],
        "enabled": gc.isenabled(),
        "frozen": gc.get_freeze_count(),
        "others": len(gc.get_objects()),
    }
    print(json.dumps(state))
"""


def interpreter_at_the_end(*arguments: str) -> dict[str, Any]:
    """Run the command line; what its interpreter was like in the end."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIXARIS_SYNC_")}
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    state: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return state


def a_pass_over(folder: Path) -> list[str]:
    """Arguments for a pass to a destination where nobody answers."""
    (folder / "results").mkdir()
    return [
        "sync",
        "--json",
        f"--local-results-folder={folder / 'results'}",
        f"--state-dir={folder / 'state'}",
        "--gcp-project-id=p",
        "--gcp-bq-experiment-dataset=p.d",
        "--gcp-pixaris-bucket-name=b",
        "--storage-emulator-host=http://127.0.0.1:9",
        "--bigquery-emulator-host=http://127.0.0.1:9",
    ]


def test_a_pass_with_nothing_new_imports_only_what_it_needs(tmp_path: Path) -> None:
    """Goal: what is finished costs nothing to check again.

    Method: what is imported after a real pass with a ledger that knows that bucket and dataset are there.
    """
    arguments = a_pass_over(tmp_path)
    interpreter_at_the_end(*arguments)
    [ledger] = (tmp_path / "state").glob("*.sqlite3")
    with closing(sqlite3.connect(ledger)) as db, db:
        set_fact(db, CHECKED, "0")

    there = set(interpreter_at_the_end(*arguments)["modules"])

    assert "pixaris_sync.pipeline.engine" in there
    assert not NEEDLESS.keys() & there


def test_garbage_is_collected_as_soon_as_everything_is_imported(tmp_path: Path) -> None:
    """Goal: quick start, bounded memory. Method: the collector after a pass, and what is left to it."""
    state = interpreter_at_the_end(*a_pass_over(tmp_path))
    assert state["enabled"]
    assert state["frozen"] > 5 * state["others"]


@pytest.fixture
def claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is taken for the program's own."""
    monkeypatch.setattr(_Process, "claimed", True)


def test_nothing_is_changed_in_the_process_of_somebody_else() -> None:
    """Goal: a library freezes nobody's garbage and hides nobody's libraries. Method: within both."""
    frozen = gc.get_freeze_count()
    with importing(), without("graphlib_of_nobody"):
        assert gc.isenabled()
        assert "graphlib_of_nobody" not in sys.modules
    assert gc.get_freeze_count() == frozen


@pytest.mark.usefixtures("claimed")
def test_nothing_is_collected_while_modules_are_imported() -> None:
    """Goal: the saving, and nothing else changed after it. Method: within, nested, and after."""
    assert gc.isenabled()
    try:
        with importing():
            with importing():
                assert not gc.isenabled()
            assert not gc.isenabled()
            made: list[object] = []
        assert gc.isenabled()
        assert all(one is not made for one in gc.get_objects())
        with pytest.raises(ImportError), importing():
            raise ImportError
        assert gc.isenabled()
    finally:
        gc.unfreeze()


DATASET_PROGRAM = """
import sys
import anyio
from pixaris_sync.errors import SyncError
from pixaris_sync.bigquery.sink import BigQueryRowSink
from pixaris_sync.footprint import claim_process

if {claimed}:
    claim_process()

async def ask():
    sink = BigQueryRowSink(
        "p.d", "p", emulator_host="127.0.0.1:9", timeout_seconds=1, threads_limit=1, frames={frames}
    )
    try:
        await sink.check()
    except SyncError as error:
        print(error.failure)
    await sink.close()

anyio.run(ask)
print("google.cloud.bigquery" in sys.modules, "pandas" in sys.modules, "pyarrow" in sys.modules)
import pandas
print(pandas.DataFrame([1]).size)
"""


@pytest.mark.parametrize(("claimed", "frames"), [(True, False), (True, True), (False, False)])
def test_pandas_is_imported_only_for_frames(*, claimed: bool, frames: bool) -> None:
    """Goal: a service of less memory and a quicker start; in other processes frames can always be read.

    Method: a process that asks a dataset where nobody answers; what it has imported then, and can import.
    """
    program = DATASET_PROGRAM.format(claimed=claimed, frames=frames)
    frames = frames or not claimed
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["transient", "True", str(frames), str(frames), "1"]


@pytest.mark.usefixtures("claimed")
def test_what_was_imported_stays() -> None:
    """Goal: nobody loses a module. Method: hide one that is there and one that is not."""
    with without("sys", "graphlib_of_nobody"):
        assert sys.modules["sys"] is sys
        with pytest.raises(ModuleNotFoundError):
            __import__("graphlib_of_nobody")
    assert "graphlib_of_nobody" not in sys.modules


#: Threads that each hold some memory; then how many pools beside the main one there are. Each reserves
#: 64 MiB of addresses, of which most may not be touched yet.
POOLS_PROGRAM = """
import sys, threading
from pathlib import Path
from pixaris_sync.footprint import limit_arenas

if sys.argv[1] == "shared":
    limit_arenas()
held, rest = [], threading.Event()
filled = threading.Barrier(5)

def fill():
    held.append([bytes(50_000) for _ in range(20)])
    filled.wait()
    rest.wait()

threads = [threading.Thread(target=fill) for _ in range(4)]
for thread in threads:
    thread.start()
filled.wait()
pools = 0
for line in Path("/proc/self/maps").read_text().splitlines():
    addresses, access, *_ = line.split()
    begin, end = (int(part, 16) for part in addresses.split("-"))
    pools += access.startswith("---") and 48 * 2**20 < end - begin < 64 * 2**20
print(pools)
rest.set()
"""


def pools(how: str, **environment: str) -> int:
    inherited = {key: value for key, value in os.environ.items() if key != "MALLOC_ARENA_MAX"}
    answer = subprocess.run(
        [sys.executable, "-c", POOLS_PROGRAM, how],
        env={**inherited, **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    return int(answer.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has pools")
def test_threads_share_one_pool() -> None:
    """Goal: what one thread frees another can use. Method: pools are counted, with and without."""
    assert pools("shared") == 0
    assert pools("apart") > 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has pools")
def test_whoever_sets_the_number_of_pools_gets_it() -> None:
    """Goal: the environment goes before. Method: glibc's own variable allows many."""
    assert pools("shared", MALLOC_ARENA_MAX="8") > 0


#: Imports aiohttp as the program does, then tells whom its own contexts trust, and those made afterwards and
#: by another thread meanwhile.
CONTEXTS_PROGRAM = """
import ssl, threading
from pixaris_sync.footprint import claim_process, trusting_nobody

def trusted(context):
    return context.cert_store_stats()["x509"] > 0

claim_process()
meanwhile = []
with trusting_nobody():
    import aiohttp.connector as connector
    other = threading.Thread(target=lambda: meanwhile.append(ssl.create_default_context()))
    other.start()
    other.join()
own = connector._SSL_CONTEXT_VERIFIED
print(own.verify_mode.name, own.check_hostname, trusted(own))
print(trusted(meanwhile[0]), trusted(ssl.create_default_context(cafile={bundle!r})))
"""


def test_a_context_that_nobody_connects_by_trusts_nobody() -> None:
    """Goal: no certificates are loaded for nothing, and no connection is less well guarded by that.

    Method: the context that aiohttp made; one of another thread meanwhile, and one made later, which trust as
    ever. Whom they trust by default is told by a variable, as a machine may have no certificates.
    """
    program = CONTEXTS_PROGRAM.format(bundle=certifi.where())
    told = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "SSL_CERT_FILE": certifi.where()},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == ["CERT_REQUIRED", "True", "False", "True", "True"]


LATER_PROGRAM = """
import sys
from pixaris_sync.footprint import claim_process, importing

claim_process()
with importing():
    from google.auth.transport.requests import AuthorizedSession
    from google.auth.credentials import AnonymousCredentials
    from google.oauth2 import service_account
AuthorizedSession(AnonymousCredentials())
print("cryptography" in sys.modules, "chardet" in sys.modules, "charset_normalizer" in sys.modules)
from google.auth import crypt
try:
    service_account.Credentials.from_service_account_info(
        {"private_key": "no key", "client_email": "e", "token_uri": "u"}
    )
except ValueError:
    print("cryptography" in sys.modules, issubclass(crypt.RSASigner, crypt.Signer))
"""


def test_what_signs_by_keys_is_loaded_where_a_key_is_there() -> None:
    """Goal: only some logins pay for it, and they get it. Method: a session without, then a key file's login.

    Nothing is said on stderr: requests would warn that nobody guesses encodings.
    """
    told = subprocess.run([sys.executable, "-c", LATER_PROGRAM], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "False", "False", "True", "True"]
    assert told.stderr == ""
