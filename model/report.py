"""An evaluation as one HTML page, which needs no script, no other file and no network."""

from collections.abc import Sequence
from html import escape
from string import Template

from model.charts import bucket_chart, interval_chart, line_chart
from model.evaluate import HEADLINE, KNN_ITEMS, Group, RunEvaluation
from model.page import (
    FRAME,
    bucket_name,
    compared,
    figures,
    measured,
    p_value,
    paragraph,
    section,
    short_bucket_name,
    table,
    terms,
)

SHOWN = (
    *("HR@1", "HR@5", "HR@10", "HR@20"),
    *("NDCG@5", "NDCG@10", "NDCG@20"),
    *("MRR@5", "MRR@10", "MRR@20"),
)
COMPARED = ("HR@1", "HR@10", "NDCG@10", "MRR@10")
DRAWN = ("NDCG@10", "HR@10")
SPLITS = {
    "leave_one_out": "the newest click of each user with three or more is the test; the one "
    "before it is for validation, and part of the history at test time",
    "held_out_users": "{share:g} % of the users are the test, never trained on and asked for "
    "their newest click; as many are for validation",
}
# Facts of training.json: what each is called and how it is written. Absent ones leave no row.
TRAINING = {
    "epochs": ("epochs", "{:,}"),
    "best_epoch": ("epoch that was kept", "{:,}"),
    "best": ("its validation {monitor}", "{:.4f}"),
    "seconds": ("seconds", "{:,.0f}"),
    "training_clicks": ("clicks an epoch", "{:,}"),
    "clicks_per_second": ("clicks a second", "{:,.0f}"),
    "peak_memory_megabytes": ("peak memory", "{:,.0f} MB"),
    "parameters": ("parameters", "{:,}"),
    "device": ("device", "{}"),
    "precision": ("precision", "{}"),
}


def html_report(evaluation: RunEvaluation) -> str:
    """The page, for `report.html`."""
    sections = (
        verdict(evaluation),
        section("What was evaluated", terms(what(evaluation))),
        quality(evaluation),
        ahead(evaluation),
        against(evaluation),
        by_history_length(evaluation),
        by_target_clicks(evaluation),
        coverage(evaluation),
        learning_curves(evaluation),
        training(evaluation),
        recipe(evaluation),
    )
    title = f"{evaluation.recipe.name}: evaluation"
    return Template(FRAME).substitute(
        title=escape(title), body="\n".join(part for part in sections if part)
    )


def verdict(evaluation: RunEvaluation) -> str:
    """The result in two sentences."""
    best = evaluation.best_baseline
    own, paired = evaluation.encoder.metrics.estimates[HEADLINE], best.ahead[HEADLINE]
    difference = paired.difference
    side = "above" if difference.mean >= 0 else "below"
    return (
        f'{paragraph(evaluation.recipe.description)}<p class="verdict">'
        f"<strong>{HEADLINE} {own.mean:.4f}</strong> (95 % {own.low:.4f} to {own.high:.4f}) on "
        f"{evaluation.encoder.metrics.cases:,} test cases, {abs(difference.mean):.4f} {side} "
        f"{escape(best.evaluation.name)}, the best baseline (difference 95 % {difference.low:+.4f} "
        f"to {difference.high:+.4f}, p {escape(p_value(paired))}).</p>"
    )


def what(evaluation: RunEvaluation) -> dict[str, str]:
    """Recipe, data and protocol."""
    data, chosen = evaluation.data, evaluation.recipe.data
    seen = "leave the ranking" if chosen.remove_seen else "stay in the ranking"
    facts = {
        "run": evaluation.folder,
        "recipe": evaluation.recipe.name,
        "data": chosen.name,
        "credit": chosen.source,
        "licence": chosen.licence,
        "file": f"{data.file}, sha256 {data.sha256}",
        "content": f"{data.users:,} users, {data.items:,} items, {data.clicks:,} clicks; "
        f"{data.broken_rows:,} broken rows left out",
        "learned from": f"{evaluation.training_users:,} users, {evaluation.training_clicks:,} "
        "clicks, the baselines too",
        "split": SPLITS[chosen.split].format(share=100 * chosen.held_out_share),
        "test cases": f"{evaluation.encoder.metrics.cases:,}, one a user",
        "ranking": f"every item; items of the history {seen}; ties count against the target",
    }
    return {name: value for name, value in facts.items() if value}


def quality(evaluation: RunEvaluation) -> str:
    """All scorers in all metrics."""
    scorers = evaluation.scorers
    styles = ["encoder" if scorer is evaluation.encoder else "baseline" for scorer in scorers]
    charts = {
        metric: interval_chart(
            f"{metric} by scorer",
            [(scorer.name, scorer.metrics.estimates[metric]) for scorer in scorers],
            styles,
        )
        for metric in DRAWN
    }
    best = {metric: max(scorer.metrics[metric] for scorer in scorers) for metric in SHOWN}
    rows = {
        scorer.name: [
            measured(scorer.metrics.estimates[metric], best=scorer.metrics[metric] == best[metric])
            for metric in SHOWN
        ]
        for scorer in scorers
    }
    note = "Means over users; ± is half the 95 % confidence interval. The best are bold."
    if evaluation.data.items > KNN_ITEMS:
        note += f" item-knn is left out: its memory suits {KNN_ITEMS:,} items at most."
    return section(
        "Quality", paragraph(note), figures(charts), table(["", *SHOWN], rows, own="encoder")
    )


