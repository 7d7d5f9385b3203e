"""How uploads come and go, as the server sees them: how many at the same time, how fast, how many refused."""

import time
from typing import Any


class Uploads:
    """Takes down each upload's beginning (its head has arrived) and end (its answer is sent).

    Args:
        at_once: so many are taken at the same time, and others refused; 0: all are taken.
    """

    def __init__(self, at_once: int = 0) -> None:
        self._at_once = at_once
        self._under_way = 0
        self._refused = 0
        self._began_at: float | None = None
        self._last_began_at = 0.0
        self._seen_at = 0.0
        self._upload_seconds = 0.0
        self._cpu_began = self._cpu_ended = 0.0
        self._ended: list[tuple[float, float]] = []

    def begin(self) -> bool:
        """An upload begins; whether it is taken. Either way `end` follows."""
        now = self._pass_time()
        taken = not self._at_once or self._under_way < self._at_once
        self._under_way += 1
        if taken:
            self._last_began_at = now
            if self._began_at is None:
                self._began_at, self._cpu_began = now, time.process_time()
        else:
            self._refused += 1
        return taken

    def end(self, *, stored: bool) -> None:
        """An upload ends; `stored`: there is another object now."""
        now = self._pass_time()
        self._under_way -= 1
        if stored:
            self._ended.append((now, self._upload_seconds))
            self._cpu_ended = time.process_time()

    def told(self) -> dict[str, Any]:
        """All of it; `ended` holds for each object the time, and the seconds of all uploads by then."""
        return {
            "began_at": self._began_at,
            "last_began_at": self._last_began_at,
            "ended": self._ended,
            "refused": self._refused,
            "cpu_seconds": self._cpu_ended - self._cpu_began,
        }

    def _pass_time(self) -> float:
        now = time.monotonic()
        self._upload_seconds += self._under_way * (now - self._seen_at)
        self._seen_at = now
        return now
