"""Which runs a pass is about."""

from dataclasses import dataclass

#: A condition over runs r and datasets d that holds for selected runs; see `Selection.parameters`.
SELECTED = """
(:project IS NULL OR d.project = :project) AND (:dataset IS NULL OR d.dataset = :dataset)
AND r.name >= :since AND (:until IS NULL OR r.name < :until)
"""
#: More than any number of attempts that can be counted.
NO_LIMIT = 2**62


@dataclass(frozen=True, slots=True)
class Selection:
    """Which runs a pass is about, and how often it tries.

    Attributes:
        project, dataset: only these; None: all.
        since, until: run names begin with their time as ``YYYYmmdd-HHMMSS``: only names from `since` on and
            before `until`.
        attempts_limit: files and rows that have failed so often in a row are left for a later pass.
    """

    project: str | None = None
    dataset: str | None = None
    since: str = ""
    until: str | None = None
    attempts_limit: int = NO_LIMIT

    @property
    def parameters(self) -> dict[str, str | int | None]:
        """Values for `SELECTED` and for ``:attempts_limit``."""
        return {
            "project": self.project,
            "dataset": self.dataset,
            "since": self.since,
            "until": self.until,
            "attempts_limit": self.attempts_limit,
        }
