"""pixaris-sync with the number of uploads at the same time held at one level, whatever it finds.

Usage: held_level.py LEVEL ARGUMENTS, with the arguments of pixaris-sync. There is no setting for this: users
have no use for it.
"""

import sys

from pixaris_sync.limits import concurrency


class HeldConcurrency(concurrency.AdaptiveConcurrency):
    """Looks at everything and changes nothing."""

    def __init__(self, limit_max: int) -> None:
        super().__init__(limit_max)
        self.limit = LEVEL

    def _set_limit(self, now: float, limit: float) -> None:
        super()._set_limit(now, limit)
        self.limit = LEVEL


LEVEL = int(sys.argv.pop(1))
# Before anything imports it from there.
setattr(concurrency, "AdaptiveConcurrency", HeldConcurrency)  # noqa: B010 - not the type that it was

from pixaris_sync.cli import main  # noqa: E402

main()
