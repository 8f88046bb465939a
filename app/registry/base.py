"""What the rest of the service needs of a registry. One is in a folder, one in a store."""

from collections.abc import Callable, Mapping
from typing import BinaryIO, Literal, Protocol

from app.registry.model_card import ModelCard
from app.registry.version_file import Version
from app.regression.linear_model import LinearModel
from app.regression.sufficient_statistics import SufficientStatistics


class ParentChanged(Exception):
    """The current version is not the one that a new version was compared with or built on."""


class ModelReader(Protocol):
    """Lists and reads versions, and caches them. Every method but `get_cached` may wait, and raise Unavailable."""

    @property
    def storage(self) -> Literal["folder", "store", "cache"]:
        """Return the source of the versions that are served: `cache` while the store cannot be reached."""

    def models(self) -> list[str]:
        """Return the names of the models that have a version, current or not, sorted."""

    def versions(self, model: str) -> list[int]:
        """Return the numbers of all versions, ascending. Raises ModelNotFound if there are none."""

    def current_number(self, model: str) -> int | None:
        """Return the number of the current version, or None if no version was promoted."""

    def served_number(self, model: str) -> int | None:
        """Return the number of the version that is served as current, or None."""

    def get_cached(self, model: str, number: int | None = None) -> Version | None:
        """Return the current version, or the one with this number, if that does not block an event loop.

        None if `current` or `version` has more to do. Raises as they do.
        """

    def current(self, model: str) -> Version:
        """Return the promoted version, or the newest intact one if it is damaged.

        Raises ModelNotFound, NoCurrentVersion, ModelFileInvalid, WorkerBusy.
        """

    def refresh(self, model: str) -> None:
        """Make `current` return a version that was promoted before this call, by any process.

        Raises ModelNotFound, Unavailable.
        """

    def version(self, model: str, number: int) -> Version:
        """Return any version. Raises ModelNotFound, VersionNotFound, ModelFileInvalid, WorkerBusy."""

    def card(self, model: str, number: int) -> ModelCard:
        """Return the card of any version, without checking its tensors, which may be damaged.

        Raises ModelNotFound, VersionNotFound, ModelFileInvalid.
        """

    def file(self, model: str, number: int) -> BinaryIO:
        """Open the version's file. Raises ModelNotFound, VersionNotFound, ModelFileInvalid."""

    def folds(self, model: str, number: int) -> dict[int, SufficientStatistics]:
        """Return the statistics of a version's folds; none if it has none stored. Raises as `version` does."""


class ModelPublisher(ModelReader, Protocol):
    """Also changes the registry."""

    def find(self, model: str, upload: str) -> Version | None:
        """Return the version that was published for this upload, or None, after finishing its promotion.

        Raises Conflict if it was deleted; ModelFileInvalid if it is damaged: it must not be published again.
        """

    def publish(
        self,
        card: ModelCard,
        model: LinearModel,
        folds: Mapping[int, SufficientStatistics] | None = None,
        *,
        promote: bool = False,
        expected: int | Literal["any"] | None = "any",
    ) -> Version:
        """Publish a new version under the next free number, which replaces the card's, and promote it if asked.

        If `expected` is a number, that version must be current, and none if it is None; nothing else can be promoted
        between the comparison and the publication. A version that replaces all rows and has no parent gets the current
        version as its parent. An upload is published once: a second call returns its version.

        Raises ParentChanged if another version is current, and PromotionFailed if the version is published only; as
        `find` does; ModelFileInvalid if a store has versions of the model and no pointer.
        """

    def promote(self, model: str, number: int, check: Callable[[], None] = ...) -> None:
        """Make a version current. `check` is called first, while nobody else promotes or deletes, and may raise.

        Raises ModelNotFound, VersionNotFound, ModelFileInvalid.
        """

    def delete(self, model: str, number: int) -> None:
        """Remove a version for good. Its number is not used again.

        Raises ModelNotFound, VersionNotFound; Conflict for the current version and the one served.
        """

    def delete_model(self, model: str, check: Callable[[], None] = ...) -> None:
        """Remove a model with all its versions, whose numbers are not used again. `check` is as for `promote`.

        Raises ModelNotFound.
        """

    def sweep(self) -> None:
        """Remove what killed processes have left."""
