"""The terminal emulator shows what people would see."""

from tests.support.terminals import Seen


def test_lines_that_the_terminal_breaks_are_one_line() -> None:
    """Goal: a long line counts as whole. Method: 7, 8 and 20 characters on 8 columns, most scrolled away."""
    seen = Seen(columns=8, rows=3)
    seen.write(b"1234567\r\n12345678\r\nabcdefgh ijklmnopqrs\r\nend")
    assert seen.lines() == ["1234567", "12345678", "abcdefgh ijklmnopqrs", "end"]


def test_a_bar_that_is_glued_or_left_behind_shows() -> None:
    """Goal: the tests of bars can fail. Method: a line written behind a bar, and one over a longer one."""
    seen = Seen(columns=40, rows=5)
    seen.write(b"bar 10 %INFO a line\r\n")
    seen.write(b"bar 20 % of all\rINFO b\r\n")
    seen.write(b"bar 30 %\r\x1b[2KINFO c\r\n")
    assert seen.lines() == ["bar 10 %INFO a line", "INFO b % of all", "INFO c"]


def test_a_hidden_cursor_shows() -> None:
    """Goal: a terminal without a cursor is noticed. Method: hide it, and show it again."""
    seen = Seen()
    shows = []
    for data in (b"", b"\x1b[?25l", b"\x1b[?25h"):
        seen.write(data)
        shows.append(seen.cursor_shows)
    assert shows == [True, False, True]
