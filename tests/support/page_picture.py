"""Draws the picture of the page that the documents show: ``python -m tests.support.page_picture``.

The page is the real one, in a real browser; the runs on it are made up, as are their images.
"""

import os
import sys
import tempfile
from pathlib import Path

from PIL import Image

from pixaris_sync.ledger.waiting import WaitingRuns
from pixaris_sync.monitoring.view import View
from pixaris_sync.sandbox.pictures import draw_landscape
from tests.support.browser import browsing
from tests.support.documents import DEPLOY
from tests.support.page_checks import load_pictures
from tests.support.served_page import served_page
from tests.support.views import MEBIBYTE, NOW, busy, dataset, problem, with_changes

PICTURE = DEPLOY / "images" / "page.png"
_WIDTH = 1000
#: What is below is more of the same.
_HEIGHT = 1340
_COLOURS = 256


def put_images(root: Path, view: View) -> None:
    """The images of a view's runs, each another."""
    images = ((run.run, path) for run in view.last_runs for path in run.first_images)
    for number, (run, path) in enumerate(images):
        image = root / str(run) / path
        image.parent.mkdir(parents=True, exist_ok=True)
        draw_landscape(number).save(image)


def scene() -> View:
    """Something of everything."""
    return with_changes(
        busy(),
        runs={**busy().overview.runs, "quarantined": 1},
        problems=(
            problem(
                "landscapes/evening/20261127-093012_lora-v2",
                "cannot verify image landscapes/evening/20261127-093012_lora-v2/generated_images/2.png: its "
                "chunk IDAT is cut short",
                hint="replace the image by a whole one; one that is still being written is looked at again",
                ago=540,
            ),
        ),
        waiting=(WaitingRuns(37, NOW - 320, "waiting to be uploaded"),),
        datasets=(
            dataset("evening", "landscapes", synced=908, quarantined=1, pending=25),
            dataset("mountains", "landscapes", synced=392, pending=12),
            dataset("street", "portraits", synced=48),
        ),
        pending_bytes=592 * MEBIBYTE,
    )


def main() -> None:
    """Draw it anew."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, view = Path(scratch), scene()
        put_images(folder, view)
        with served_page(view, folder) as served, browsing(folder / "browser", width=_WIDTH) as browser:
            browser.open(served.address)
            load_pictures(browser)
            whole = Image.open(browser.screenshot("page")).convert("RGB")
    shown = whole.crop((0, 0, _WIDTH, min(whole.height, _HEIGHT)))
    shown.quantize(_COLOURS).save(PICTURE, optimize=True)
    sys.stdout.write(f"{os.path.relpath(PICTURE)}: {PICTURE.stat().st_size} bytes\n")


if __name__ == "__main__":
    main()
