"""Serves the UI of Pixaris, whose own way to start has a fixed port and serves the current folder.

`pixaris.frontend.main.launch_ui` (0.11.4) builds a page with gradio and lets it serve itself. It sees gradio
through `_Gradio` here, which takes the page in place of serving it.
"""

import contextlib
import http.client
import io
import logging
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pixaris_sync import GCPExperimentHandler
from pixaris_sync.errors import ConfigurationError, SyncError
from pixaris_sync.settings.model import Settings
from pixaris_sync.ui.feedback_table import FeedbackTable

if TYPE_CHECKING:
    import uvicorn

log = logging.getLogger(__name__)

#: What the page imports, as the ``ui`` extra installs it.
PACKAGES: Final = ("gradio", "pixaris", "google.cloud.storage")
INSTALL_HINT: Final = (
    "run pip install '.[ui]' in a checkout of the repository; with Python 3.11 then also "
    "pip install --no-deps --ignore-requires-python pixaris==0.11.4"
)
#: How long the page may take to answer for the first time, and requests to end after the page is closed.
START_SECONDS: Final = 60.0
END_SECONDS: Final = 2
#: How this machine calls itself in a browser.
_OF_THIS_MACHINE: Final = ("127.0.0.1", "localhost")
#: A picture that lies in a checkout of Pixaris, and in no package.
_LOGO: Final = "assets/pixaris_logo.png"
_LOGO_SIZE: Final = (100, 100)


