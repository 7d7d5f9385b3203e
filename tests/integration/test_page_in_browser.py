"""The page as people see it, in Chromium: what it says, how it looks, what it does by itself.

Screenshots of every state are kept, to be looked at.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from selenium.common.exceptions import WebDriverException

from pixaris_sync.monitoring import guards, markup, page, server
from pixaris_sync.monitoring.view import View
from tests.support import page_checks, views
from tests.support.browser import Browser, browsing
from tests.support.page_checks import Check, load_pictures
from tests.support.page_picture import put_images
from tests.support.served_page import ServedPage, served_page
from tests.support.waiting import eventually

Broken = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(scope="module")
def one_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture
def browser(one_browser: Browser) -> Browser:
    """A window as large as a desktop's, light, with scripts."""
    one_browser.allow_scripts(allowed=True)
    one_browser.open("about:blank")
    one_browser.resize(1280)
    one_browser.prefer(prefers_color_scheme="light")
    one_browser.complaints()
    return one_browser


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that a test changes is shown at once."""
    monkeypatch.setattr(server, "_FRESH_SECONDS", -1.0)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[ServedPage]:
    with served_page(views.empty(), tmp_path) as served:
        yield served


def test_the_page_says_everything_in_words(browser: Browser, served: ServedPage) -> None:
    """Goal: seen, in a real browser. Method: a view with problems; the console must stay empty."""
    page_checks.check_words(browser, served)


@pytest.mark.large
@pytest.mark.parametrize(
    "check",
    [
        page_checks.check_layout,
        page_checks.check_colours,
        page_checks.check_names,
        page_checks.check_policy,
        page_checks.check_updates,
        page_checks.check_without_scripts,
        page_checks.check_rest,
    ],
    ids=lambda check: check.__name__.removeprefix("check_"),
)
def test_the_page_is_sound(browser: Browser, served: ServedPage, check: Check) -> None:
    """Goal: phone, dark, hostile names, policy, updates, no scripts, no cost. Method: as each check says."""
    check(browser, served)


@pytest.mark.large
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize(
    ("name", "view"),
    [
        ("empty", views.empty()),
        ("busy", views.busy()),
        ("synced", views.synced()),
        ("problems", views.with_problems()),
        ("hostile", views.hostile()),
        ("many", views.many()),
    ],
)
def test_every_state_is_shown(
    browser: Browser, served: ServedPage, tmp_path: Path, name: str, view: View, width: int
) -> None:
    """Goal: pictures to look at, for a desktop and for a phone in the dark. Method: each view, all of it."""
    if name != "hostile":
        put_images(tmp_path, view)
    served.view = view
    phone = width == 360
    browser.resize(width)
    browser.prefer(prefers_color_scheme="dark" if phone else "light")
    browser.open(served.address)
    load_pictures(browser)
    shown = browser.screenshot(f"page-{name}{'-phone' if phone else ''}")
    assert shown.stat().st_size > 10_000
    assert browser.complaints() == []
    pictures = browser.ask(
        "return [...document.querySelectorAll('.pictures img')].map((one) => one.naturalWidth)"
    )
    assert len(pictures) == sum(len(run.first_images) for run in view.last_runs)
    assert all(width == (160 if name == "hostile" else 320) for width in pictures)


@pytest.mark.large
def test_who_only_hears_or_types_has_all_of_it(browser: Browser, served: ServedPage) -> None:
    """Goal: readers of the screen and keyboards. Method: roles and names; what the tab key reaches."""
    served.view = views.with_problems()
    for width in (360, 1280):
        browser.resize(width)
        browser.open(served.address)
        assert browser.ask("return document.documentElement.lang") == "en"
        assert len(browser.find_all("h1")) == 1
        assert browser.find("#word").aria_role == "status"
        assert browser.find("progress").accessible_name == "runs synced"
        table = browser.find("table")
        assert (table.aria_role, table.accessible_name) == ("table", "Datasets and how far they are")
        assert browser.find("tbody th").aria_role == "rowheader"
        assert browser.find("thead th").aria_role == "columnheader"
        assert {one.accessible_name != "" for one in browser.find_all("section:not([hidden])")} == {True}
        assert {one.get_attribute("alt") != "" for one in browser.find_all(".pictures img")} == {True}
        summary = browser.find("summary")
        browser.find("body").send_keys("\t")
        assert browser.ask("return document.activeElement === arguments[0]", summary)
        summary.send_keys(" ")
        assert browser.find("details li").is_displayed()


@pytest.mark.large
def test_a_process_that_has_ended_is_told(browser: Browser, tmp_path: Path) -> None:
    """Goal: nobody takes an old page for the present. Method: end the server under the page."""
    with served_page(views.synced(), tmp_path) as served:
        browser.open(served.address)
        assert not browser.find("#lost").is_displayed()
    browser.hide(hidden=False)
    eventually(lambda: browser.find("#lost").is_displayed(), "it says that nobody answers")
    assert re.match(
        "pixaris-sync does not answer: this is how it was (just now|[0-9]+ seconds? ago)",
        browser.text("#lost"),
    )
    browser.screenshot("page-lost")


@pytest.mark.large
def test_a_page_of_another_site_gets_nothing(browser: Browser, served: ServedPage, tmp_path: Path) -> None:
    """Goal: whoever visits an evil page shows it nothing. Method: it loads, reads and frames this one."""
    with served_page(views.empty(), tmp_path) as other:
        # Of another port, and of another name.
        browser.open(f"http://localhost:{other.port}/healthz")
        for mode in ("cors", "no-cors"):
            read = (
                "const [address, mode, done] = arguments;"
                "fetch(address, {mode}).then((one) => one.text()).then(done, () => done(''))"
            )
            assert browser.driver.execute_async_script(read, served.address, mode) == ""
    assert served.readings == 0


def _without_escapes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(markup, "escape", lambda text: text)


def _without_policy(patch: pytest.MonkeyPatch) -> None:
    headers: Mapping[str, str] = {
        name: value for name, value in guards.HEADERS.items() if name != "Content-Security-Policy"
    }
    patch.setattr(server, "HEADERS", headers)


def _changed(path: str, old: str, new: str) -> Broken:
    def broken(patch: pytest.MonkeyPatch) -> None:
        content = server._content(path).decode()
        assert old in content
        given = content.replace(old, new).encode()
        real = server._content
        patch.setattr(server, "_content", lambda asked: given if asked == path else real(asked))

    return broken


def _without_refresh(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(page, "RELOAD_SECONDS", 86_400)


#: What is broken on purpose, and the check that must see it.
_MUTANTS: Mapping[str, tuple[Broken, Check]] = {
    "names are not escaped": (_without_escapes, page_checks.check_names),
    "no policy": (_without_policy, page_checks.check_policy),
    "no script": (
        _changed("/page.js", "ask = () =>", "ask = () => {}; const never = () =>"),
        page_checks.check_updates,
    ),
    "the word is not taken over": (
        _changed("/page.js", "[data-part]", "section[data-part]"),
        page_checks.check_updates,
    ),
    "what is unfolded folds": (
        _changed("/page.js", "open.has(one.dataset.key)", "false"),
        page_checks.check_updates,
    ),
    "the focus is lost": (_changed("/page.js", "key !== null", "false"), page_checks.check_updates),
    "it asks unseen": (_changed("/page.js", "visibilityState", "readyState"), page_checks.check_rest),
    "no refresh": (_without_refresh, page_checks.check_without_scripts),
    "no style": (
        _changed("/page.css", "overflow-wrap: anywhere", "color: inherit"),
        page_checks.check_layout,
    ),
    "a table is too wide": (
        _changed("/page.css", "max-width: 46rem", "max-width: 1rem"),
        page_checks.check_layout,
    ),
    "no dark": (
        _changed("/page.css", "prefers-color-scheme: dark", "prefers-color-scheme: none"),
        page_checks.check_colours,
    ),
    "too pale": (_changed("/page.css", "--soft: #566070", "--soft: #aab4c0"), page_checks.check_colours),
    "a word is missing": (lambda patch: patch.setattr(page, "headline", _mute), page_checks.check_words),
}


def _mute(*_: object) -> page.Headline:
    return page.Headline("attention", "", "")


@pytest.mark.large
@pytest.mark.parametrize("mutant", _MUTANTS)
def test_a_broken_page_is_seen(
    browser: Browser, served: ServedPage, monkeypatch: pytest.MonkeyPatch, mutant: str
) -> None:
    """Goal: the checks can fail. Method: break the page in one way; one check must see it."""
    broken, check = _MUTANTS[mutant]
    broken(monkeypatch)
    with pytest.raises((AssertionError, WebDriverException)):
        check(browser, served)
