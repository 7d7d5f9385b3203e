"""The whole examination, and the part of it that every first run begins with."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pixaris_sync.doctor.checks import Check, Verdict, as_error, failed, not_checked
from pixaris_sync.doctor.cloud import Cloud
from pixaris_sync.doctor.judgements import LOGIN, judge_login
from pixaris_sync.doctor.side_by_side import side_by_side
from pixaris_sync.ledger.finder import may_exist
from pixaris_sync.local.results_folder import LocalResults
from pixaris_sync.process.wiring import found_ledger
from pixaris_sync.settings.model import Settings

log = logging.getLogger(__name__)


#: How long all questions together may take.
_ALL_SECONDS: Final = 7.0


def examine(flags: Mapping[str, Any], config: Path | None) -> list[Check]:
    """All checks, in the order in which faults are best mended. It takes less than ten seconds."""
    # A first run does without.
    from pixaris_sync.doctor.configuration import look_at_settings  # noqa: PLC0415 - see above
    from pixaris_sync.doctor.machine import look_at_folders, look_at_system  # noqa: PLC0415 - see above

    settings, unset, checks = look_at_settings(flags, config)
    emulated = bool(settings.storage_emulator_host and settings.bigquery_emulator_host)
    folders: list[Check] = []
    cloud = Cloud(settings, unset)
    jobs: list[Callable[[], object]] = [lambda: folders.extend(look_at_folders(settings)), *cloud.questions()]
    if not emulated:
        jobs.append(cloud.ask_who)
    side_by_side(jobs, _ALL_SECONDS)
    login = not_checked(LOGIN, "emulators ask for none") if emulated else judge_login(cloud.identity)
    if not folders:
        folders.append(failed("folder", "a disk does not answer", "look for a file server that is away"))
    there = cloud.checks(signed_in=login.verdict is not Verdict.FAILED)
    return [*checks, *folders, *look_at_system(settings), login, *there]


def examine_first(settings: Settings) -> None:
    """Before the first work with a new ledger: refuse a destination that loses what is carried there.

    It asks each service once, and says nothing of those that do not answer: the pass does that. What is no
    fault and should be known is logged.

    Raises:
        ConfigurationError: it deletes what is carried there, or takes no tables; or the results folder cannot
            be read.
        LocalFileError: (transient) the folder's disk is in trouble.
    """
    LocalResults(settings.local_results_folder, settings.dataset_tracking_file_name).check()
    if may_exist(found_ledger(settings).path):
        return
    cloud = Cloud(settings)
    side_by_side([cloud.ask_facts], _ALL_SECONDS)
    if refusal := cloud.bucket_refusal:
        log.info("%s; what it does to results is not checked", refusal)
    for check in cloud.checks_of_facts():
        if check.verdict is Verdict.FAILED:
            raise as_error(check, settings.destination)
        if check.verdict is Verdict.WARNING:
            log.warning("%s: %s (%s)", check.name, check.found, check.remedy)
