"""What is not needed is not imported, and can be imported all the same later."""

import subprocess
import sys

import pytest

from pixaris_sync.bigquery.optional_imports import without

PROGRAM = """
import sys
import anyio
from pixaris_sync.errors import SyncError
from pixaris_sync.bigquery.sink import BigQueryRowSink

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


@pytest.mark.parametrize("frames", [False, True])
def test_pandas_is_imported_only_for_frames(*, frames: bool) -> None:
    """Goal: a daemon of less memory and a quicker start.

    Method: a process that asks a dataset where nobody answers; what it has imported then, and can import.
    """
    program = PROGRAM.format(frames=frames)
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["transient", "True", str(frames), str(frames), "1"]


def test_what_was_imported_stays() -> None:
    """Goal: nobody loses a module. Method: hide one that is there and one that is not."""
    with without("sys", "graphlib_of_nobody"):
        assert sys.modules["sys"] is sys
        with pytest.raises(ModuleNotFoundError):
            __import__("graphlib_of_nobody")
    assert "graphlib_of_nobody" not in sys.modules