def ahead(evaluation: RunEvaluation) -> str:
    """Paired differences to the baselines."""
    rows = {
        other.evaluation.name: [compared(other.ahead[metric]) for metric in COMPARED]
        for other in evaluation.baselines
    }
    note = (
        "The encoder less each baseline, paired by user, with 95 % confidence intervals. p is the "
        "chance of a difference at least as large, in either direction, if there were none."
    )
    return section("Paired with the baselines", paragraph(note), table(["", *COMPARED], rows))


def against(evaluation: RunEvaluation) -> str:
    """This run less the other one, if there is one."""
    other = evaluation.against
    if other is None:
        return ""
    differences = [(metric, other.beside.ahead[metric].difference) for metric in SHOWN]
    caption = "difference; to the right of zero this run is better"
    chart = interval_chart(caption, differences, ["encoder"] * len(SHOWN), "{:+.4f}")
    own, theirs = evaluation.encoder.metrics, other.beside.evaluation.metrics
    rows = {
        metric: [
            measured(own.estimates[metric]),
            measured(theirs.estimates[metric]),
            compared(other.beside.ahead[metric]),
        ]
        for metric in SHOWN
    }
    note = (
        f"{evaluation.folder} less {other.folder} (recipe {other.recipe.name}), paired by user on "
        "the same test cases."
    )
    return section(
        "Against another run",
        paragraph(note),
        figures({caption: chart}),
        table(["", "this run", "the other", "difference"], rows),
    )


def by_history_length(evaluation: RunEvaluation) -> str:
    """Short histories beside long ones."""
    note = "By the clicks before the target. Intervals of small groups may leave the picture."
    return grouped(evaluation, "By history length", note, evaluation.by_history_length)


def by_target_clicks(evaluation: RunEvaluation) -> str:
    """Rare targets beside popular ones."""
    note = "By the clicks in training on the item that came next."
    return grouped(evaluation, "By item popularity", note, evaluation.by_target_clicks)


def grouped(evaluation: RunEvaluation, title: str, note: str, groups: Sequence[Group]) -> str:
    """Encoder and best baseline by some count of the cases."""
    best = evaluation.best_baseline.evaluation.name
    buckets = [(group.encoder, group.baseline) for group in groups]
    charts = {}
    for metric in DRAWN:
        own = [group.encoder.metrics.estimates[metric] for group in groups]
        theirs = [group.baseline.metrics.estimates[metric] for group in groups]
        charts[metric] = bucket_chart(
            f"{metric}, {title.lower()}",
            [short_bucket_name(group.encoder) for group in groups],
            [("encoder", "encoder", own), (best, "baseline", theirs)],
        )
    rows = {
        bucket_name(both[0]): [
            f"{both[0].metrics.cases:,}",
            *(measured(one.metrics.estimates[metric]) for metric in DRAWN for one in both),
        ]
        for both in buckets
    }
    heads = [f"{metric}, {name}" for metric in DRAWN for name in ("encoder", best)]
    return section(
        title, paragraph(note), figures(charts), table(["clicks", "cases", *heads], rows)
    )


def coverage(evaluation: RunEvaluation) -> str:
    """How much of the catalogue anyone is offered."""
    rows = {
        scorer.name: [f"{100 * share:.1f} %" for share in scorer.coverage.values()]
        for scorer in evaluation.scorers
    }
    heads = [f"first {k}" for k in evaluation.encoder.coverage]
    note = "Share of the catalogue that is among the first items of at least one test case."
    return section("Coverage", paragraph(note), table(["", *heads], rows, own="encoder"))


def learning_curves(evaluation: RunEvaluation) -> str:
    """Loss and monitor by epoch."""
    kept = evaluation.training.get("best_epoch")
    charts = {
        f"{'training' if name == 'loss' else 'validation'} {name}": line_chart(
            f"{name} by epoch", curve, kept if isinstance(kept, int) else None
        )
        for name, curve in evaluation.curves.items()
        if curve
    }
    note = paragraph("The ring marks the epoch that was kept.") if kept else ""
    return section("Learning curves", note, figures(charts)) if charts else ""


def training(evaluation: RunEvaluation) -> str:
    """What training took, as far as the run knows."""
    known = evaluation.training
    facts = {
        label.format(monitor=known.get("monitor")): form.format(known[name])
        for name, (label, form) in TRAINING.items()
        if name in known
    }
    return section("Training", terms(facts)) if facts else ""


def recipe(evaluation: RunEvaluation) -> str:
    """Every choice of the run, folded away."""
    text = escape(evaluation.recipe.model_dump_json(indent=2))
    return section("Recipe", f"<details><summary>Every choice</summary><pre>{text}</pre></details>")
