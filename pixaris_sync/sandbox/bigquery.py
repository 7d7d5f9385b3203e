"""A BigQuery that runs here: ``python -m pixaris_sync.sandbox.bigquery --project P``.

Starts bqemulator with the repairs of this package. It listens on the loopback interface unless told
otherwise, needs no network and no credentials, and ends on SIGTERM or SIGINT with exit code 0.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pixaris_sync.sandbox import child

if TYPE_CHECKING:
    from bqemulator.config import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal, or the end of standard input with ``--stop-with-stdin``, ends it."""
    options = _parser().parse_args(arguments)
    reserved = child.reserve_stdout()
    child.end_on_signals()
    if options.stop_with_stdin:
        child.stop_with_parent()
    with tempfile.TemporaryDirectory(prefix="pixaris-sync-bigquery-") as staging:
        asyncio.run(_serve(_settings(options, Path(staging)), reserved))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pixaris_sync.sandbox.bigquery", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="port of the REST API; 0 takes a free one")
    parser.add_argument("--grpc-port", type=int, default=0, help="port of the gRPC API; 0 takes a free one")
    parser.add_argument("--project", required=True, help="Google Cloud project id to answer for")
    parser.add_argument("--data-dir", type=Path, help="keep the data here (default: in memory)")
    parser.add_argument("--stop-with-stdin", action="store_true", help="end when standard input ends")
    return parser


def _settings(options: argparse.Namespace, staging: Path) -> "Settings":
    from bqemulator.config import LogFormat, LogLevel, PersistenceMode, Settings  # noqa: PLC0415 - heavy

    kept = options.data_dir is not None
    return Settings(
        rest_host=options.host,
        rest_port=options.port,
        grpc_host=options.host,
        grpc_port=options.grpc_port,
        default_project_id=options.project,
        persistence_mode=PersistenceMode.PERSISTENT if kept else PersistenceMode.EPHEMERAL,
        data_dir=options.data_dir,
        upload_staging_dir=staging,
        # Avro is of no use here, and DuckDB would look for it in the network.
        enable_format_extensions=False,
        metrics_enabled=False,
        log_level=LogLevel.WARNING,
        log_format=LogFormat.CONSOLE,
    )


async def _serve(settings: "Settings", reserved: TextIO) -> None:
    from bqemulator.observability.logging_ import configure_logging  # noqa: PLC0415 - heavy, optional

    # Before the other imports, which log.
    configure_logging(level=settings.log_level, fmt=settings.log_format)
    from bqemulator import server as emulator  # noqa: PLC0415 - heavy, optional

    from pixaris_sync.sandbox import bigquery_repairs  # noqa: PLC0415 - imports the emulator
    from pixaris_sync.sandbox.bigquery_front import Front  # noqa: PLC0415 - imports the emulator

    bigquery_repairs.install()
    create_app = emulator.create_app

    def create_repaired_app(context: Any) -> Front:  # noqa: ANN401 - the emulator's own context, passed through
        bigquery_repairs.keep_no_history(context)
        return Front(create_app(context), context)

    emulator.create_app = create_repaired_app
    server = emulator.EmulatorServer(settings)
    ended = asyncio.Event()
    await server.start()
    try:
        # After the start: uvicorn sets handlers of its own while it starts.
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        child.announce_ready(reserved, settings.rest_host, server.rest_port)
        await ended.wait()
    finally:
        await server.stop()


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # gRPC and DuckDB keep threads that need not be waited for: the data is closed.
    os._exit(code)
