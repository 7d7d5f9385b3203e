"""What must hold of the page in a browser; each check fails where the page is broken in its way."""

import re
import time
from collections.abc import Callable
from typing import Any

from pixaris_sync.monitoring.page import RELOAD_SECONDS
from pixaris_sync.text import printable_line
from tests.support import views
from tests.support.browser import Browser
from tests.support.served_page import ServedPage
from tests.support.waiting import eventually

Check = Callable[[Browser, ServedPage], Any]

#: The page asks every three seconds.
PATIENCE_SECONDS = 6.0
#: A phone's, a tablet's and a desktop's, in CSS pixels.
WIDTHS = (360, 768, 1280)
#: Of text against what is behind it, by WCAG 2.2, 1.4.3.
_CONTRAST_MIN = 4.5
_CUT_OFF = """
return [...document.querySelectorAll('main :not(caption, thead, thead *)')]
  .some((one) => one.scrollWidth > innerWidth);
"""
_LOWEST_CONTRAST = """
const parse = (color) => {
  const found = color.match(/[\\d.]+/g).map(Number);
  const scale = color.startsWith("color(") ? 255 : 1;
  const [red, green, blue, alpha = 1] = found;
  return [red * scale, green * scale, blue * scale, alpha];
};
const over = (top, below) => [0, 1, 2].map((at) => top[at] * top[3] + below[at] * (1 - top[3])).concat(1);
const behind = (element) => {
  const layers = [];
  for (let one = element; one; one = one.parentElement) {
    layers.push(parse(getComputedStyle(one).backgroundColor));
  }
  return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
};
const luminance = (color) => {
  const [red, green, blue] = color.slice(0, 3).map((value) => value / 255)
    .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
};
let lowest = [99, ""];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest("progress")) continue;
  const back = behind(element);
  const [one, other] = [over(parse(getComputedStyle(element).color), back), back].map(luminance);
  const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
  if (contrast < lowest[0]) lowest = [contrast, walker.currentNode.data];
}
return lowest;
"""


def _soon(look: Callable[[], Any], what: str) -> Any:
    return eventually(look, what, timeout_seconds=PATIENCE_SECONDS)


def load_pictures(browser: Browser) -> None:
    """Wait until all pictures are there, also those that nobody has scrolled to."""
    browser.ask("for (const image of document.images) image.loading = 'eager'")
    loaded = "return [...document.images].every((one) => one.complete)"
    eventually(lambda: browser.ask(loaded), "pictures")


def check_words(browser: Browser, served: ServedPage) -> None:
    """It says the whole in a word, and everything in words."""
    served.view = views.with_problems()
    browser.open(served.address)
    assert browser.text("h1") == "!\n4 runs need attention"
    assert browser.ask("return document.title") == "4 runs need attention · pixaris-sync"
    text = browser.text()
    for said in (
        "216 runs are waiting; 212 runs failed and will be tried again",
        "212 of the same cause",
        "cannot upload object ...: the service answered 503",
        "What to do: correct the line, or delete it; then pixaris-sync retry",
        "GCS takes no slash in the name of a dataset",
        "from /data/local_results to bucket acme-pixaris and dataset acme-images.experiments",
        "1.3 s from line to row",
    ):
        assert said in text
    assert re.search(r"\bfor \d+ minutes\b", text)
    words = [badge.text.partition("\n")[2] for badge in browser.find_all(".badge")]
    assert all(words), words
    assert browser.complaints() == []


def check_layout(browser: Browser, served: ServedPage) -> None:
    """Nothing is wider than the window, whatever it is called."""
    for view in (views.busy(), views.hostile()):
        served.view = view
        for width in WIDTHS:
            browser.resize(width)
            browser.open(served.address)
            assert not browser.scrolls_sideways(), width
            # Nor is anything cut off where it would have to scroll.
            assert not browser.ask(_CUT_OFF), width


def check_colours(browser: Browser, served: ServedPage) -> None:
    """It is dark where that is preferred, and every text can be read in both."""
    for view in (views.with_problems(), views.busy(), views.synced()):
        served.view = view
        for scheme, is_dark in (("light", False), ("dark", True)):
            browser.prefer(prefers_color_scheme=scheme)
            browser.open(served.address)
            back = browser.ask("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g)")
            assert (max(map(int, back)) < 60) == is_dark
            contrast, text = browser.ask(_LOWEST_CONTRAST)
            assert contrast >= _CONTRAST_MIN, (scheme, text)


