"""What the demonstration found, as data and on a terminal."""

import io
import shlex
import shutil
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from pixaris_sync.sandbox.pictures import thumbnail

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

_SHOWN = ("seed", "upscaled", "similarity")
_SCRIPT = "pixaris-sync"


class DemoRun(Struct, frozen=True):
    """A run as it was read back.

    Attributes:
        name: its experiment_run_name.
        seconds: from the return of ``store_results``, which writes the tracking line last, to the row being
            visible through the GCPExperimentHandler; of a run that has no folder, until ``store_results``
            returned.
        cells: the row's cells that are no links.
        links: the row's links, by column.
        images: the downloaded images by name, as PNG.
    """

    name: str
    seconds: float
    cells: Mapping[str, Any] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    images: Mapping[str, bytes] = field(default_factory=dict)


class DemoReport(Struct, frozen=True):
    """Everything that the demonstration wrote and found again.

    Attributes:
        project: the Pixaris project.
        dataset: the Pixaris dataset.
        runs: those that LocalExperimentHandler stored in a folder, in this order.
        direct: the one that GCPExperimentHandler stored.
    """

    project: str
    dataset: str
    runs: list[DemoRun]
    direct: DemoRun

    @property
    def median_seconds(self) -> float:
        """Half of the rows were visible within this time; 0 without runs."""
        return statistics.median(run.seconds for run in self.runs) if self.runs else 0.0

    @property
    def max_seconds(self) -> float:
        """The longest time until a row was visible; 0 without runs."""
        return max((run.seconds for run in self.runs), default=0.0)


def print_report(report: DemoReport, console_out: "Console") -> None:
    """Show rows, images and times, and how to see more of such runs.

    Links are left out: they lead to Google's console, where nothing of a sandbox is.
    """
    from rich.table import Table  # noqa: PLC0415 - keeps --help fast

    table = Table(
        title=f"{report.project}/{report.dataset}\n"
        "stored by handlers of pixaris-sync, read back by Pixaris' own GCPExperimentHandler"
    )
    table.add_column("experiment_run_name", no_wrap=True)
    for name in _SHOWN:
        table.add_column(name, justify="right")
    table.add_column("row visible after", justify="right")
    for run in (*report.runs, report.direct):
        shown = [str(run.cells.get(name, "")) for name in _SHOWN]
        table.add_row(run.name, *shown, f"{run.seconds * 1000:.0f} ms")
    console_out.print(table)
    for run in (*report.runs, report.direct):
        _print_run(run, console_out)
    runs = "1 run" if len(report.runs) == 1 else f"{len(report.runs)} runs"
    console_out.print(
        f"\nFrom tracking line to visible row: median {report.median_seconds * 1000:.0f} ms, "
        f"max {report.max_seconds * 1000:.0f} ms over {runs} of LocalExperimentHandler.\n"
        f"GCPExperimentHandler returned with its row visible after {report.direct.seconds * 1000:.0f} ms.\n\n"
        "The sandbox is gone, and these runs with it. This shows them in the Pixaris UI, on a new one:"
    )
    console_out.print(f"  {_own_command()} ui --sandbox", soft_wrap=True, highlight=False, markup=False)


def _own_command() -> str:
    """What starts this installation of pixaris-sync where this process runs."""
    script = Path(sys.executable).parent / _SCRIPT
    found = shutil.which(_SCRIPT)
    if found and Path(found).resolve() == script.resolve():
        return _SCRIPT
    if not script.exists():
        return shlex.join([sys.executable, "-m", "pixaris_sync"])
    return shlex.quote(str(script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script))


def _print_run(run: DemoRun, console_out: "Console") -> None:
    from rich.columns import Columns  # noqa: PLC0415 - keeps --help fast

    console_out.print(f"\n[bold]{run.name}[/bold]")
    shown: list[RenderableType] = [
        _picture(name, content, colour=console_out.color_system is not None)
        for name, content in run.images.items()
    ]
    console_out.print(Columns(shown, padding=(0, 2)))


def _picture(name: str, content: bytes, *, colour: bool) -> "Text":
    """The image's name and size, above it a thumbnail where there are colours to draw it with."""
    from PIL import Image  # noqa: PLC0415 - heavy
    from rich.text import Text  # noqa: PLC0415 - keeps --help fast

    with Image.open(io.BytesIO(content)) as image:
        caption = f"{name} {image.width}x{image.height}"
        lines = thumbnail(image) if colour else []
    picture = Text()
    for line in lines:
        for upper, lower in line:
            picture.append("\N{UPPER HALF BLOCK}", style=f"{upper} on {lower}")
        picture.append("\n")
    return picture.append(caption)
