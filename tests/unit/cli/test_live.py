"""`status --watch` in terminals of three widths, with a ledger that a test writes into."""

import io
import re
import signal
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace
from rich.console import Console

from pixaris_sync.cli.live import Source, show
from pixaris_sync.errors import LedgerError
from pixaris_sync.ledger import rows
from pixaris_sync.ledger.database import Ledger
from pixaris_sync.ledger.selection import Selection
from pixaris_sync.process.ownership import Ownership, read_owner
from pixaris_sync.process.wiring import found_ledger
from pixaris_sync.settings.model import Settings, environment_variable
from pixaris_sync.settings.sources import load_settings
from tests.support.command_line import CommandLine
from tests.support.ledgers import Book, file, found_run, record
from tests.support.terminals import Seen, Terminal
from tests.support.waiting import eventually

WIDTHS = (80, 120, 200)
DESTINATION = {
    "gcp_project_id": "project",
    "gcp_bq_experiment_dataset": "pixaris",
    "gcp_pixaris_bucket_name": "bucket",
}


@pytest.fixture
def command_line(tmp_path: Path) -> CommandLine:
    folder = tmp_path / "local_results"
    folder.mkdir()
    environment = {environment_variable(key): value for key, value in DESTINATION.items()}
    return CommandLine(folder, tmp_path / "state", environment)


def settings_of(command_line: CommandLine) -> Settings:
    where = {"local_results_folder": command_line.folder, "state_dir": command_line.state_dir}
    return load_settings({**DESTINATION, **where}, environ={})


def test_the_live_view_follows_the_ledger_at_every_width(command_line: CommandLine) -> None:
    """Goal: one looks instead of asking. Method: no ledger yet, a `backfill` at work, all synced, Ctrl+C.

    One terminal is made narrower meanwhile, one may have no colours. At each moment each screen holds one
    view, of which no line is glued or broken; in the end the last one stands there, and the cursor is back.
    """
    settings = settings_of(command_line)
    found = found_ledger(settings)
    with ExitStack() as stack:
        terminals = [
            stack.enter_context(
                Terminal(command_line, "status", "--watch", columns=columns, NO_COLOR=colours)
            )
            for columns, colours in zip(WIDTHS, (None, None, "1"), strict=True)
        ]

        def all_show(*patterns: str) -> bool:
            for terminal in terminals:
                lines = terminal.seen.rows()
                if not all(re.search(one, "\n".join(lines), re.MULTILINE) for one in patterns):
                    return False
                # One view, as it was laid out.
                words = [
                    line[:8].strip() for line in lines if re.match(r"(from|to|ledger|work|now) +\S", line)
                ]
                assert words in (["from", "to", "ledger"], ["from", "to", "ledger", "work", "now"]), lines
                assert sum(line.startswith("dataset ") for line in lines) <= 1, lines
                assert {line[-1] for line in lines if re.match("(shop|all)", line)} <= {"B", "s"}, lines
            return True

        eventually(lambda: all_show(r"waiting for the\s+first pass"), "nothing was ever synced")
        book = Book(None)
        book.ledger.close()
        book.ledger = stack.enter_context(closing(Ledger.open(found.path)))
        names = [f"20240101-00000{number}_x" for number in range(3)]
        part = Selection(("shop",), ("shoes",))
        note = found.path.with_suffix(".owner")
        owner = Ownership(command_line.folder, note, "backfill", selection=part, path_lock=found.path_lock)
        with owner:
            for name in names:
                book.take(found_run(record(name), name=name, files=[file(size=2048)]))
            tasks = book.claim(2)
            work = r"^work +process \d+ on "
            left = r"^now +3 files \(6.0 KiB\) and 3 rows left"
            eventually(lambda: all_show(work, left, r"^shop/shoes +0 +2 +1 "), "two runs are under way")
            for terminal in terminals:
                assert str(read_owner(note)) in " ".join(" ".join(terminal.seen.rows()).split())
            terminals[0].resize(70)
            for task in tasks:
                book.upload(task)
            eventually(
                lambda: all_show(work, r"^now +1 file \(2.0 KiB\) and 3 rows left"), "two files are there"
            )
            book.upload_all()
            book.do(rows.confirm_rows, book.ready())
        done = (
            r"^work +no process works on this folder$",
            r"^now +everything is synced",
            r"^shop/shoes +3 +0 ",
        )
        eventually(lambda: all_show(*done, rf"^shop/shoes/{names[2]} +1 +2.0 KiB +0.0 s$"), "all is synced")
        assert not any(terminal.seen.cursor_shows for terminal in terminals)

        for number, terminal in zip((signal.SIGINT, signal.SIGINT, signal.SIGTERM), terminals, strict=True):
            terminal.process.send_signal(number)
        assert [terminal.wait() for terminal in terminals] == [0, 0, 0]
        assert all(terminal.seen.cursor_shows for terminal in terminals)
        assert all_show(*done)
    assert not re.search(rb"\x1b\[(\d+;)*3\d", terminals[2].written)


def test_what_cannot_be_read_now_is_told_beside_the_last_view(command_line: CommandLine) -> None:
    """Goal: a view for months survives a disk in trouble. Method: no ledger, one, garbage, and it again."""
    settings = settings_of(command_line)
    source = Source(settings)
    assert source.look() is None
    path = found_ledger(settings).path
    Ledger.open(path).close()
    view = source.look()
    assert view is not None
    whole = path.rename(path.with_suffix(".whole"))
    path.write_text("garbage" * 1000)
    assert source.look() is view
    assert source.trouble.startswith(f"cannot use ledger {path}")
    whole.replace(path)
    again = source.look()
    assert again is not None
    assert again == replace(view, read_at=again.read_at)
    assert source.trouble == ""
    path.unlink()
    assert source.look() is None
    path.write_text("garbage" * 1000)
    with pytest.raises(LedgerError):
        Source(settings).look()


class _Interrupted(io.StringIO):
    """A terminal; while it draws, Ctrl+C comes once the view says that the first pass is there."""

    def __init__(self, seen: Seen, act: Callable[[], None]) -> None:
        super().__init__()
        self._seen = seen
        self._acts: list[Callable[[], object]] = [act, partial(signal.raise_signal, signal.SIGINT)]

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._seen.write(text.replace("\n", "\r\n").encode())
        if "from " in text and self._acts:
            self._acts.pop(0)()
        return len(text)


def test_a_view_that_is_interrupted_while_it_is_drawn_stands_there_once(command_line: CommandLine) -> None:
    """Goal: Ctrl+C leaves one whole view. Method: it comes in the middle of drawing a change."""
    settings, seen = settings_of(command_line), Seen()
    path = found_ledger(settings).path

    def begin() -> None:
        book = Book(None)
        book.ledger.close()
        with closing(Ledger.open(path)) as book.ledger:
            book.take(found_run(record()))

    terminal = _Interrupted(seen, begin)
    console = Console(file=terminal, force_terminal=True, width=80, height=40)

    with closing(Source(settings)) as source, pytest.raises(KeyboardInterrupt):
        show(source, settings, console)

    assert sum(line.startswith("from ") for line in seen.rows()) == 1
