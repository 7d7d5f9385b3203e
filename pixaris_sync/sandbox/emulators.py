"""Both emulators as child processes with a bucket and a dataset, and the environment that points at them."""

import contextlib
import errno
import http.client
import importlib.util
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from http import HTTPStatus
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from pixaris_sync.errors import ConfigurationError, SyncError
from pixaris_sync.sandbox.data_folder import DataFolder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

INSTALL_HINT = "run pip install '.[sandbox]' in a checkout of the repository"
READY_SECONDS = 60.0
STOP_SECONDS = 10.0

#: Packages that the children import, as the ``sandbox`` extra installs them.
_PACKAGES = ("bqemulator", "duckdb", "gcp_storage_emulator")
_LOG_LINES = 20
_STAND_IN = "stand-in"
_NEVER = "9999-01-01T00:00:00Z"
_LOOPBACK = "127.0.0.1"
_EVERY_INTERFACE = "0.0.0.0"  # noqa: S104 - only compared with


class Sandbox:
    """Google Cloud Storage and BigQuery on this machine, for as long as the context is open.

    The emulators are child processes that end with this one, however it ends. They listen on free ports of
    the loopback interface, unless told otherwise, and let anybody in who can reach them.

    Args:
        data_dir: where to keep buckets and tables; in memory when None.
        host: address to listen on; ``0.0.0.0`` lets other machines and containers in.
        storage_port: port of the storage emulator; 0 takes a free one. None: where the sandbox of `data_dir`
            was found before, else a free one.
        bigquery_port: the same of the BigQuery emulator.

    Attributes:
        project, dataset, bucket: what is made in them.
        environment: what to set so that Google's clients, Pixaris and pixaris-sync use the emulators.
            Complete once the sandbox has started.
    """

    def __init__(
        self,
        *,
        data_dir: Path | None = None,
        host: str = _LOOPBACK,
        storage_port: int | None = None,
        bigquery_port: int | None = None,
    ) -> None:
        self.project = "pixaris-sandbox"
        self.dataset = "pixaris"
        self.bucket = "pixaris-sandbox-bucket"
        self.environment: Mapping[str, str] = {}
        self._data_dir = data_dir
        self._host = host
        self._ports: dict[str, int | None] = {"storage": storage_port, "bigquery": bigquery_port}
        self._children: list[_Emulator] = []
        self._data: DataFolder | None = None
        self._scratch: Path | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start both emulators and wait until they answer; create bucket and dataset where missing.

        Raises:
            ConfigurationError: a package of the ``sandbox`` extra is not installed, the data folder cannot be
                used, or a port is taken.
            SyncError: an emulator did not start; the cause ends with its last words.
        """
        _require_packages()
        if self._data_dir is not None:
            self._data = DataFolder(self._data_dir)
        try:
            self._choose_ports()
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        scratch = self._scratch = Path(tempfile.mkdtemp(prefix="pixaris-sync-sandbox-"))
        # Both start at the same time; each takes about a second.
        storage = self._launch("storage", "--bucket", self.bucket)
        bigquery = self._launch("bigquery", "--project", self.project)
        storage_host = f"http://{storage.wait_until_ready()}"
        bigquery_address = bigquery.wait_until_ready()
        _create_dataset(bigquery_address, self.project, self.dataset)
        if self._data is not None:
            addresses = {"storage": storage_host, "bigquery": bigquery_address}
            self._data.remember({name: int(at.rpartition(":")[2]) for name, at in addresses.items()})
        # With the data: whoever was told of it finds it after a restart.
        credentials = (self._data.path.resolve() if self._data else scratch) / "stand-in-credentials.json"
        write_stand_in_credentials(credentials)
        self.environment = {
            "STORAGE_EMULATOR_HOST": storage_host,
            "BIGQUERY_EMULATOR_HOST": f"http://{bigquery_address}",
            "GOOGLE_CLOUD_PROJECT": self.project,
            "GOOGLE_APPLICATION_CREDENTIALS": str(credentials),
            "PIXARIS_SYNC_GCP_PROJECT_ID": self.project,
            "PIXARIS_SYNC_GCP_BQ_EXPERIMENT_DATASET": self.dataset_ref,
            "PIXARIS_SYNC_GCP_PIXARIS_BUCKET_NAME": self.bucket,
        }

    def _choose_ports(self) -> None:
        """Take the ports that were asked for, else those of before, and make sure that they are free.

        Raises:
            ConfigurationError: one is not.
        """
        with contextlib.ExitStack() as stack:
            for name, asked in self._ports.items():
                port = asked if asked is not None else self._data.port(name) if self._data else 0
                self._ports[name] = port
                if port:
                    stack.enter_context(_bound(self._host, port, name, remembered=asked is None))

    @property
    def dataset_ref(self) -> str:
        """The dataset as Pixaris is told it: ``<project>.<dataset>``."""
        return f"{self.project}.{self.dataset}"

    def _launch(self, name: str, *arguments: str) -> "_Emulator":
        assert self._scratch is not None  # noqa: S101 - made before the first launch
        command = [*arguments, "--host", self._host, "--port", str(self._ports[name])]
        handles = []
        if self._data is not None:
            command += ["--data-dir", str(self._data.path.resolve() / name)]
            handles = [self._data.lock]
        child = _Emulator(name, command, log=self._scratch / f"{name}.log", handles=handles)
        self._children.append(child)
        return child

    def export_lines(self) -> str:
        """Shell commands that set `environment`, one a line."""
        return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in self.environment.items())

    def dead(self) -> str | None:
        """The name of an emulator that ended by itself, or None while both run."""
        return next((child.name for child in self._children if child.poll() is not None), None)

    def stop(self) -> None:
        """End both emulators and forget their logs. Safe to call twice."""
        for child in self._children:
            child.terminate()
        for child in self._children:
            child.wait()
        self._children.clear()
        if self._data is not None:
            self._data.close()
            self._data = None
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None


class _Emulator:
    """One child process. The pipe to its standard input is what it lives by: see `child.stop_with_parent`."""

    def __init__(self, name: str, arguments: list[str], *, log: Path, handles: "Sequence[int]") -> None:
        self.name = name
        self._log = log
        with log.open("wb") as log_file:
            self._process = subprocess.Popen(  # noqa: S603 - our own module under our own interpreter
                [sys.executable, "-m", f"pixaris_sync.sandbox.{name}", *arguments, "--stop-with-stdin"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                # A Ctrl+C is for the parent, which then ends its children in order.
                start_new_session=True,
                pass_fds=handles,
                # What it leaves behind when it is killed goes with the scratch folder.
                env={**os.environ, "TMPDIR": str(log.parent)},
            )

    def wait_until_ready(self) -> str:
        """The ``host:port`` that it answers at on this machine.

        Raises:
            SyncError: it ended, or said nothing in time.
        """
        assert self._process.stdout is not None  # noqa: S101 - opened as a pipe
        line = _read_line(self._process.stdout, timeout_seconds=READY_SECONDS)
        if not line:
            code = self._process.poll()
            fate = "did not answer in time" if code is None else f"ended with exit code {code}"
            raise SyncError(
                "start", f"the {self.name} emulator", f"it {fate}\n{self._last_words()}", hint=INSTALL_HINT
            )
        announced = json.loads(line)
        host = _LOOPBACK if announced["host"] == _EVERY_INTERFACE else announced["host"]
        return f"{host}:{announced['port']}"

    def _last_words(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-_LOG_LINES:])

    def poll(self) -> int | None:
        return self._process.poll()

    def terminate(self) -> None:
        self._process.terminate()

    def wait(self) -> None:
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _read_line(stream: IO[bytes], *, timeout_seconds: float) -> bytes:
    """One line, or nothing when the stream ends or the time is up."""
    lines: list[bytes] = []
    reader = threading.Thread(target=lambda: lines.append(stream.readline()), daemon=True)
    reader.start()
    reader.join(timeout_seconds)
    return lines[0] if lines else b""


def _require_packages() -> None:
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            "start", "the sandbox", f"not installed: {', '.join(missing)}", hint=INSTALL_HINT
        )


@contextlib.contextmanager
def _bound(host: str, port: int, name: str, *, remembered: bool) -> "Iterator[None]":
    """Hold a port for a moment: what cannot be had is told before anything is started.

    Raises:
        ConfigurationError: it cannot be had.
    """
    flag = f"--{name}-port"
    why = "remembered from before" if remembered else "asked for"
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as held:
        # As the emulators do: connections of one that has just ended do not count.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            held.bind((host, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            raise ConfigurationError(
                "listen at",
                f"{host}:{port}",
                f"the {name} port {why} is taken by another process"
                if taken
                else error.strerror or str(error),
                hint=f"end what listens there, or name another port with {flag}; {flag} 0 takes a free one"
                if taken
                else f"name another address with --host, or another port with {flag}",
            ) from None
        yield


def _create_dataset(address: str, project: str, dataset: str) -> None:
    """Create the dataset by the REST API; one that is there already stays.

    Raises:
        SyncError: the emulator refused.
    """
    connection = http.client.HTTPConnection(address, timeout=READY_SECONDS)
    try:
        body = json.dumps({"datasetReference": {"projectId": project, "datasetId": dataset}})
        headers = {"Content-Type": "application/json"}
        connection.request("POST", f"/bigquery/v2/projects/{project}/datasets", body, headers)
        status = connection.getresponse().status
    finally:
        connection.close()
    if status not in (HTTPStatus.OK, HTTPStatus.CONFLICT):
        raise SyncError("create dataset", f"{project}.{dataset}", f"the emulator answered {status}")


def write_stand_in_credentials(path: Path) -> None:
    """Write a file for ``GOOGLE_APPLICATION_CREDENTIALS`` that holds no secret and opens no real service.

    Google's BigQuery client asks for credentials even when it talks to an emulator, and Pixaris gives it no
    others. These are a user's, and their access token does not expire: so the client never has to reach
    Google, neither for another token nor for the access boundary that service accounts have.
    """
    user = {
        "type": "authorized_user",
        "account": "sandbox",
        "client_id": _STAND_IN,
        "client_secret": _STAND_IN,
        "refresh_token": _STAND_IN,
        "token": _STAND_IN,
        "expiry": _NEVER,
    }
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(user, file)
