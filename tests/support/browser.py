"""A real browser without a window, for tests of pages: Debian's Chromium, through selenium and its driver."""

import base64
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

#: Names the folder that keeps screenshots; without it they go where the test keeps its files.
SCREENSHOTS: Final = "PIXARIS_SYNC_TEST_SCREENSHOTS"
_PROGRAMS: Final = ("chromium", "chromedriver")
_ARGUMENTS: Final = (
    "--headless=new",
    # Root's tests run in containers, which have no sandbox and little shared memory.
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--hide-scrollbars",
    "--mute-audio",
    "--no-first-run",
    # Only this machine is asked, whatever a page or the browser itself would like to load.
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
)


class Browser:
    """A window with one page.

    Attributes:
        driver: selenium's.
    """

    def __init__(self, driver: "Chrome", folder: Path) -> None:
        self.driver = driver
        self._folder = folder

    def resize(self, width: int, height: int = 900) -> None:
        """Make the page this large, in CSS pixels; below 500 pixels it is a phone's, with two for each."""
        phone = width < 500
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self._command("Emulation.setDeviceMetricsOverride", **size)

    def prefer(self, **features: str) -> None:
        """What whoever looks prefers, such as ``prefers_color_scheme="dark"``."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self._command("Emulation.setEmulatedMedia", features=named)

    def allow_scripts(self, *, allowed: bool) -> None:
        self._command("Emulation.setScriptExecutionDisabled", value=not allowed)

    def hide(self, *, hidden: bool) -> None:
        """Let the page take itself for one in a tab that nobody sees, or that somebody does."""
        state = "hidden" if hidden else "visible"
        self.ask(
            "const [state] = arguments;"
            "Object.defineProperty(document, 'visibilityState', {value: state, configurable: true});"
            "Object.defineProperty(document, 'hidden', {value: state === 'hidden', configurable: true});"
            "document.dispatchEvent(new Event('visibilitychange'))",
            state,
        )

    def open(self, address: str) -> None:
        self.driver.get(address)

    def find(self, selector: str) -> "WebElement":
        """The first element that a CSS selector finds; it raises `NoSuchElementException` without one."""
        return self.driver.find_element("css selector", selector)

    def find_all(self, selector: str) -> "list[WebElement]":
        return self.driver.find_elements("css selector", selector)

    def text(self, selector: str = "body") -> str:
        """What somebody reads there."""
        # In one step: the page may replace its elements at any time.
        return str(self.ask("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def ask(self, script: str, *arguments: object) -> Any:
        """What a script in the page returns: ``return document.title``."""
        return self.driver.execute_script(script, *arguments)

    def scrolls_sideways(self) -> bool:
        # A phone shows a page that is too wide smaller, and says so of its window.
        root = "document.documentElement"
        return bool(self.ask(f"return {root}.scrollWidth > {root}.clientWidth"))

    def complaints(self) -> list[str]:
        """What the browser wrote into its console as an error since it was last asked.

        Among it is what a Content-Security-Policy kept from running, and what could not be loaded.
        """
        entries: list[dict[str, str]] = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def screenshot(self, name: str) -> Path:
        """Keep how the whole page looks, as ``<name>.png``, also what is below the window's end."""
        size = self.ask("const root = document.documentElement; return [root.scrollWidth, root.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": size[0], "height": min(size[1], 8000), "scale": 1}
        taken = self._command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{name}.png"
        path.write_bytes(base64.b64decode(taken["data"]))
        return path

    def _command(self, name: str, **parameters: object) -> dict[str, Any]:
        answer: dict[str, Any] = self.driver.execute_cdp_cmd(name, parameters)
        return answer


@contextmanager
def browsing(folder: Path, *, width: int = 1280, height: int = 900) -> Iterator[Browser]:
    """A browser, until the end of the context. It takes a second or two to start: let tests share it.

    Args:
        folder: for the browser's own files, and for screenshots where `SCREENSHOTS` names no other.
        width: of the page, in CSS pixels.
        height: of it.
    """
    chromium, chromedriver = _programs()
    from selenium import webdriver  # noqa: PLC0415 - heavy, and only for tests that run
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415 - as above

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    # The driver is on this machine. The method for it is deprecated, and what follows it is not for Chrome.
    options._ignore_local_proxy = True
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in (*_ARGUMENTS, f"--user-data-dir={folder / 'browser'}"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, Service(chromedriver))
    try:
        driver.set_page_load_timeout(30)
        browser = Browser(driver, Path(os.environ.get(SCREENSHOTS) or folder))
        browser.resize(width, height)
        yield browser
    finally:
        driver.quit()


def _programs() -> list[str]:
    found = [shutil.which(name) for name in _PROGRAMS]
    missing = [name for name, path in zip(_PROGRAMS, found, strict=True) if path is None]
    if missing:
        reason = f"{' and '.join(missing)} not installed: apt install chromium chromium-driver"
        if os.environ.get("PIXARIS_SYNC_TEST_LARGE") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return [path for path in found if path is not None]
