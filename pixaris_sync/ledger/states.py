"""What may become of a file and of a row: state, event, next state.

An event is the function of this package that makes the change. What is not in a table does not happen: the
tests hold the ledger to both, in both directions, and the documents show them. None stands for a file or row
that the ledger does not know yet, or has forgotten. A run's state has no table: it follows from those of its
files and rows (`runs.update_run_states`).
"""

from typing import Final, Generic, NamedTuple, TypeVar

from pixaris_sync.model import FileState, RowState

State = TypeVar("State", FileState, RowState)


class Transition(NamedTuple, Generic[State]):
    """What is in `state` comes to `next_state` by `event`; `when` says in which case."""

    state: State | None
    event: str
    next_state: State | None
    when: str


FILE_TRANSITIONS: Final = tuple(
    Transition[FileState](*row)
    for row in (
        (None, "take_in", FileState.PENDING, "it was found"),
        (
            FileState.PENDING,
            "adopt_objects",
            FileState.IN_DOUBT,
            "the bucket lists it without a checksum",
        ),
        (
            FileState.PENDING,
            "adopt_objects",
            FileState.UPLOADED,
            "a shard carried it as it is now",
        ),
        (FileState.PENDING, "claim", FileState.UPLOADING, "it is its turn"),
        (FileState.IN_DOUBT, "claim", FileState.UPLOADING, "it is its turn: it is looked up first"),
        (FileState.UPLOADING, "confirm_uploads", FileState.UPLOADED, "the bucket holds it, or held it once"),
        (
            FileState.UPLOADING,
            "confirm_uploads",
            FileState.PENDING,
            "the bucket holds an older version",
        ),
        (FileState.UPLOADING, "reschedule_upload", FileState.PENDING, "it failed, and nothing was done"),
        (FileState.UPLOADING, "reschedule_upload", FileState.IN_DOUBT, "it failed, and may have been done"),
        (FileState.UPLOADING, "quarantine_upload", FileState.QUARANTINED, "it failed for good"),
        (FileState.UPLOADING, "quarantine_upload", FileState.PENDING, "it has changed: it is tried as it is"),
        (
            FileState.UPLOADING,
            "quarantine_upload",
            FileState.IN_DOUBT,
            "the same, and it was in doubt",
        ),
        (FileState.UPLOADING, "unclaim", FileState.PENDING, "the process stops before it was sent"),
        (FileState.UPLOADING, "unclaim", FileState.IN_DOUBT, "the same, and it was in doubt"),
        (FileState.UPLOADING, "recover_uploads", FileState.IN_DOUBT, "the process crashed"),
        (FileState.UPLOADED, "take_in", FileState.PENDING, "there is a newer version of it"),
        (FileState.UPLOADED, "take_in", FileState.IN_DOUBT, "the same, and who knows what the bucket has"),
        (FileState.UPLOADED, "upload_again", FileState.PENDING, "its object was removed, and is wanted back"),
        (FileState.UPLOADED, "upload_again", None, "the same, and its record brings it again"),
        (FileState.QUARANTINED, "take_in", FileState.PENDING, "there is a newer version of it"),
        (FileState.QUARANTINED, "take_in", FileState.IN_DOUBT, "the same, and it was in doubt"),
        (FileState.QUARANTINED, "retry_runs", FileState.PENDING, "somebody wants it tried again"),
        (FileState.QUARANTINED, "retry_runs", FileState.IN_DOUBT, "the same, and it was in doubt"),
        (FileState.PENDING, "take_in", None, "somebody wanted it tried again, and it is gone"),
        (FileState.IN_DOUBT, "take_in", None, "the same"),
        (FileState.QUARANTINED, "take_in", None, "the same, and it has failed again since"),
        (FileState.PENDING, "take_in", FileState.UPLOADED, "the same, and an older version is uploaded"),
        (FileState.IN_DOUBT, "take_in", FileState.UPLOADED, "the same"),
        (FileState.QUARANTINED, "take_in", FileState.UPLOADED, "the same, and it has failed again since"),
        (FileState.PENDING, "forget_runs", None, "its run is given up: folder and line are gone"),
        (FileState.IN_DOUBT, "forget_runs", None, "the same"),
        (FileState.QUARANTINED, "forget_runs", None, "the same"),
        (FileState.UPLOADED, "forget_runs", None, "the same; its object stays"),
        (
            FileState.PENDING,
            "forget_edited",
            None,
            "its run's line was replaced: what it needs is found anew",
        ),
        (FileState.IN_DOUBT, "forget_edited", None, "the same"),
        (FileState.QUARANTINED, "forget_edited", None, "the same"),
    )
)

