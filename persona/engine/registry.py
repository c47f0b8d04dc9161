"""The loaded models, by name and version."""

from collections.abc import Sequence

from persona.contract import ModelNotFound
from persona.engine.model import Model


class Registry:
    """Models by name and version. The first one is the default; of a name, the highest version."""

    def __init__(self, models: Sequence[Model]) -> None:
        self.models = list(models)  # the default first
        self._by_version = {(m.manifest.name, m.manifest.version): m for m in self.models}
        self._newest: dict[str, Model] = {}
        for model in sorted(self.models, key=lambda model: int(model.manifest.version)):
            self._newest[model.manifest.name] = model

    def find(self, name: str | None = None, version: str | None = None) -> Model:
        """The model of that name and version; by default the default model, its newest version.

        Raises:
            ModelNotFound: no such model, or no such version of it.
        """
        if name is None:
            name = self.models[0].manifest.name
        if (newest := self._newest.get(name)) is None:
            raise ModelNotFound(f"no model '{name:.60}'; loaded: {', '.join(self._newest)}")
        if version is None:
            return newest
        found = self._by_version.get((name, version))
        if found is None:
            loaded = ", ".join(own for other, own in self._by_version if other == name)
            error = ModelNotFound(f"no version '{version:.60}' of '{name}'; loaded: {loaded}")
            error.part = "version"
            raise error
        return found
