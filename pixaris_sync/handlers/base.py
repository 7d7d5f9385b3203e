"""What every experiment handler offers: the methods that Pixaris' orchestration and UI call.

Names, parameters, their order and their defaults are those of ``pixaris.experiment_handlers`` (0.11.4), by
its documentation (https://ottogroup.github.io/pixaris/) and its signatures.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image


class ExperimentHandler(ABC):
    """Stores the runs of experiments, and loads them.

    Pixaris takes any object with these methods; it asks for no class of its own.
    """

    @abstractmethod
    def store_results(
        self,
        project: str,
        dataset: str,
        experiment_run_name: str,
        image_name_pairs: "Iterable[tuple[Image.Image, str]]",
        metric_values: Mapping[str, Any],
        args: Mapping[str, Any],
    ) -> None:
        """Store a run: its images, its arguments and its metrics. See the classes that do it."""

    def _validate_experiment_run_name(self, experiment_run_name: str) -> None:  # noqa: B027 - few refuse any
        """Refuse a name before anything is generated for it. Pixaris' orchestration calls it."""

    @abstractmethod
    def load_projects_and_datasets(self) -> dict[str, list[str]]:
        """The datasets of each project, by project."""

    @abstractmethod
    def load_experiment_results_for_dataset(self, project: str, dataset: str) -> "pd.DataFrame":
        """A row for each run of a dataset."""

    @abstractmethod
    def load_images_for_experiment(
        self, project: str, dataset: str, experiment_run_name: str, local_results_directory: str
    ) -> list[str]:
        """The sorted local paths of a run's images."""


class StoringHandler(ExperimentHandler):
    """What the handlers of this package share, which can store behind the caller's back.

    Pickled, it takes along what it was made with, and begins anew in the other process.
    """

    #: The attributes that it was made with.
    _kept: ClassVar[tuple[str, ...]]

    @abstractmethod
    def _begin(self) -> None:
        """Set up what belongs to one process."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def __enter__(self) -> Self:
        """Nothing but itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See `close`."""
        self.close()

    @abstractmethod
    def flush(self) -> None:
        """Wait until what was taken is stored. See the classes that do it."""

    def close(self) -> None:
        """The same as `flush`; the handler can still be used."""
        self.flush()
