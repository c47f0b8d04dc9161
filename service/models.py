"""A model that answers: an artifact with its item index, its engine and its queue."""

import asyncio
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.artifact import Artifact, GraphName, open_artifact
from service.batcher import Batcher
from service.catalogue import open_rows
from service.errors import InvalidRequest
from service.histories import ItemIndex, MappedHistory
from service.metrics import Tally
from service.session import NO_CANDIDATES, Engine, Outputs, Row
from service.settings import Settings


class Asked(NamedTuple):
    """A history to compute, whose rows may not have been found yet, and candidates to score."""

    history: MappedHistory
    candidates: "array[int]" = NO_CANDIDATES  # as rows of the item table


class Pending(NamedTuple):
    """An answer that waits for what the graphs say."""

    outputs: asyncio.Future[list[Outputs]]
    finish: Callable[[list[Outputs]], bytes]  # writes the response


@dataclass(frozen=True)
class Model:
    """An artifact whose checksums and golden pairs hold, warm and ready to compute."""

    artifact: Artifact
    index: ItemIndex
    item_embeddings: NDArray[np.float32]  # mapped, (n_items + 1, D)
    batcher: Batcher[GraphName, Asked, Outputs]
    deadline_s: float

    def require(self, graph: GraphName, purpose: str) -> None:
        """Checks that the artifact carries a graph.

        Raises:
            InvalidRequest: it does not; `purpose` says what the graph was wanted for.
        """
        if graph not in self.artifact.manifest.graphs:
            name = self.artifact.manifest.name
            raise InvalidRequest(f"model '{name}' carries no graph '{graph}' for {purpose}")

    def compute(self, graph: GraphName, asked: Sequence[Asked]) -> asyncio.Future[list[Outputs]]:
        """What `Engine.run` says of each history, in their order, or DeadlineExceeded.

        Finds the histories' rows on the way, together with those of other requests. Cancelling
        the future takes them out of the queue.

        Raises:
            Overloaded: the queue is full.
        """
        tokens = [1 + len(one.history.items) + len(one.candidates) for one in asked]  # 1: start
        return self.batcher.submit(graph, asked, tokens, deadline_s=self.deadline_s)

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

    def prepare(graph: GraphName, asked: Sequence[Asked]) -> Callable[[], list[Outputs]]:
        return engine.prepare(graph, [Row(one.history.rows, one.candidates) for one in asked])

    batcher = Batcher[GraphName, Asked, Outputs](
        prepare,
        admit=lambda asked: index.find_rows([one.history for one in asked]),
        max_batch_tokens=settings.max_batch_tokens,
        max_queue_tokens=settings.max_queue_tokens,
        on_run=tally.of_runs(artifact.manifest.name),
    )
    table = artifact.item_embeddings()
    return Model(artifact, index, table, batcher, settings.deadline_ms / 1000)
