"""The command ``pixaris-sync``: arguments, wiring, exit codes. Rules are made elsewhere.

* `app` holds the commands, `options` makes flags of the settings, `help` shows them.
* `passes` is behind ``watch``, ``sync`` and ``backfill``, with `preview` for its dry run and `progress` while
  it works; `inspect` is behind ``status``, ``verify`` and ``retry``, `limit` and `sandbox` behind their own
  names.
* `wiring` puts the real bucket, tables, folder and ledger together; `late` does so when they are first
  needed.
* `report` is what is printed, `endings` and `exits` are how a command ends.

What `app` imports is imported by ``--help`` and by shell completion, so everything heavy is imported by the
command that needs it.
"""

import atexit
import gc
import os
from typing import NoReturn

from pixaris_sync.imports import importing

#: Python looks for garbage whenever there are so many new objects. Requests leave next to none, so looking as
#: often as by default finds nothing, and takes a fiftieth of the time.
NEW_OBJECTS = 20_000


def main() -> NoReturn:
    """Run the command line; see `app.main`."""
    # Else Python's last act is to look for garbage among all that the process made, and to take it apart.
    atexit.register(gc.freeze)
    gc.set_threshold(NEW_OBJECTS)
    # Pydantic would read the metadata of all installed packages for plugins, which are made for web services.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    with importing():
        from pixaris_sync.cli import app
    app.main()
