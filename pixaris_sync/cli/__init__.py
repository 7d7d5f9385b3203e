"""The command ``pixaris-sync``: arguments, wiring, exit codes. Rules are made elsewhere.

What is imported here is imported by ``--help`` and by shell completion, so everything heavy is imported by
the command that needs it.
"""

from pixaris_sync.cli.app import main

__all__ = ["main"]
