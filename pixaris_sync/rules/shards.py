"""Which runs of a results folder each of several tasks carries, and how the pass after them knows."""

import hashlib
import re
from typing import Final, Self

from msgspec import Struct

from pixaris_sync.model import FileVersion, RemoteObject, RunKey, Tail

#: More tasks than any scheduler has in an array.
SHARDS_LIMIT: Final = 100_000
#: Under this name an object's metadata tell which version of a local file a shard made it of.
_VERSION: Final = "pixaris-sync-version"
_TEXT: Final = re.compile(r"(\d{1,6})/(\d{1,6})", re.ASCII)


class Shard(Struct, frozen=True, order=True):
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
        return tail._replace(records=records, damaged=())

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def mark_of(version: FileVersion) -> dict[str, str]:
    """What the metadata of an object tell of the file that a shard made it of: its size and time of change.

    So the pass that sends the rows need not read what shards have read: the bucket is the only manifest. Like
    a ledger it takes a file of that size and time for the same, whatever machine it is looked at from.
    """
    return {_VERSION: f"{version.size}-{version.mtime_ns}"}


def is_carried(remote: RemoteObject, version: FileVersion) -> bool:
    """Whether a shard made an object of this version of a file."""
    told = (remote.metadata or {}).get(_VERSION)
    return told is not None and remote.size == version.size and told == mark_of(version)[_VERSION]
