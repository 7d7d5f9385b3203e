"""What a comparison says, one thing at a time."""

from dataclasses import dataclass
from enum import StrEnum

from pixaris_sync.errors import SyncError
from pixaris_sync.model import JsonValue
from pixaris_sync.text import printable


class Sign(StrEnum):
    """How something compares; the names are the keys of a summary."""

    #: The same on both sides.
    SAME = "="
    #: Here and not in the cloud.
    MISSING = "-"
    #: In the cloud and not here.
    EXTRA = "+"
    #: On both sides and not the same.
    DIFFERS = "*"
    #: It could not be compared.
    ERROR = "!"


class Kind(StrEnum):
    """What is compared: an object with a file, a row with a tracking record, the ledger with both."""

    OBJECT = "object"
    ROW = "row"
    LEDGER = "ledger"


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison.

    Attributes:
        sign: how it came out.
        kind: what was compared.
        subject: an object's name, ``<table>:<run>`` for a row, ``<project>/<dataset>/<run>`` for the ledger;
            where a whole listing, table or dataset could not be compared, that.
        detail: what there is to say about it, in one line.
    """

    sign: Sign
    kind: Kind
    subject: str
    detail: str

    @property
    def document(self) -> dict[str, JsonValue]:
        """The finding for machines."""
        return {
            "sign": str(self.sign),
            "kind": str(self.kind),
            "subject": self.subject,
            "detail": self.detail,
        }


def failed(kind: Kind, subject: str, error: SyncError) -> Finding:
    """Something could not be compared because of an error."""
    return Finding(Sign.ERROR, kind, printable(subject), str(error))
