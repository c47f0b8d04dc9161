"""An evaluation as plain JSON values, for `evaluation.json`."""

import math
from dataclasses import asdict

from model.evaluation.metrics import Comparison, Estimate
from model.report.protocol import protocol_text
from model.report.run_evaluation import Group, Json, RunEvaluation


def as_json(evaluation: RunEvaluation) -> Json:
    """The evaluation as JSON values; an artifact carries `protocol` to `scorers`."""
    scorers = evaluation.scorers
    facts: Json = {
        "protocol": evaluation.recipe.data.split,
        "seen_items_removed": evaluation.recipe.data.remove_seen,
        "cases": evaluation.encoder.metrics.cases,
        "scorers": {
            scorer.name: {name: found.mean for name, found in scorer.metrics.estimates.items()}
            for scorer in scorers
        },
        "intervals": {scorer.name: _estimates(scorer.metrics.estimates) for scorer in scorers},
        "encoder_minus": {
            other.evaluation.name: _comparisons(other.advantage)
            for other in (*evaluation.baselines, *evaluation.served)
        },
        "best_baseline": evaluation.best_baseline.evaluation.name,
        "protocol_text": protocol_text(evaluation),
        "apart": {
            kind.name: {
                "cases": kind.cases,
                "scorers": {name: _estimates(m.estimates) for name, m in kind.metrics.items()},
            }
            for kind in evaluation.apart
        },
        "by_history_length": _groups(evaluation, evaluation.by_history_length),
        "by_target_clicks": _groups(evaluation, evaluation.by_target_clicks),
        "coverage": {scorer.name: scorer.coverage for scorer in scorers},
        "data": asdict(evaluation.data),
        "training": evaluation.training,
        "curves": {
            name: {epoch: _number(value) for epoch, value in curve.items()}
            for name, curve in evaluation.curves.items()
        },
        "recipe": evaluation.recipe.model_dump(mode="json"),
    }
    if (against := evaluation.against) is not None:
        facts["against"] = {
            "run": against.folder,
            "recipe": against.recipe.model_dump(mode="json"),
            "intervals": _estimates(against.encoder.evaluation.metrics.estimates),
            "encoder_minus": _comparisons(against.encoder.advantage),
            "coverage": against.encoder.evaluation.coverage,
        }
    return facts


def _groups(evaluation: RunEvaluation, groups: list[Group]) -> list[Json]:
    return [
        {
            "from": group.encoder.low,
            "below": group.encoder.high,
            "cases": group.encoder.metrics.cases,
            "encoder": _estimates(group.encoder.metrics.estimates),
            evaluation.best_baseline.evaluation.name: _estimates(group.baseline.metrics.estimates),
        }
        for group in groups
    ]


def _comparisons(advantage: dict[str, Comparison]) -> Json:
    return {
        name: _estimate(found.difference) | {"p_value": _number(found.p_value)}
        for name, found in advantage.items()
    }


def _estimates(estimates: dict[str, Estimate]) -> Json:
    return {name: _estimate(found) for name, found in estimates.items()}


def _estimate(found: Estimate) -> Json:
    return {name: _number(value) for name, value in asdict(found).items()}


def _number(value: float) -> float | None:
    """JSON has no NaN, the spread of a single case."""
    return None if math.isnan(value) else value
