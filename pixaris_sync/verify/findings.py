"""What a comparison says, one thing at a time."""

from enum import StrEnum
from typing import Final

from msgspec import Struct

from pixaris_sync.errors import SyncError
from pixaris_sync.model import JsonValue, RunKey
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


#: What can be done about something that is missing.
CARRY_HINT: Final = "`pixaris-sync sync` carries what waits, `pixaris-sync status` tells why it does"
RESTORE_HINT: Final = "`pixaris-sync sync --repair` restores what was removed from the cloud"
BACKUP_HINT: Final = "restore it from a backup"


class Finding(Struct, frozen=True):
    """One comparison.

    Attributes:
        sign: how it came out.
        kind: what was compared.
        subject: an object's name, ``<table>:<run>`` for a row, ``<project>/<dataset>/<run>`` for the ledger;
            where a whole listing, table or dataset could not be compared, that.
        detail: what there is to say about it, in one line.
        hint: what can be done about it, if anything is to be done.
        run: whose object or row it is; None where no file and no record of this folder accounts for it. A row
            too many is the run's, which has more than its records ask for.
        source: what it is made of here: the run-relative path of an object's file, the digest of a row's
            record; empty where nothing of that is left here.
    """

    sign: Sign
    kind: Kind
    subject: str
    detail: str
    hint: str = ""
    run: RunKey | None = None
    source: str = ""

    @property
    def only_in_cloud(self) -> bool:
        """Whether nothing here knows of it: most likely it is another machine's."""
        return self.sign is Sign.EXTRA and self.run is None

    @property
    def document(self) -> dict[str, JsonValue]:
        """The finding for machines."""
        return {
            "sign": str(self.sign),
            "kind": str(self.kind),
            "subject": self.subject,
            "detail": self.detail,
            "hint": self.hint,
        }


def failed(kind: Kind, subject: str, error: SyncError) -> Finding:
    """Something could not be compared because of an error."""
    return Finding(Sign.ERROR, kind, printable(subject), str(error), error.hint)
