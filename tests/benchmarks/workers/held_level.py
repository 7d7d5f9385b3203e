"""pixaris-sync with the number of uploads at the same time held at one level, whatever it finds.

Usage: held_level.py LEVEL ARGUMENTS, with the arguments of pixaris-sync. There is no setting for this: users
have no use for it.
"""

import sys

from pixaris_sync.limits import concurrency


class HeldConcurrency(concurrency.AdaptiveConcurrency):
    """Looks at everything and changes nothing."""

    @property
    def limit(self) -> int:
        """The level."""
        return LEVEL

    @property
    def free(self) -> int:
        """How many more may start now."""
        return max(0, LEVEL - self.under_way)


LEVEL = int(sys.argv.pop(1))
# Before anything imports it from there.
setattr(concurrency, "AdaptiveConcurrency", HeldConcurrency)  # noqa: B010 - not the type that it was

from pixaris_sync.cli import main  # noqa: E402

main()
