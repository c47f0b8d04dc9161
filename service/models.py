"""A model that answers: an artifact with its item index, its engine and its queue."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.artifact import Artifact, GraphName, open_artifact
from service.batcher import Batcher
from service.catalogue import open_rows
from service.disconnect import Receive, unless_gone
from service.errors import InvalidRequest
from service.histories import ItemIndex
from service.metrics import Tally
from service.session import Engine, Outputs, Row
from service.settings import Settings


@dataclass(frozen=True)
class Model:
    """An artifact whose checksums and golden pairs hold, warm and ready to compute."""

    artifact: Artifact
    index: ItemIndex
    item_embeddings: NDArray[np.float32]  # mapped, (n_items + 1, D)
    batcher: Batcher[GraphName, Row, Outputs]
    deadline_s: float

    def require(self, graph: GraphName, purpose: str) -> None:
        """Checks that the artifact carries a graph.

        Raises:
            InvalidRequest: it does not; `purpose` says what the graph was wanted for.
        """
        if graph not in self.artifact.manifest.graphs:
            name = self.artifact.manifest.name
            raise InvalidRequest(f"model '{name}' carries no graph '{graph}' for {purpose}")

    async def compute(
        self, graph: GraphName, rows: Sequence[Row], receive: Receive
    ) -> list[Outputs]:
        """What `Engine.run` says of each row, in their order, unless the client goes first.

        Raises:
            ClientGone, DeadlineExceeded, Overloaded: there is no result.
        """
        tokens = [1 + len(row.history) + len(row.candidates) for row in rows]  # 1: start token
        future = self.batcher.submit(graph, rows, tokens, deadline_s=self.deadline_s)
        return await unless_gone(receive, future, self.batcher.timeouts)

    def answer(self, users: list[dict[str, Any]]) -> dict[str, Any]:
        """The response around the users' results."""
        manifest = self.artifact.manifest
        return {"model": manifest.name, "version": manifest.version, "users": users}


def load(folder: Path, settings: Settings, tally: Tally) -> Model:
    """Opens an artifact, proves it against its golden pairs, and warms it up.

    Raises:
        ArtifactError: the artifact is broken; the message names the file.
    """
    artifact = open_artifact(folder)
    index = ItemIndex(open_rows(artifact), artifact.manifest.architecture.max_length)
    engine = Engine(artifact)
    engine.prove(index)
    engine.warm_up(settings.max_batch_tokens)
    batcher = Batcher[GraphName, Row, Outputs](
        engine.prepare,
        max_batch_tokens=settings.max_batch_tokens,
        max_queue_tokens=settings.max_queue_tokens,
        on_run=tally.of_runs(artifact.manifest.name),
    )
    table = artifact.item_embeddings()
    return Model(artifact, index, table, batcher, settings.deadline_ms / 1000)
