"""The one table of exit codes, which error ends in which, and how it is told."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from pixaris_sync.cli.console import print_error
from pixaris_sync.errors import Failure, FolderOwnedError, SyncError


class Exit(IntEnum):
    """How a command ended, for scripts and service managers."""

    #: Everything is synced, or what was asked for is done.
    OK = 0
    #: It failed in a way that no other code names.
    FAILED = 1
    #: The command line is wrong.
    USAGE = 2
    #: Done, but some runs are quarantined or incomplete: `pixaris-sync status` lists them; or something is
    #: missing that `sync --repair` could not restore.
    PROBLEMS = 3
    #: Settings, folders, credentials or permissions: nothing can be done before somebody mends them.
    CONFIGURATION = 4
    #: Work is left that a later try may finish: network, quota, files still being written.
    WORK_LEFT = 5
    #: Another process owns the results folder.
    OWNED = 11
    #: Interrupted by a signal before the end.
    INTERRUPTED = 130


class CommandLineError(SyncError):
    """The command line asks for something that cannot be meant."""


def exit_of(error: SyncError) -> Exit:
    """The exit code for an error that ends a command."""
    if isinstance(error, CommandLineError):
        return Exit.USAGE
    if isinstance(error, FolderOwnedError):
        return Exit.OWNED
    if error.stops_everything or error.failure is Failure.PERMISSION:
        return Exit.CONFIGURATION
    return Exit.WORK_LEFT if error.failure.retryable else Exit.FAILED


def exit_of_pass(*, waiting: int, quarantined: int, denied: bool = False) -> Exit:
    """The exit code of a pass that ran to its end.

    Args:
        waiting: how many runs wait for a later pass, those that are still being written included.
        quarantined: how many runs, lines and files somebody must look at.
        denied: some wait because the account may not do what they need.
    """
    if waiting and denied:
        return Exit.CONFIGURATION
    if waiting:
        return Exit.WORK_LEFT
    return Exit.PROBLEMS if quarantined else Exit.OK


@contextmanager
def ungrouped() -> Iterator[None]:
    """Raise what an exception group is about: the first error that no cancellation caused."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


def tell(error: SyncError, *, as_json: bool) -> Exit:
    """Say why a command ends, in words on stderr and, if asked to, as one JSON document on stdout.

    Returns:
        The exit code.
    """
    print_error(error)
    code = exit_of(error)
    if as_json:
        tell_machines(error, code)
    return code


def tell_machines(error: SyncError, code: int) -> None:
    """Print an error as a JSON document."""
    parts = {part: getattr(error, part) for part in ("operation", "subject", "cause", "hint")}
    print(json.dumps({"error": {**parts, "exit_code": int(code)}}))
