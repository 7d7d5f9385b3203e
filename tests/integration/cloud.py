"""A bucket and a dataset for one test, and how to ask Google's clients about them."""

from dataclasses import dataclass
from typing import Any

TIMEOUT_SECONDS = 20.0

#: Google's clients take None and then do not retry for minutes; their annotations do not say so.
NO_RETRY: Any = None


@dataclass(frozen=True, slots=True)
class Cloud:
    """A bucket and a dataset that no other test uses.

    Attributes:
        environment: what points Google's clients, Pixaris and pixaris-sync at them.
    """

    project: str
    dataset: str
    bucket: str
    environment: dict[str, str]

    @property
    def dataset_ref(self) -> str:
        """The dataset as Pixaris is told it: with its project."""
        return f"{self.project}.{self.dataset}"

    def table(self, table: str) -> str:
        """A table's full id."""
        return f"{self.dataset_ref}.{table}"
