"""Scores with an engine of this process."""

from pathlib import Path

from persona.artifact import find_artifacts
from persona.contract import ModelNotFound
from persona.engine import Engine
from persona.engine.batcher import RunStats
from persona.engine.session import flush_subnormals
from persona.scoring.encoding import score_part
from persona.scoring.errors import InternalError
from persona.scoring.parts import Part
from persona.scoring.scorer import Answer, Histories, ModelFacts, Plan, ScoredPart, ask, item_type


class EngineScorer:
    """Scores parts in the calling thread, which has to be the one that made it."""

    # Enough for full runs of short histories too; a refused history has all others read again.
    batch_rows, batch_clicks = 1024, 60_000

    def __init__(self, folder: Path | str, plan: Plan) -> None:
        """Opens the plan's model.

        Raises:
            ArtifactError: there is no artifact in the folder, or it is broken.
            ModelNotFound: the folder has no such model, or another version of it.
        """
        self._plan = plan
        self.tokens = self.computed_tokens = 0
        flush_subnormals()
        path = _chosen(Path(folder), plan.model)
        self._engine = Engine.open(path, on_run=self._count, attention=False)
        model = self._engine.registry.find(plan.model, plan.version)
        manifest = model.manifest
        self.facts = ModelFacts(
            manifest.name,
            manifest.version,
            model.artifact.checksum,
            manifest.architecture.width,
            item_type(self.answer([[]])),
            reads_time=manifest.architecture.time != "none",
            columns={name: column.kind for name, column in manifest.columns.items()},
        )

    def score(self, part: Part) -> ScoredPart | Exception:
        """The scored part, or why it cannot be scored."""
        try:
            return score_part(self, self._plan, self.facts, part)
        except Exception as error:  # noqa: BLE001  # the border of a process; the caller raises it
            return InternalError.of(error)

    def answer(self, histories: Histories) -> Answer:
        """As in `Asked`."""
        return ask(self._engine, self._plan, histories)

    def _count(self, _model: str, _version: str, stats: RunStats) -> None:
        self.tokens += stats.tokens
        self.computed_tokens += stats.computed_tokens


def _chosen(folder: Path, model: str | None) -> Path:
    """The artifact of that model, or of the default model: no other needs to be opened."""
    found = find_artifacts(folder)
    for path in found:
        if model in (None, path.parent.name):
            return path
    names = ", ".join(path.parent.name for path in found)
    raise ModelNotFound(f"{folder}: no model '{model}' here, only {names}")