def check_names(browser: Browser, served: ServedPage) -> None:
    """Hostile names are shown, and do nothing."""
    served.view = views.hostile()
    browser.open(served.address)
    load_pictures(browser)
    title = f"{len(views.HOSTILE_NAMES)} runs need attention · pixaris-sync"
    for selector in ("article", "tbody tr", ".run"):
        for element in browser.find_all(selector):
            browser.ask("arguments[0].dispatchEvent(new Event('mouseover', {bubbles: true}))", element)
    assert browser.ask("return document.title") == title
    shown = browser.ask("return [...document.querySelectorAll('.run h3')].map((one) => one.textContent)")
    assert shown == [printable_line(name) for name in views.HOSTILE_NAMES]
    scripts = browser.ask("return [...document.scripts].map((one) => one.getAttribute('src'))")
    assert scripts == ["/page.js"]
    handlers = (
        "return [...document.querySelectorAll('*')].flatMap((one) => [...one.attributes])"
        ".filter((one) => one.name.startsWith('on') || one.name === 'style').length"
    )
    assert browser.ask(handlers) == 0
    assert browser.complaints() == []
    # What comes later is taken over by a script.
    served.view = views.hostile(ledger_bytes=1)
    browser.hide(hidden=False)
    _soon(lambda: "(1 B)" in browser.text("#about"), "the next page is taken over")
    assert browser.ask("return document.title") == title
    assert browser.complaints() == []


def check_policy(browser: Browser, served: ServedPage) -> None:
    """What would slip through could neither run nor load anything, nor be framed."""
    served.view = views.empty()
    browser.open(served.address)
    for slipped in (
        "const one = document.createElement('script'); one.textContent = 'window.taken = true'",
        "const one = new Image(); one.setAttribute('onerror', 'window.taken = true'); one.src = 'x:'",
        "const one = document.createElement('iframe'); one.src = '/'",
        "const one = document.createElement('img'); one.src = 'http://127.0.0.1:9/'",
    ):
        # Each is refused: the console tells so.
        browser.complaints()
        try:
            browser.ask(f"{slipped}; document.body.append(one)")
        except Exception as error:  # noqa: BLE001 - selenium's, of a script that trusted types end
            assert "Trusted" in str(error)  # noqa: PT017 - see above
            continue
        _soon(lambda: any("Content Security Policy" in one for one in browser.complaints()), slipped)
    assert browser.ask("return window.taken === undefined")


def check_updates(browser: Browser, served: ServedPage) -> None:
    """It follows what happens, without a reload, and neither unfolds nor folds what somebody did."""
    served.view = views.with_problems()
    browser.open(served.address)
    browser.ask("window.stays = document.getElementById('word')")
    summary = browser.find("article summary")
    summary.send_keys("\n")
    assert browser.ask("return document.querySelector('article details').open")
    served.view = views.with_problems(version="2.0.0", last_synced_at=views.NOW)
    _soon(lambda: "2.0.0" in browser.text("#about"), "the footer is new")
    served.view = views.with_problems(
        problems=tuple(one for one in served.view.overview.problems if one.state == "failing")
    )
    _soon(lambda: len(browser.find_all("article")) == 1, "the problems are new")
    assert browser.ask("return document.querySelector('article details').open")
    assert browser.ask("return document.activeElement.tagName") == "SUMMARY"
    served.view = views.synced()
    _soon(lambda: browser.text("h1") == "✓\neverything is synced", "the word is new")
    assert browser.ask("return document.title") == "everything is synced · pixaris-sync"
    assert browser.find_all("article") == []
    assert browser.ask("return window.stays === document.getElementById('word')")
    assert browser.find("#word").get_attribute("role") == "status"
    # Nor does it complain where nothing has changed.
    before = served.readings
    _soon(lambda: served.readings > before, "it asks again")
    assert browser.complaints() == []


def check_without_scripts(browser: Browser, served: ServedPage) -> None:
    """Without scripts it says the same, and loads itself again."""
    served.view = views.busy()
    browser.allow_scripts(allowed=False)
    browser.open(served.address)
    assert "37 runs are waiting" in browser.driver.page_source
    assert "since 2" in browser.driver.page_source
    served.view = views.synced()
    eventually(
        lambda: "everything is synced" in browser.driver.page_source,
        "it is loaded again",
        timeout_seconds=RELOAD_SECONDS + PATIENCE_SECONDS,
    )


def check_rest(browser: Browser, served: ServedPage) -> None:
    """It asks for nothing while nobody sees it."""
    served.view = views.busy()
    browser.open(served.address)
    browser.hide(hidden=True)
    _soon(lambda: browser.ask("return document.hidden"), "it is hidden")
    before = served.readings
    time.sleep(3.5)
    assert served.readings == before
    served.view = views.synced()
    browser.hide(hidden=False)
    _soon(lambda: "everything is synced" in browser.text("h1"), "it is seen again")
