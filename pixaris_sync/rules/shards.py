"""Which runs of a results folder each of several tasks carries."""

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Final, Self

from pixaris_sync.model import RunKey, Tail

#: More tasks than any scheduler has in an array.
SHARDS_LIMIT: Final = 100_000
_TEXT: Final = re.compile(r"(\d{1,6})/(\d{1,6})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """One of `count` parts of a results folder; `number` begins at 1.

    A run belongs to one part by a hash of its project, dataset and name: so the runs of one large dataset are
    spread, too, and a run stays where it is when others come and go. Another `count` is another division.
    """

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The shard that a text such as ``2/4`` names.

        Raises:
            ValueError: it names none.
        """
        found = _TEXT.fullmatch(text.strip())
        if found is None:
            raise ValueError("must be a number and how many there are, such as 2/4")
        number, count = int(found[1]), int(found[2])
        if not 1 <= number <= count <= SHARDS_LIMIT:
            raise ValueError(f"must be between 1/{count} and {count}/{count}" if count else "there are none")
        return cls(number, count)

    def takes(self, run: RunKey) -> bool:
        """Whether a run belongs to this part."""
        name = f"{run.project}\0{run.dataset}\0{run.run}".encode("utf-8", "surrogateescape")
        digest = hashlib.sha256(name).digest()
        return int.from_bytes(digest[:8]) % self.count == self.number - 1

    def part_of(self, tail: Tail) -> Tail:
        """What was read of a tracking file, without the records of other parts.

        Nobody knows whose run a damaged line would name: it is left to whoever carries everything.
        """
        records = tuple(record for record in tail.records if self.takes(record.run))
        return replace(tail, records=records, damaged=())

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
