"""The loaded models, by name and version, and which version answers for a name.

A registry never changes: whoever loads a version makes a new one and puts it in the old one's
place. So a query meets one state of things, and the version that it found answers all of it.
"""

import hashlib
from collections.abc import Mapping, Sequence

from persona.contract import ItemId, ModelNotFound, NotReady, VersionNotFound
from persona.engine.model import Model

Shares = Mapping[str, float]  # version -> its share of the requests that name none; sums to 1


class Registry:
    """Models by name and version.

    Args:
        models: that are loaded, several versions of a name among them.
        default: the model of queries that name none; by default the first.
        shares: of each model's versions; by default the newest has all.
        broken: models of which no version could be loaded, and why.
    """

    def __init__(
        self,
        models: Sequence[Model],
        default: str | None = None,
        shares: Mapping[str, Shares] | None = None,
        broken: Mapping[str, str] | None = None,
    ) -> None:
        self._versions: dict[str, dict[str, Model]] = {}
        for model in sorted(models, key=lambda model: -int(model.manifest.version)):
            self._versions.setdefault(model.manifest.name, {})[model.manifest.version] = model
        names = list(dict.fromkeys(model.manifest.name for model in models))
        self.default = default or names[0]
        if self.default in names:
            names = list(dict.fromkeys([self.default, *names]))
        newest = {name: {next(iter(own)): 1.0} for name, own in self._versions.items()}
        self.shares: dict[str, Shares] = newest | dict(shares or {})
        self._broken = dict(broken or {})
        self._main = {name: self._versions[name][_largest(self.shares[name])] for name in names}
        self.models = list(
            self._main.values()
        )  # the main version of each name, the default's first

    @property
    def loaded(self) -> list[Model]:
        """All versions: the default model's first, of each name the main version first."""
        return [
            model
            for name, main in self._main.items()
            for model in (main, *(m for m in self._versions[name].values() if m is not main))
        ]

    def find(
        self,
        name: str | None = None,
        version: str | None = None,
        routing_key: ItemId | None = None,
    ) -> Model:
        """The model of that name and version; by default the default model.

        Where versions share the requests that name none, the same `routing_key` always finds the
        same version as long as the shares stay. Without a key it is the one with the largest share.

        Raises:
            ModelNotFound: no such model.
            VersionNotFound: no such version of it.
            NotReady: no version of the model could be loaded.
        """
        name = self.default if name is None else name
        if (main := self._main.get(name)) is None:
            if name in self._broken:
                raise NotReady(f"model '{name}' cannot answer: {self._broken[name]}")
            raise ModelNotFound(f"no model '{name:.60}'; loaded: {', '.join(self._main)}")
        if version is not None:
            return self._version(name, version)
        if routing_key is None or len(self.shares[name]) == 1:
            return main
        return self._versions[name][_draw(self.shares[name], f"{name}:{routing_key}")]

    def _version(self, name: str, version: str) -> Model:
        found = self._versions[name].get(version)
        if found is None:
            loaded = ", ".join(self._versions[name])
            raise VersionNotFound(f"no version '{version:.60}' of '{name}'; loaded: {loaded}")
        return found


def _largest(shares: Shares) -> str:
    """The version with the largest share; of equal ones the oldest."""
    return min(shares, key=lambda version: (-shares[version], int(version)))


def _draw(shares: Shares, key: str) -> str:
    """The version of a key.

    The newest version takes the keys with the lowest hashes. So a larger share adds users to it,
    and takes none away.
    """
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    place = int.from_bytes(digest) / 2**64
    *others, oldest = sorted(shares, key=int, reverse=True)
    for version in others:
        place -= shares[version]
        if place < 0:
            return version
    return oldest
