"""The browser that tests look at pages with."""

from pathlib import Path

import pytest

from tests.support.browser import browsing

_PAGE = """data:text/html,<!doctype html><meta name=viewport content=width=device-width><style>
p { width: 600px; height: 3000px } @media (prefers-color-scheme: dark) { p { color: white } }
</style><p>a page</p><script>nothing_of_this_name()</script>"""
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"


@pytest.mark.large
def test_a_page_is_seen_as_by_somebody(tmp_path: Path) -> None:
    """Goal: text, width, colours, errors and pictures are told. Method: a page with some of each."""
    with browsing(tmp_path, width=1000) as browser:
        browser.open(_PAGE)
        assert browser.text() == "a page"
        assert not browser.scrolls_sideways()
        assert any("nothing_of_this_name" in complaint for complaint in browser.complaints())
        color = "return getComputedStyle(document.querySelector('p')).color"
        assert browser.ask(color) == "rgb(0, 0, 0)"
        browser.prefer(prefers_color_scheme="dark")
        assert browser.ask(color) == "rgb(255, 255, 255)"
        browser.resize(360)
        assert browser.ask("return document.documentElement.clientWidth") == 360
        assert browser.scrolls_sideways()
        picture = browser.screenshot("page").read_bytes()
        assert picture.startswith(PNG_MAGIC)
        # A phone has two pixels for each of CSS, and the whole page is kept.
        assert int.from_bytes(picture[20:24], "big") > 6000
        browser.allow_scripts(allowed=False)
        browser.open(_PAGE)
        assert browser.complaints() == []
