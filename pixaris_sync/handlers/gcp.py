"""Runs in a bucket and in tables: what ``pixaris.experiment_handlers.gcp`` documents, and loses none.

Rows and objects are those of Pixaris' GCPExperimentHandler (0.11.4): either reads what the other wrote.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from pixaris_sync.errors import SyncError
from pixaris_sync.handlers.base import StoringHandler
from pixaris_sync.handlers.behind import PENDING_BYTES_LIMIT, Behind
from pixaris_sync.handlers.naming import FirstFile, lone_names, take_name, wanted_name
from pixaris_sync.handlers.portal import run as run_anywhere
from pixaris_sync.handlers.record import NewRun, cloud_names, new_run
from pixaris_sync.handlers.spool import make_spool, naming, place_in, spool_settings
from pixaris_sync.handlers.staging import StagedRun, stage
from pixaris_sync.local.storing import recover
from pixaris_sync.model import DatasetKey, RunKey
from pixaris_sync.rules.contract import GENERATED_IMAGES
from pixaris_sync.settings.model import Settings

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

_STAMP = "%Y%m%d-%H%M%S"


class GCPExperimentHandler(StoringHandler):
    """Stores and loads runs in Google Cloud.

    A run is first stored durably in a spool on this machine, then carried, exactly once. Its images become
    objects ``results/<project>/<dataset>/<yymmdd>-<name>/generated_images/<image>``, its arguments and
    metrics a row of the table ``<project>_<dataset>_experiment_results``.

    Emulators, limits and all else that can be set come from the environment, as ``deploy/settings.md`` lists
    it. May be used by many threads, pickled, and taken along into another process.

    Args:
        gcp_project_id: the Google Cloud project.
        gcp_bq_experiment_dataset: the BigQuery dataset, as ``dataset`` or ``project.dataset``.
        gcp_pixaris_bucket_name: the bucket.
        spool_folder: the spool; else one for this destination, below the user's state folder.
        wait: whether `store_results` returns when the row can be read. Else it returns when the run is in the
            spool, and never waits for the cloud: what is there is carried behind, in order.
    """

    _kept = (
        "gcp_project_id",
        "gcp_bq_experiment_dataset",
        "gcp_pixaris_bucket_name",
        "wait",
        "_spool_folder",
    )

    def __init__(
        self,
        gcp_project_id: str,
        gcp_bq_experiment_dataset: str,
        gcp_pixaris_bucket_name: str,
        *,
        spool_folder: str | None = None,
        wait: bool = True,
    ) -> None:
        self.gcp_project_id = gcp_project_id
        self.gcp_bq_experiment_dataset = gcp_bq_experiment_dataset
        self.gcp_pixaris_bucket_name = gcp_pixaris_bucket_name
        self.wait = wait
        self._spool_folder = (
            None if spool_folder is None else os.path.abspath(os.path.expanduser(spool_folder))
        )
        self._begin()

    def _begin(self) -> None:
        self._behind = Behind("carry", PENDING_BYTES_LIMIT)
        #: How many runs were stored without waiting, and how many of them the last pass met.
        self._stored = self._carried = 0

    @property
    def spool_folder(self) -> str:
        """Where runs wait for the cloud.

        Raises:
            ConfigurationError: a setting in the environment is unusable.
        """
        return str(self._settings().local_results_folder)

    def store_results(
        self,
        project: str,
        dataset: str,
        experiment_run_name: str,
        image_name_pairs: "Iterable[tuple[Image.Image, str]]",
        metric_values: Mapping[str, Any],
        args: Mapping[str, Any] = {},
    ) -> None:
        """Store a run.

        It has the name ``<yymmdd>-<experiment_run_name>``; where that is taken, with the time ``HHMM`` after
        it, then with a number. Where the cloud is not asked, as without `wait` or without network, it has
        the time and six random hex digits after it. What no object's name can have becomes a mark.

        Without network this returns, with a warning, when the run is in the spool. It goes with the next
        call, with `flush`, or with ``pixaris-sync sync`` on the spool.

        Args:
            project: the project's name.
            dataset: the dataset's name.
            experiment_run_name: the run's name.
            image_name_pairs: pictures of any Pillow mode with their names; a name without a suffix that says
                the format gets ``.png``.
            metric_values: metrics by name.
            args: arguments by name. Images and dicts are saved as objects of the run; images in the list
                ``pillow_images`` stand beside the generated ones, as ``z_<node name>.png``.

        Raises:
            NameRefusedError: no table or object can have the name of project or dataset.
            ConfigurationError: bucket, dataset, settings or credentials are missing or unusable.
            SyncError: the account may not do it (PERMISSION), somebody must act before the run can be
                carried, or a value is nested too deeply. But for the latter, the run is in the spool, and
                goes later. Without `wait`, errors of earlier runs are raised here, after this one was taken.
            OSError: the disk refused; nothing of the run is there.
        """
        settings, key = self._settings(), DatasetKey(project, dataset)
        run = new_run(image_name_pairs, metric_values, args, named=cloud_names)
        make_spool(settings.local_results_folder)
        stored, refusal = self._spooled(settings, key, str(experiment_run_name), run)
        if refusal is not None:
            raise refusal
        if self.wait:
            _carry_named(settings, stored)
        else:
            self._stored += 1
            self._behind.do(partial(self._carry_behind, settings, stored, self._stored), 0)
            self._behind.raise_error()

    def flush(self) -> None:
        """Carry everything that is in the spool.

        Raises:
            SyncError: something stays there; the error says how much, and why.
        """
        settings = self._settings()
        self._behind.wait()
        if os.path.isdir(settings.local_results_folder):
            _carry(settings, None)
        self._behind.raise_error()

    def load_projects_and_datasets(self) -> dict[str, list[str]]:
        """The datasets of each project of the bucket, by project.

        Raises:
            SyncError: the bucket cannot be read.
        """
        from pixaris_sync.handlers.loading import projects_and_datasets  # noqa: PLC0415 - storing does without

        return projects_and_datasets(self._settings())

    def load_experiment_results_for_dataset(self, project: str, dataset: str) -> "pd.DataFrame":
        """The table of a dataset as a frame.

        Raises:
            SyncError: it cannot be read.
        """
        from pixaris_sync.handlers.loading import results_of_dataset  # noqa: PLC0415 - storing does without

        return results_of_dataset(self._settings(), DatasetKey(project, dataset))

    def load_images_for_experiment(
        self, project: str, dataset: str, experiment_run_name: str, local_results_directory: str
    ) -> list[str]:
        """Load a run's images to this machine; what is there already and the same is not loaded again.

        Returns:
            Their sorted local paths.

        Raises:
            SyncError: one of them cannot be read.
        """
        from pixaris_sync.handlers.loading import images_of_run  # noqa: PLC0415 - storing does without

        run = RunKey(project, dataset, experiment_run_name)
        return images_of_run(self._settings(), run, local_results_directory)

    def _settings(self) -> Settings:
        return spool_settings(
            self.gcp_project_id,
            self.gcp_bq_experiment_dataset,
            self.gcp_pixaris_bucket_name,
            self._spool_folder,
        )

    def _spooled(
        self, settings: Settings, key: DatasetKey, name: str, run: NewRun
    ) -> tuple[RunKey, SyncError | None]:
        """Store a run durably in the spool; why it cannot be carried, if so."""
        folder, refusal = place_in(settings.local_results_folder, key)
        tracking_file = settings.dataset_tracking_file_name
        recover(folder)
        staged = stage(folder, tracking_file, run)
        try:
            now = datetime.now()  # noqa: DTZ005 - names have the time of this machine, as in Pixaris
            commit = partial(staged.commit, timestamp=now.strftime(_STAMP), recorded_folder=os.fspath(folder))
            lone = lone_names(wanted_name(key, name, now), now)
            if refusal is not None or not self.wait:
                return RunKey(key.project, key.dataset, commit(lone)), refusal
            with naming(folder):
                names = chain(_taken_name(settings, key, name, now, run, staged), lone)
                return RunKey(key.project, key.dataset, commit(names)), None
        except BaseException:
            staged.discard()
            raise

    def _carry_behind(self, settings: Settings, run: RunKey, number: int) -> None:
        if number <= self._carried:
            return
        upto = self._stored
        try:
            _carry(settings, run)
        except RuntimeError as error:
            # The interpreter ends, and lets nobody begin a thread.
            from pixaris_sync.handlers.carrier import tell_of_exit  # noqa: PLC0415 - see `_carry`

            tell_of_exit(settings, error)
        finally:
            self._carried = upto


def _carry(settings: Settings, run: RunKey | None) -> None:
    # A heavy import: a training process that stores nothing does without.
    from pixaris_sync.handlers.carrier import carry  # noqa: PLC0415 - see above

    carry(settings, run)


def _carry_named(settings: Settings, run: RunKey) -> None:
    from pixaris_sync.handlers.claims import forget  # noqa: PLC0415 - see `_carry`

    try:
        _carry(settings, run)
    finally:
        forget(settings.local_results_folder, run)


def _taken_name(
    settings: Settings, key: DatasetKey, name: str, now: datetime, run: NewRun, staged: StagedRun
) -> Iterator[str]:
    """The name that the run has in the bucket now; none where the bucket cannot be asked."""
    from pixaris_sync.handlers.carrier import is_known  # noqa: PLC0415 - see `_carry`
    from pixaris_sync.handlers.claims import ClaimingStore  # noqa: PLC0415 - see `_carry`
    from pixaris_sync.process.wiring import ports  # noqa: PLC0415 - see `_carry`

    folder, _ = place_in(settings.local_results_folder, key)
    paths = [f"{GENERATED_IMAGES}/{file}" for file in run.images] + list(run.arguments)
    first = FirstFile(paths[0], staged.files[paths[0]].read_bytes()) if paths else None

    def is_taken(one: str) -> bool:
        return os.path.lexists(folder / one) or is_known(settings, RunKey(key.project, key.dataset, one))

    async def take() -> str:
        async with ports(settings) as (store, _):
            wanted = wanted_name(key, name, now)
            claiming = ClaimingStore(store, settings.local_results_folder)
            return await take_name(claiming, key, wanted, now=now, is_taken=is_taken, first_file=first)

    try:
        yield run_anywhere(take)
    except SyncError:
        return  # Carrying meets it too, and tells it.
