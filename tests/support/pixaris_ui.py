"""The UI of Pixaris as ``pixaris-sync ui`` starts it, and as somebody uses it in a browser."""

import contextlib
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from tests.support.browser import Browser
from tests.support.command_line import TIMEOUT_SECONDS, CommandLine, Outcome
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from selenium.webdriver.remote.webelement import WebElement

SAID = "the Pixaris UI is at "
#: Elements that are seen, of a selector and, if one is given, with a text.
_SEEN = """
const [selector, text] = arguments;
const seen = [...document.querySelectorAll(selector)].filter(one => one.offsetParent);
return seen.filter(one => text === null || one.innerText.trim() === text)
"""
#: The natural widths of the images in a section, by the order of their addresses' names; 0 is one that did
#: not load. Nothing as long as one is loading, or the section is not there.
_WIDTHS = """
const [section, selector] = arguments;
const heads = [...document.querySelectorAll('button.label-wrap')];
const head = heads.find(one => one.offsetParent && one.innerText.trim().startsWith(section));
if (!head) return null;
const images = [...head.parentElement.querySelectorAll(selector)];
return images.every(image => image.complete) ? images.map(image => image.naturalWidth) : null
"""


class ShownUi:
    """``pixaris-sync ui``, for as long as the context is open.

    Args:
        command_line: on which bucket and dataset.
        scratch: a folder of its own, for its log and its temporary files.
        arguments: further flags.

    Attributes:
        address: where it answers.
        temporary: the folder for its temporary files.
    """

    def __init__(self, command_line: CommandLine, scratch: Path, *arguments: str) -> None:
        self.temporary = scratch / "temporary"
        self._command_line = command_line.but(TMPDIR=str(self.temporary))
        self._arguments = arguments
        self._log = scratch / "ui.log"

    def __enter__(self) -> Self:
        self.temporary.mkdir(parents=True)
        with self._log.open("w") as log:
            self._process = self._command_line.start(
                "ui", *self._arguments, stdout=subprocess.PIPE, stderr=log
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.startswith(SAID):
            self._process.kill()
            raise AssertionError(f"it said {line!r}\n{self.log()}")
        self.address = line.removeprefix(SAID).strip()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def log(self) -> str:
        """What it told so far, but for its address."""
        return self._log.read_text(encoding="utf-8")

    def end(self, number: int = signal.SIGINT) -> Outcome:
        """Send a signal, and wait, but not as long as for a request; what it printed after its address."""
        self._process.send_signal(number)
        rest, _ = self._process.communicate(timeout=TIMEOUT_SECONDS / 3)
        return Outcome(self._process.returncode, rest, self.log())


class Visitor:
    """Somebody who looks at the UI.

    Args:
        browser: with what.
        address: the UI's.
    """

    def __init__(self, browser: Browser, address: str) -> None:
        self._browser = browser
        self._address = address
        self.open()

    def open(self) -> None:
        """Open the page, or load it anew."""
        self._browser.open(self._address)
        self._wait_for("input[aria-label='Project']")

    def turn_to(self, tab: str) -> None:
        """Turn to a tab."""
        self._click("button[role='tab']", tab)
        self._wait_for("button[role='tab'][aria-selected='true']", tab)

    def choices(self, label: str) -> list[str]:
        """What a list offers."""
        self._open_list(label)
        script = "return [...document.querySelectorAll(\"li[role='option']\")].map(one => one.ariaLabel)"
        found = self._browser.ask(script)
        self._close_list()
        assert isinstance(found, list)
        return found

    def is_offered(self, label: str, expected: list[str]) -> bool:
        """Whether a list offers just that, at once or when the page has followed."""
        return eventually(lambda: self.choices(label) == expected, f"{label} offers {expected}")

    def choose(self, label: str, value: str) -> None:
        """Choose one of a list, in addition where several may be chosen."""
        eventually(lambda: value in self.choices(label), f"{label} offers {value}")
        self._open_list(label)
        self._click(f"li[role='option'][aria-label='{value}']")
        self._close_list()

    def gallery(self, run: str) -> list[int]:
        """The widths of the images of a run's gallery in their order, once loaded; 0 did not load."""
        return self._widths(f"Experiment {run}", ".thumbnail-item img")

    def table(self, *columns: str) -> list[tuple[str, ...]]:
        """Columns of the table of experiments, a row for each."""
        self._wait_for("[role='gridcell']")
        script = """
        const wanted = arguments[0], texts = (row, cells) =>
            [...row.querySelectorAll(cells)].map(cell => cell.innerText.replace('⋮', '').trim());
        const seen = [...document.querySelectorAll("[role='row']")].filter(row => row.offsetParent);
        const [head, ...rows] = seen;
        const heads = texts(head, "[role='columnheader']");
        return rows.map(row => wanted.map(name => texts(row, "[role='gridcell']")[heads.indexOf(name)]))
        """
        return [tuple(row) for row in self._browser.ask(script, columns)]

    def show_iteration(self, project: str, iteration: str) -> list[int]:
        """Show a feedback iteration; the widths of its images in their order, once they are loaded."""
        self.turn_to("Feedback")
        self._click("button", "Reload projects")
        self.choose("Project", project)
        self.choose("Feedback Iterations", iteration)
        return self._widths(f"Iteration {iteration}", ".image-frame img")

    def rate(self, number: int, rating: str, comment: str) -> None:
        """Give feedback on the image of this number."""
        from selenium.webdriver.common.by import By  # noqa: PLC0415 - only for tests that run

        # Its parts are drawn one after the other.
        parts = ("> fieldset", "textarea", f"input[value='{rating}']", "button.primary")
        selector = ".column" + "".join(f":has({part})" for part in parts)
        eventually(lambda: len(self._seen(selector)) > number, "feedback can be given")
        column = self._seen(selector)[number]
        column.find_element(By.CSS_SELECTOR, "textarea").send_keys(comment)
        column.find_element(By.CSS_SELECTOR, f"input[value='{rating}']").click()
        button = column.find_element(By.CSS_SELECTOR, "button.primary")
        eventually(button.is_enabled, "feedback can be saved")
        button.click()

    def toast(self, words: str) -> str:
        """The message that pops up with these words; a next one is another."""

        def look() -> str | None:
            texts = [one.text for one in self._seen("[data-testid='toast-text']")]
            return next((text for text in texts if words in text), None)

        return eventually(lambda: self._patiently(look), f"a message with {words}") or ""

    def previous_feedback(self) -> list[str]:
        """Likes and dislikes of the images, two lines for each."""
        self._click("label.checkbox-container", "Show previous feedback")
        script = """
        return [...document.querySelectorAll('.prose:not(:has(.prose))')].filter(one => one.offsetParent)
            .map(one => one.innerText.trim()).filter(text => /^(Dis)?[Ll]ikes:/.test(text))
        """
        found = eventually(lambda: self._browser.ask(script), "feedback is shown")
        assert isinstance(found, list)
        return found

    def _widths(self, section: str, selector: str) -> list[int]:
        found = eventually(lambda: self._browser.ask(_WIDTHS, section, selector), f"images of {section}")
        assert isinstance(found, list)
        return found

    def _open_list(self, label: str) -> None:
        self._click(f"input[aria-label='{label}']")
        self._wait_for("li[role='option']")

    def _close_list(self) -> None:
        self._browser.ask("document.activeElement.blur()")
        eventually(lambda: not self._seen("li[role='option']"), "the list closes")

    def _wait_for(self, selector: str, text: str | None = None) -> None:
        eventually(lambda: self._seen(selector, text), f"{selector} with the text {text}")

    def _click(self, selector: str, text: str | None = None) -> None:
        def click() -> bool:
            for one in self._seen(selector, text)[:1]:
                one.click()
                return True
            return False

        eventually(lambda: self._patiently(click), f"{selector} with the text {text} is clicked")

    def _seen(self, selector: str, text: str | None = None) -> "list[WebElement]":
        found = self._browser.ask(_SEEN, selector, text)
        assert isinstance(found, list)
        return found

    def _patiently(self, act: Any) -> Any:
        """What it returns; None where the page was drawn anew meanwhile."""
        from selenium.common.exceptions import (  # noqa: PLC0415 - only for tests that run
            ElementNotInteractableException,
            StaleElementReferenceException,
        )

        with contextlib.suppress(ElementNotInteractableException, StaleElementReferenceException):
            return act()
        return None