ROW_TRANSITIONS: Final = tuple(
    Transition[RowState](*row)
    for row in (
        (None, "take_in", RowState.UNASKED, "its record was found"),
        (None, "take_in", RowState.PENDING, "its record was seen arriving"),
        (None, "take_in", RowState.QUARANTINED, "its line is damaged, or its record clashes with another"),
        (RowState.UNASKED, "confirm_rows", RowState.SYNCED, "the table holds it"),
        (RowState.UNASKED, "permit_rows", RowState.PENDING, "the table does not hold it"),
        (
            RowState.UNASKED,
            "permit_rows",
            RowState.IN_DOUBT,
            "the same, and others may have sent it",
        ),
        (RowState.UNASKED, "quarantine_rows", RowState.QUARANTINED, "the table cannot be asked for it"),
        (
            RowState.PENDING,
            "recover_deliveries",
            RowState.UNASKED,
            "a new process must ask",
        ),
        (RowState.PENDING, "start_delivery", RowState.SENDING, "it is its turn: the intent is written down"),
        (RowState.PENDING, "confirm_uploads", RowState.IN_DOUBT, "others had put files of its run there"),
        (RowState.PENDING, "adopted", RowState.IN_DOUBT, "nothing in the bucket tells whether it was sent"),
        (RowState.PENDING, "quarantine_rows", RowState.QUARANTINED, "it cannot be sent as it is"),
        (RowState.PENDING, "take_in", RowState.UNASKED, "its record was taken for another run's"),
        (RowState.SENDING, "accept_rows", RowState.ACCEPTED, "the service took it"),
        (RowState.SENDING, "confirm_rows", RowState.SYNCED, "the process crashed, and the table holds it"),
        (RowState.SENDING, "mark_in_doubt", RowState.IN_DOUBT, "the service may have taken it"),
        (
            RowState.SENDING,
            "recover_deliveries",
            RowState.IN_DOUBT,
            "the process crashed while it streamed",
        ),
        (RowState.SENDING, "reschedule_rows", RowState.PENDING, "the service did not take it"),
        (RowState.SENDING, "quarantine_rows", RowState.QUARANTINED, "the service refuses it for good"),
        (RowState.ACCEPTED, "confirm_rows", RowState.SYNCED, "it was read back"),
        (
            RowState.ACCEPTED,
            "reschedule_rows",
            RowState.PENDING,
            "its table was made anew",
        ),
        (RowState.ACCEPTED, "quarantine_rows", RowState.QUARANTINED, "it cannot be read back"),
        (
            RowState.ACCEPTED,
            "send_again",
            RowState.QUARANTINED,
            "it does not show, and is wanted back: its line is read again",
        ),
        (
            RowState.ACCEPTED,
            "upload_again",
            RowState.QUARANTINED,
            "the same, of what stood inline in it",
        ),
        (RowState.SYNCED, "send_again", RowState.QUARANTINED, "it was removed, and is wanted back: the same"),
        (RowState.SYNCED, "upload_again", RowState.QUARANTINED, "the same, of what stood inline in it"),
        (RowState.IN_DOUBT, "confirm_rows", RowState.SYNCED, "it was read back"),
        (RowState.IN_DOUBT, "reschedule_rows", RowState.PENDING, "it is not there"),
        (RowState.IN_DOUBT, "quarantine_rows", RowState.QUARANTINED, "it cannot be read back"),
        (
            RowState.IN_DOUBT,
            "take_in",
            RowState.UNASKED,
            "its record was taken for another run's, and not sent",
        ),
        (RowState.QUARANTINED, "confirm_rows", RowState.SYNCED, "the table was seen to hold it"),
        (RowState.QUARANTINED, "retry_runs", RowState.UNASKED, "somebody wants it tried again"),
        (RowState.QUARANTINED, "retry_runs", RowState.ACCEPTED, "the same, and the service took it"),
        (
            RowState.QUARANTINED,
            "take_in",
            RowState.UNASKED,
            "it was refused, or is wanted back, and is judged anew",
        ),
        (RowState.QUARANTINED, "take_in", RowState.PENDING, "the same, and it was seen arriving"),
        (RowState.QUARANTINED, "take_in", None, "its damaged line is gone"),
        (RowState.UNASKED, "forget_runs", None, "its run is given up: folder and line are gone"),
        (RowState.PENDING, "forget_runs", None, "the same"),
        (RowState.IN_DOUBT, "forget_runs", None, "the same, and this ledger has not sent it"),
        (RowState.QUARANTINED, "forget_runs", None, "the same"),
        (RowState.SYNCED, "forget_runs", None, "the same, of another record of its run; the row stays"),
        (RowState.UNASKED, "forget_edited", None, "its line was replaced, or another one of its run"),
        (RowState.PENDING, "forget_edited", None, "the same"),
        (RowState.IN_DOUBT, "forget_edited", None, "the same, and this ledger has not sent it"),
        (RowState.QUARANTINED, "forget_edited", None, "the same"),
    )
)
