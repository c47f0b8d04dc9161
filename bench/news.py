"""The shipped `news` artifact, through ONNX Runtime, against the baselines on held-out visitors."""

from array import array
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from bench.results import record
from model.clicks.histories import Histories, encoder_inputs
from model.evaluation.baselines import Markov, Popularity, RepeatLast
from model.evaluation.metrics import Scorer, evaluate_scorer, log_losses
from model.training.recipe import Recipe
from model.training.run import load_data, split
from persona.artifact import Artifact, open_artifact
from persona.contract import ITEM_ID, TIME
from persona.engine.session import Input, Session

COMMAND = "python -m bench news"


class ArtifactScorer:
    """Next-click scores from the served embedding and the artifact's item table."""

    def __init__(self, artifact: Artifact, *, probabilities: bool = False) -> None:
        self.name = artifact.manifest.name
        self._session = Session(artifact)
        self._max_length = artifact.manifest.architecture.max_length
        self._items = np.asarray(artifact.item_embeddings()[:-1])
        self._probabilities = probabilities
        self._timed = artifact.manifest.architecture.time != "none"

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """Scores (B, n_items)."""
        outputs = self._session.run("embedding", self._inputs(histories))
        embeddings = np.stack([output["user_embedding"] for output in outputs])  # (B, D)
        logits: NDArray[np.float32] = embeddings @ self._items.T
        if not self._probabilities:
            return logits
        powers = np.exp(logits - logits.max(1, keepdims=True))
        probabilities: NDArray[np.float32] = powers / powers.sum(1, keepdims=True)
        return probabilities

    def _inputs(self, histories: Histories) -> list[Input]:
        found = encoder_inputs(histories, self._max_length, timed=self._timed)
        lengths = found[1].sum(1).tolist()
        columns = dict(zip((ITEM_ID, TIME), (found[0], *found[2:3]), strict=False))
        asked = found[3].tolist() if len(found) > 3 else [0] * len(lengths)
        return [
            Input(
                {name: array("q", rows[at, :length].tolist()) for name, rows in columns.items()},
                length,
                now,
            )
            for at, (length, now) in enumerate(zip(lengths, asked, strict=True))
        ]


def news(
    data: Annotated[Path, typer.Option(help="The MSNBC clicks.")] = Path(
        "../shared/data/msnbc990928.seq"
    ),
    artifact: Annotated[Path, typer.Option(help="The artifact.")] = Path("artifacts/news/1"),
) -> None:
    """Rank every section for every held-out visitor's newest click."""
    opened = open_artifact(artifact)
    recipe = Recipe.model_validate(opened.manifest.training["recipe"])
    histories, fact = load_data(recipe, data)
    if fact.sha256 != opened.manifest.training["sha256"]:
        raise typer.BadParameter(f"{data} is not the file that {artifact} was trained on")
    parts = split(histories, recipe.data)
    markov = Markov(2).fit(parts.train)
    scorers: dict[str, Scorer] = {
        "popularity": Popularity().fit(parts.train),
        "repeat_last": RepeatLast().fit(parts.train),
        "markov": Markov(1).fit(parts.train),
        "markov2": markov,
        "": ArtifactScorer(opened),
    }
    for name, scorer in scorers.items():
        metrics = evaluate_scorer(scorer, parts.test, remove_seen=False).metrics
        for figure, metric in (("ndcg5", "NDCG@5"), ("hr1", "HR@1")):
            full = "_".join(part for part in ("news", figure, name) if part)
            typer.echo(f"{full} {metrics[metric]:.4f}")
            record(full, round(metrics[metric], 5), None, COMMAND)
    losses: dict[str, Scorer] = {
        "msnbc_logloss": ArtifactScorer(opened, probabilities=True),
        "msnbc_logloss_markov2": markov,
    }
    for name, scorer in losses.items():
        loss = float(log_losses(scorer, parts.test).mean())
        typer.echo(f"{name} {loss:.4f} nats")
        record(name, round(loss, 5), None, COMMAND)
