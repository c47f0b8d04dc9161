"""Describes the evaluation protocol in one sentence, shown with every table of figures."""

from model.report.run_evaluation import RunEvaluation
from model.training.recipe import DataRecipe

SPLITS = {
    "leave_one_out": "leave-one-out: the newest click of each user is the target",
    "held_out_users": "held-out users: the newest click of each of {share:.0%} of the users is the "
    "target; they are not trained on",
    "time": "time split: trained before the newest {twice:.0%} of the clicks, {targets} of the "
    "newest {share:.0%}",
}
TARGETS = {"last": "the target is each user's last click", "all": "every click is a target"}


def protocol_text(evaluation: RunEvaluation) -> str:
    """The split, the cases, and the ranked items."""
    data = evaluation.recipe.data
    seen = "left out" if data.remove_seen else "ranked too"
    cases, items = evaluation.encoder.metrics.cases, evaluation.data.items
    return (
        f"{_split(data)}; {cases:,} cases; all {items:,} items ranked, those of the history "
        f"{seen}; ties count against the target; all scorers fitted on the same "
        f"{evaluation.training_clicks:,} clicks of {evaluation.training_users:,} users"
    )


def _split(data: DataRecipe) -> str:
    share = data.held_out_share
    return SPLITS[data.split].format(share=share, twice=2 * share, targets=TARGETS[data.targets])
