"""The encoder beside the baselines, on the test cases of a run."""

from pathlib import Path

from model.baselines import Markov, Popularity, RepeatLast
from model.histories import Split
from model.metrics import Comparison, Evaluation, Scorer, compare, evaluate_scorer
from model.recipe import Recipe
from model.run import read_item_ids
from model.scorer import EncoderScorer
from model.train import load_encoder


def evaluate_run(run: Path, recipe: Recipe, split: Split) -> list[Evaluation]:
    """Evaluates popularity, repeat-last, Markov chains and the run's encoder, in that order."""
    encoder = load_encoder(recipe.encoder, len(read_item_ids(run)), run)
    scorers: list[Scorer] = [
        Popularity().fit(split.train),
        RepeatLast().fit(split.train),
        Markov(1).fit(split.train),
        Markov(2).fit(split.train),
        EncoderScorer(encoder),
    ]
    return [evaluate_scorer(scorer, split.test, recipe.data.remove_seen) for scorer in scorers]


def margins(evaluations: list[Evaluation], metric: str, k: int) -> dict[str, Comparison]:
    """How far the last scorer is ahead of each of the others, paired by case."""
    *others, encoder = evaluations
    return {other.name: compare(encoder.ranks, other.ranks, metric, k) for other in others}


def figures(evaluations: list[Evaluation]) -> dict[str, dict[str, float]]:
    """Plain means by scorer and metric, as the artifact's manifest carries them."""
    return {
        evaluation.name: {
            name: estimate.mean for name, estimate in evaluation.metrics.estimates.items()
        }
        for evaluation in evaluations
    }