class PrintedLines(io.TextIOBase):
    """Takes what Pixaris prints, and logs it line by line: standard output is for other things.

    It prints each step that it takes, and errors that it goes on after, such as an image that is not there.
    """

    def __init__(self) -> None:
        self._begun = ""

    def write(self, text: str) -> int:
        """See `io.TextIOBase`."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in filter(None, lines):
            log.log(logging.WARNING if line.startswith("Error") else logging.DEBUG, "Pixaris: %s", line)
        return len(text)


def require_packages() -> None:
    """Make sure that the ``ui`` extra is installed.

    Raises:
        ConfigurationError: it is not.
    """
    missing = [name for name in PACKAGES if not _is_installed(name)]
    if missing:
        raise ConfigurationError(
            "start", "the Pixaris UI", f"not installed: {', '.join(missing)}", hint=INSTALL_HINT
        )


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@contextlib.contextmanager
def workshop() -> Iterator[Path]:
    """A temporary folder for all that the UI writes, removed at the end; no results folder sees it.

    From now on gradio writes there, and tells its makers nothing. To be called before anything imports it.
    """
    prefix = "pixaris-sync-ui-"
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as folder:
        os.environ |= {
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_RUN_HISTORY": "False",
            "GRADIO_TEMP_DIR": str(Path(folder, "shown")),
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        yield Path(folder)


@contextlib.contextmanager
def serving(
    settings: Settings, table: FeedbackTable, scratch: Path, *, host: str, port: int
) -> Iterator["Page"]:
    """Serve the UI for as long as the context is open.

    Environment variables point Google's clients at the emulators of the settings, if there are any.

    Args:
        settings: the bucket and the dataset to show.
        table: where feedback goes; it exists.
        scratch: a `workshop`.
        host: the address to listen on.
        port: the port; 0 takes a free one.

    Raises:
        ConfigurationError: the address cannot be listened on.
        SyncError: the cloud cannot be read, or the page does not answer.
    """
    emulators = {
        "STORAGE_EMULATOR_HOST": settings.storage_emulator_host,
        "BIGQUERY_EMULATOR_HOST": settings.bigquery_emulator_host,
    }
    os.environ |= {
        name: place if "://" in place else f"http://{place}" for name, place in emulators.items() if place
    }
    with _listener(host, port) as listener:
        page = Page(_server(settings, table, scratch, host), listener)
        try:
            page.start()
            yield page
        finally:
            page.end()


class Page:
    """The UI at its address.

    Args:
        server: what serves it.
        listener: where.

    Attributes:
        address: where it answers.
    """

    def __init__(self, server: "uvicorn.Server", listener: socket.socket) -> None:
        self._server = server
        self._listener = listener
        host, port, *_ = listener.getsockname()
        self._host, self._port = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104 - only compared with
        self.address = f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{port}/"
        self._thread = threading.Thread(target=server.run, args=([listener],), name="pixaris-ui", daemon=True)

    def start(self) -> None:
        """Serve, and return when it answers.

        Raises:
            SyncError: it does not.
        """
        self._thread.start()
        connection = http.client.HTTPConnection(self._host, self._port, timeout=START_SECONDS)
        try:
            connection.request("GET", "/")
            status = connection.getresponse().status
            if status != HTTPStatus.OK:
                raise SyncError("start", "the Pixaris UI", f"it answers with HTTP status {status}")
        except (OSError, http.client.HTTPException) as error:
            raise SyncError(
                "start", "the Pixaris UI", f"it does not answer ({type(error).__name__})"
            ) from None
        finally:
            connection.close()

    @property
    def is_alive(self) -> bool:
        """Whether it is still served."""
        return self._thread.is_alive()

    def end(self) -> None:
        """Serve no longer. Requests under way have `END_SECONDS` to end."""
        # Browsers hold a connection open all the time, which it complains about.
        logging.getLogger("uvicorn.error").disabled = True
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(END_SECONDS + 1)


def _listener(host: str, port: int) -> socket.socket:
    try:
        family, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        return socket.create_server(place[:2], family=family)
    except (OSError, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        hint = "choose another --port, or 0 for a free one, or another --host"
        raise ConfigurationError("open address", f"{host}:{port}", cause, hint=hint) from None


def _server(settings: Settings, table: FeedbackTable, scratch: Path, host: str) -> "uvicorn.Server":
    import uvicorn  # noqa: PLC0415 - of the extra
    from fastapi import FastAPI  # noqa: PLC0415 - of the extra
    from gradio import mount_gradio_app  # noqa: PLC0415 - of the extra
    from starlette.middleware import Middleware  # noqa: PLC0415 - of the extra
    from starlette.middleware.trustedhost import TrustedHostMiddleware  # noqa: PLC0415 - of the extra

    blocks, options = _built(settings, table, scratch)
    # Under another name no page of another site reaches what only this machine may.
    hosts = list(_OF_THIS_MACHINE) if host in _OF_THIS_MACHINE else ["*"]
    application = mount_gradio_app(
        FastAPI(
            docs_url=None,
            redoc_url=None,
            openapi_url=None,
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
        ),
        blocks,
        path="/",
        allowed_paths=[str(scratch)],
        show_error=True,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        theme=options.get("theme"),
    )
    # Only `launch` says so; else it would take any file here for one that was uploaded, and show it.
    blocks.has_launched = True
    return uvicorn.Server(
        uvicorn.Config(
            application, log_config=None, log_level="warning", timeout_graceful_shutdown=END_SECONDS
        )
    )


def _built(settings: Settings, table: FeedbackTable, scratch: Path) -> tuple[Any, dict[str, Any]]:
    """The page as Pixaris builds it, and the options that it would be launched with.

    Experiments are read by our handler: it lists a bucket of many objects with a request a project and loads
    a run's images side by side, each whole. Feedback is Pixaris' own.
    """
    import gradio  # noqa: PLC0415 - of the extra
    from pixaris.feedback_handlers.gcp import GCPFeedbackHandler  # noqa: PLC0415 - of the extra
    from pixaris.frontend import main  # noqa: PLC0415 - of the extra

    experiments = GCPExperimentHandler(
        settings.gcp_project_id, settings.gcp_bq_experiment_dataset, settings.gcp_pixaris_bucket_name
    )
    feedback = GCPFeedbackHandler(
        gcp_project_id=settings.gcp_project_id,
        gcp_bq_feedback_table=str(table),
        gcp_pixaris_bucket_name=settings.gcp_pixaris_bucket_name,
        local_feedback_directory=str(scratch / "feedback"),
    )
    main.gr = seen = _Gradio(gradio, scratch)
    told = _Told(feedback, seen), _Told(experiments, seen)
    try:
        main.launch_ui(*told, results_directory=str(scratch / "runs"))
    except SyncError:
        raise
    except Exception as error:
        raise SyncError("build", "the Pixaris UI", _line(error)) from error
    assert seen.launched is not None  # noqa: S101 - `launch_ui` ends with it
    return seen.launched


class _Gradio:
    """gradio, as the page of Pixaris is to see it.

    Attributes:
        launched: the page, and the options that it was launched with.
    """

    def __init__(self, gradio: Any, scratch: Path) -> None:  # noqa: ANN401 - the module
        self._gradio = gradio
        self._scratch = scratch
        self.launched: tuple[Any, dict[str, Any]] | None = None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever gradio has
        return getattr(self._gradio, name)

    def Blocks(self, **options: Any) -> Any:  # noqa: ANN401, N802 - as gradio has it
        """A page that is not served, but noted."""
        blocks = self._gradio.Blocks(**options)
        blocks.launch = partial(self._note, blocks)
        return blocks

    def Image(self, value: str, **options: Any) -> Any:  # noqa: ANN401, N802 - as gradio has it
        """A picture; a sketch of the logo where Pixaris' own is not there."""
        if value == _LOGO and not Path(_LOGO).is_file():
            value = str(_sketch_logo(self._scratch))
        return self._gradio.Image(value, **options)

    def _note(self, blocks: Any, **options: Any) -> None:  # noqa: ANN401 - as gradio has it
        self.launched = blocks, options


def _sketch_logo(folder: Path) -> Path:
    from PIL import Image, ImageDraw  # noqa: PLC0415 - other commands do without

    picture = Image.new("RGB", _LOGO_SIZE, "lightskyblue")
    draw = ImageDraw.Draw(picture)
    draw.ellipse((60, 14, 82, 36), fill="gold")
    draw.polygon([(-10, 100), (36, 34), (82, 100)], fill="darkslateblue")
    draw.polygon([(36, 100), (72, 56), (108, 100)], fill="mediumseagreen")
    path = folder / "logo.png"
    picture.save(path)
    return path


class _Told:
    """A handler whose errors are told in the page, and in one line of the log instead of a traceback.

    Until there is a page they are what they are.
    """

    def __init__(self, handler: object, seen: _Gradio) -> None:
        self._handler = handler
        self._seen = seen

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the handler has
        found = getattr(self._handler, name)
        return partial(self._call, found) if callable(found) else found

    def _call(self, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - passed through
        try:
            return function(*arguments, **options)
        except Exception as error:
            if self._seen.launched is None:
                raise
            told = _line(error)
            log.warning("the Pixaris UI: %s", told)
            raise self._seen.Error(told, print_exception=False) from error


def _line(error: BaseException) -> str:
    hint = error.hint if isinstance(error, SyncError) else ""
    return " ".join(f"{str(error) or type(error).__name__}{f'; {hint}' if hint else ''}".split())
