"""An evaluation as one HTML page, which needs no script, no other file and no network."""

import math
from functools import partial
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from model.evaluation.metrics import METRICS, Bucket
from model.report.charts import BASELINE, ENCODER, curve_chart, group_chart, interval_chart
from model.report.protocol import protocol_text
from model.report.run_evaluation import HEADLINE, KNN_ITEMS, Group, OtherRun, RunEvaluation

SHOWN = [name for name in METRICS if name not in {"NDCG@1", "MRR@1"}]  # those equal HR@1
COMPARED = ["HR@1", "HR@10", "NDCG@10", "MRR@10"]
DRAWN = ["NDCG@10", "HR@10"]


def html_report(evaluation: RunEvaluation) -> str:
    """The page, for `report.html`."""
    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=folder,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["finite"] = math.isfinite
    best = evaluation.best_baseline
    page = environment.get_template("report.html.jinja").render(
        evaluation=evaluation,
        best=best,
        headline=HEADLINE,
        knn_items=KNN_ITEMS,
        protocol=protocol_text(evaluation),
        shown=SHOWN,
        compared=COMPARED,
        drawn=DRAWN,
        bucket_name=bucket_name,
        scorer_chart=partial(scorer_chart, evaluation),
        groups_chart=partial(groups_chart, best.evaluation.name),
        difference_chart=difference_chart,
        curve_chart=curve_chart,
    )
    return page.lstrip()


def scorer_chart(evaluation: RunEvaluation, metric: str) -> str:
    """One metric of every scorer."""
    rows = [(scorer.name, scorer.metrics.estimates[metric]) for scorer in evaluation.scorers]
    return interval_chart(rows, [BASELINE] * (len(rows) - 1) + [ENCODER])


def difference_chart(other: OtherRun) -> str:
    """The encoder's advantage over that of another run, in every metric."""
    rows = [(metric, other.encoder.advantage[metric].difference) for metric in SHOWN]
    return interval_chart(rows, [ENCODER] * len(rows), "{:+.4f}")


def groups_chart(baseline: str, groups: list[Group], metric: str) -> str:
    """One metric of the encoder and the best baseline by group."""
    encoder = [group.encoder.metrics.estimates[metric] for group in groups]
    other = [group.baseline.metrics.estimates[metric] for group in groups]
    names = [short_bucket_name(group.encoder) for group in groups]
    return group_chart(names, [("encoder", ENCODER, encoder), (baseline, BASELINE, other)])


def bucket_name(bucket: Bucket) -> str:
    """The values of a bucket: "3 to 5", "1,000 and more"."""
    if bucket.high is None:
        return f"{bucket.low:,} and more"
    return f"{bucket.low:,}" + (f" to {bucket.high - 1:,}" if bucket.high > bucket.low + 1 else "")


def short_bucket_name(bucket: Bucket) -> str:
    """The values of a bucket for a chart: "3-5", "≥ 1k", "10k-100k"."""
    if bucket.high is None:
        return f"≥ {_thousands(bucket.low)}"
    if bucket.high == bucket.low + 1:
        return str(bucket.low)
    return f"{_thousands(bucket.low)}-{_thousands(bucket.high - (bucket.high < 1000))}"


def _thousands(number: int) -> str:
    """10000 as "10k"."""
    return f"{number // 1000}k" if number >= 1000 else str(number)
