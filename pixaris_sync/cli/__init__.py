"""The command ``pixaris-sync``: arguments, wiring, exit codes. Rules are made elsewhere.

* `app` is the whole, `commands` and `tools` are its commands, `options` makes flags of the settings and of
  what selects runs, `selecting` makes a selection of these and `sharding` a shard of that, `help` shows them,
  and `parameters` takes what is given.
* `passes` is behind ``watch``, ``sync`` and ``backfill``, with `monitoring` while it works. `inspect` is
  behind ``status``, ``verify`` and ``retry``; `story` is behind ``status RUN``, and `live`, which shows what
  `panes` lays out, behind ``status --watch``, `ledgers` behind ``status --ledgers`` and `shards` behind
  ``status --shards``. `history` is behind ``prune`` and ``pull``, `limit` is behind ``limit``, ``pause`` and
  ``resume``; `doctor`, `ui` and `sandbox` are behind their own names.
* `config_show` and `config_init` are behind ``config show`` and ``config init``.
* `wiring` is what every command begins with: settings, logging, and the ledger of earlier work. `console` is
  what is said on stderr: the log, and `progress` below it.
* `report` is what is printed, `exits` is how a command ends. `streams` sees to it that printing breaks
  nothing.

What `app`, `commands` and `tools` import is imported by ``--help`` and by shell completion, so everything
heavy is imported by the command that needs it. Of the flags, only those of the command that is named are
built.
"""

from typing import NoReturn

from pixaris_sync.footprint import claim_process, importing


def main() -> NoReturn:
    """Run the command line; see `app.main`."""
    claim_process()
    with importing():
        from pixaris_sync.cli import app
    app.main()
