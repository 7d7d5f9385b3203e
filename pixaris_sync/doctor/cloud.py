"""Asks both services, each question by itself and for a bounded time, and changes nothing there."""

import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio
from msgspec import Struct, field

from pixaris_sync.doctor.checks import Check, not_checked
from pixaris_sync.doctor.judgements import (
    BUCKET,
    BUCKET_PERMISSIONS,
    DATASET,
    TRIED,
    NoAnswer,
    judge_bucket,
    judge_bucket_facts,
    judge_clock,
    judge_dataset,
    judge_dataset_facts,
    judge_locations,
)
from pixaris_sync.errors import Failure, SyncError
from pixaris_sync.ports import BucketInspection, DatasetInspection
from pixaris_sync.process.wiring import bucket_inspection, dataset_inspection, login_of
from pixaris_sync.settings.model import Settings

if TYPE_CHECKING:
    from pixaris_sync.login.login import Identity

#: How long a question may take.
ANSWER_SECONDS: Final = 5.0

Question = Callable[[], Awaitable[Any]]
_Ask = Callable[[], Coroutine[Any, Any, None]]


class _Service(Struct):
    """What one service was asked, and what came of it so far."""

    answers: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, question: str) -> Any:  # noqa: ANN401 - each question has answers of its own kind
        return self.answers.get(question, NoAnswer(ANSWER_SECONDS).error)

    async def ask(self, questions: Mapping[str, Question]) -> None:
        """Ask all of them at the same time; none waits for another, and none fails another."""
        async with anyio.create_task_group() as tasks:
            for name, question in questions.items():
                tasks.start_soon(self._ask, name, question)

    async def _ask(self, name: str, question: Question) -> None:
        with anyio.move_on_after(ANSWER_SECONDS):
            try:
                self.answers[name] = await question()
            except SyncError as error:
                self.answers[name] = error


class Cloud:
    """Both services, and what they have answered so far.

    Args:
        settings: which bucket, which dataset.
        unset: required settings that are not known: what depends on them is not checked.

    Attributes:
        identity: who one is, once `ask_who` has found it out.
    """

    def __init__(self, settings: Settings, unset: frozenset[str] = frozenset()) -> None:
        self._settings = settings.having(request_timeout_seconds=ANSWER_SECONDS)
        self._login = login_of(self._settings)
        self._no_bucket = unset & {"gcp_pixaris_bucket_name"}
        self._no_dataset = unset & {"gcp_bq_experiment_dataset", "gcp_project_id"}
        self._storage, self._warehouse = _Service(), _Service()
        self.identity: Identity | None = None
        # Imports the clients: that is not to count as a service's silence.
        self._bucket: BucketInspection | None = None
        self._dataset: DatasetInspection | None = None
        if not self._no_bucket:
            self._bucket = bucket_inspection(self._settings, self._login)
        if not self._no_dataset:
            try:
                self._dataset = dataset_inspection(self._settings, self._login)
            except SyncError as error:
                self._warehouse.answers["facts"] = error

    def ask_who(self) -> None:
        """Find out in whose name the services are asked, which asks for a token."""
        self.identity = self._login.whoami()

    def questions(self) -> list[Callable[[], None]]:
        """What asks the services all questions, one function each, to be called side by side."""
        return [partial(anyio.run, ask) for ask in self._asks()]

    def ask_facts(self) -> None:
        """Ask both services how bucket and dataset are set up, and no more."""
        anyio.run(self._ask_all, self._asks("facts"))

    def _asks(self, *only: str) -> list[_Ask]:
        """What asks a service each; `only`: these questions."""
        asks: list[_Ask] = []
        if self._bucket is not None:
            asks.append(partial(_ask_bucket, self._bucket, self._storage, only))
        if self._dataset is not None:
            asks.append(partial(_ask_dataset, self._dataset, self._warehouse, only))
        return asks

    @staticmethod
    async def _ask_all(asks: Iterable[_Ask]) -> None:
        async with anyio.create_task_group() as tasks:
            for ask in asks:
                tasks.start_soon(ask)

    def checks(self, *, signed_in: bool) -> list[Check]:
        """All checks, by what is answered by now; `signed_in`: nothing is wrong with the credentials."""
        settings, storage, warehouse = self._settings, self._storage, self._warehouse
        accept_expiring = settings.accept_expiring_destination
        checks: list[Check] = []
        if self._no_bucket:
            checks.append(not_checked(BUCKET, f"not known: {', '.join(self._no_bucket)}"))
        else:
            bucket, facts = settings.gcp_pixaris_bucket_name, storage["facts"]
            checks += judge_bucket(
                bucket, facts, storage["held"], accept_expiring=accept_expiring, signed_in=signed_in
            )
            checks.append(judge_clock(storage["skew"]))
        if self._no_dataset:
            checks.append(not_checked(DATASET, f"not known: {', '.join(sorted(self._no_dataset))}"))
        else:
            checks += judge_dataset(
                settings.gcp_bq_experiment_dataset,
                warehouse["facts"],
                {name: warehouse[name] for name in TRIED},
                streaming=warehouse["try_stream"],
                expiring=warehouse["expiring_tables"],
                accept_expiring=accept_expiring,
                signed_in=signed_in,
            )
        return checks + judge_locations(storage["facts"], warehouse["facts"])

    @property
    def bucket_refusal(self) -> SyncError | None:
        """Why it cannot be seen how the bucket is set up, where the account may not look."""
        facts = self._storage["facts"]
        denied = isinstance(facts, SyncError) and facts.failure is Failure.PERMISSION
        return facts if denied else None

    def checks_of_facts(self) -> list[Check]:
        """What the settings of bucket and dataset do to what is carried there; nothing of who is silent."""
        accept_expiring = self._settings.accept_expiring_destination
        bucket, dataset = self._storage["facts"], self._warehouse["facts"]
        of_bucket = [] if isinstance(bucket, SyncError) else [bucket]
        of_dataset = [] if isinstance(dataset, SyncError) else [dataset]
        return [
            *(
                one
                for facts in of_bucket
                for one in judge_bucket_facts(facts, accept_expiring=accept_expiring)
            ),
            *(
                one
                for facts in of_dataset
                for one in judge_dataset_facts(facts, accept_expiring=accept_expiring)
            ),
        ]


async def _ask_bucket(inspection: BucketInspection, service: _Service, only: tuple[str, ...]) -> None:
    questions: dict[str, Question] = {
        "facts": inspection.facts,
        "held": partial(inspection.held_permissions, BUCKET_PERMISSIONS),
        "skew": partial(_skew, inspection),
    }
    await _ask(inspection, service, questions, only)


async def _skew(inspection: BucketInspection) -> float | None:
    """How far this machine's clock is ahead of the service's."""
    asked_at = time.time()
    told = await inspection.service_time()
    # The service tells whole seconds, of some moment in between.
    return None if told is None else (asked_at + time.time()) / 2 - told


async def _ask_dataset(inspection: DatasetInspection, service: _Service, only: tuple[str, ...]) -> None:
    questions: dict[str, Question] = {
        name: getattr(inspection, name) for name in ("facts", "expiring_tables", "try_stream", *TRIED)
    }
    await _ask(inspection, service, questions, only)


async def _ask(
    inspection: BucketInspection | DatasetInspection,
    service: _Service,
    questions: Mapping[str, Question],
    only: tuple[str, ...],
) -> None:
    try:
        await service.ask({name: questions[name] for name in only or questions})
    finally:
        with anyio.move_on_after(ANSWER_SECONDS), suppress(SyncError):
            await inspection.close()
