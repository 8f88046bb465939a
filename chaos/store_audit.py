"""The versions of a model in a store, read and checked as the auditor of a models folder does."""

from app.registry.bucket.keys import pointer_key, version_key
from app.registry.bucket.pointer import Pointer
from app.registry.version_file import FileContent, Version, read
from app.storage.opening import open_store
from chaos.violation import demand


class StoredVersions:
    """Reads versions from a store, each once, because a version never changes."""

    def __init__(self, url: str, model: str) -> None:
        self._store = open_store(url)
        self._model = model
        self._versions: dict[int, Version] = {}

    def pointer(self) -> Pointer:
        key = pointer_key(self._model)
        return Pointer.decode(self._store.get(key).content, key)

    def version(self, number: int) -> Version:
        """Return a version. Raises BlobNotFound or ModelFileInvalid."""
        if number not in self._versions:
            key = version_key(self._model, number)
            self._versions[number] = read(FileContent(self._store.get(key).content, key))
        return self._versions[number]

    def audit(self) -> dict[int, Version]:
        """Return all versions. Raises Violation if one is corrupt, misnamed, or published twice."""
        pointer = self.pointer()
        versions = {number: self.version(number) for number in pointer.numbers()}
        demand(pointer.current in versions, f"current is {pointer.current}, which is not there")
        published: dict[tuple[str, str], int] = {}
        for number, version in versions.items():
            card = version.card
            demand(card.version == number, f"the card of version {number} has version {card.version}")
            for kind, name in (("upload", card.upload), ("job", card.job)):
                if name is not None:
                    twin = published.setdefault((kind, name), number)
                    demand(twin == number, f"versions {twin} and {number} are the same {kind}, published twice")
        return versions
