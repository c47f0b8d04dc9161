"""`persona evaluate`: the report of a trained run, its JSON, and two runs side by side."""

import json
import math
import re
import shutil
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from export.run import carried_metrics
from model.errors import DataError, RecipeError
from model.evaluation.metrics import Bucket, Metrics, compare
from model.network.config import EncoderConfig
from model.report.evaluation_json import as_json
from model.report.page import bucket_name, html_report, short_bucket_name
from model.report.run_evaluation import BREAKDOWN_KS, Group, RunEvaluation, evaluate_run
from model.training.recipe import DataRecipe, Recipe, TrainingRecipe
from model.training.run import TRAINING, begin, load_data, split, write_json
from model.training.train import train_encoder
from persona.cli.app import app
from tests.small import write_walks

BASELINES = ["popularity", "repeat-last", "markov-1", "markov-2", "item-knn"]


def train(
    folder: Path, data: Path, *, seed: int, remove_seen: bool = False, blocks: int = 1
) -> Path:
    """A small run on the walks, as `persona train` makes it."""
    recipe = Recipe(
        name="walk",
        description="Steps <of> one & more.",
        data=DataRecipe(path=str(data), format="sasrec", remove_seen=remove_seen),
        encoder=EncoderConfig(width=8, blocks=blocks, max_length=6),
        training=TrainingRecipe(epochs=2, warmup_steps=2, max_batch=32, seed=seed),
    )
    histories, fact = load_data(recipe, None)
    begin(folder, recipe, histories, fact)
    result = train_encoder(recipe, split(histories, recipe.data), folder, progress=False)
    write_json(folder / TRAINING, asdict(result))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `a` and `b`, which differ in their seeds, and their data."""
    root = tmp_path_factory.mktemp("runs")
    data = write_walks(root / "walks.txt")
    for seed, name in enumerate("ab"):
        train(root / name, data, seed=seed)
    return root


def evaluated(run: Path, against: Path | None = None) -> RunEvaluation:
    recipe = Recipe.model_validate_json((run / "recipe.json").read_text())
    histories, fact = load_data(recipe, None)
    return evaluate_run(run, fact, split(histories, recipe.data), against)


@pytest.fixture(scope="module")
def evaluation(runs: Path) -> RunEvaluation:
    return evaluated(runs / "a", runs / "b")


@pytest.fixture(scope="module")
def html(evaluation: RunEvaluation) -> str:
    return html_report(evaluation)


@pytest.fixture(scope="module")
def facts(evaluation: RunEvaluation) -> dict[str, Any]:
    text = json.dumps(as_json(evaluation), allow_nan=False)
    return dict(json.loads(text))


class Page(HTMLParser):
    """Headings, tags and addresses of a page; refuses tags that are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.headings: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = {"src", "href", "xlink:href"}
        self.addresses += [value or "" for name, value in attrs if name in names]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["h2"]:
            self.headings.append(data)


def test_the_command_writes_page_and_figures_into_the_run(runs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(runs / "a", tmp_path / "run")
    done = CliRunner().invoke(app, ["evaluate", f"{run}", "--against", f"{runs / 'b'}"])
    assert done.exit_code == 0, done.output
    assert "NDCG@10 over item-knn" in done.output
    page = Page((run / "report.html").read_text())
    assert page.tags.count("svg") == 9
    facts = json.loads((run / "evaluation.json").read_text())
    assert list(facts["scorers"]) == [*BASELINES, "encoder"]


def test_the_page_has_every_section_and_needs_nothing_else(html: str) -> None:
    page = Page(html)
    assert page.headings == [
        "What was evaluated",
        "Quality",
        "Differences from the baselines",
        "Against another run",
        "By history length",
        "By item popularity",
        "Coverage",
        "Learning curves",
        "Training",
        "Recipe",
    ]
    assert all(address.startswith("#") for address in page.addresses)
    assert not {"script", "link", "img"} & set(page.tags)


def test_text_of_the_recipe_is_escaped(html: str) -> None:
    assert "Steps &lt;of&gt; one &amp; more." in html
    assert "<of>" not in html


def test_the_same_evaluation_gives_the_same_page(evaluation: RunEvaluation, html: str) -> None:
    assert html_report(evaluation) == html


def test_the_charts_name_every_scorer_and_metric(html: str) -> None:
    texts = set(re.findall(r"<text[^>]*>([^<]*)</text>", html))
    assert {*BASELINES, "encoder", "HR@1", "MRR@20", "epoch"} <= texts


def test_the_page_lists_every_epoch(evaluation: RunEvaluation, html: str) -> None:
    for epoch, loss in evaluation.curves["loss"].items():
        row = rf'<th scope="row">{epoch}</th>\s*<td>{loss:.4f}</td>'
        assert re.search(row, html)


def test_means_and_intervals_agree(facts: dict[str, Any]) -> None:
    for scorer, metrics in facts["intervals"].items():
        for name, found in metrics.items():
            assert found["mean"] == facts["scorers"][scorer][name]
            assert found["low"] <= found["mean"] <= found["high"]


def test_groups_hold_every_case_once(facts: dict[str, Any]) -> None:
    for name in ("by_history_length", "by_target_clicks"):
        groups = facts[name]
        assert sum(group["cases"] for group in groups) == facts["cases"]
        hits = sum(group["cases"] * group["encoder"]["HR@10"]["mean"] for group in groups)
        assert hits == pytest.approx(facts["cases"] * facts["scorers"]["encoder"]["HR@10"])


def test_the_best_baseline_is_beside_the_encoder(facts: dict[str, Any]) -> None:
    best = max(BASELINES, key=lambda name: facts["scorers"][name]["NDCG@10"])
    assert facts["best_baseline"] == best
    assert all(best in group for group in facts["by_history_length"])


def test_two_runs_are_paired_case_by_case(runs: Path, facts: dict[str, Any]) -> None:
    first, second = evaluated(runs / "a").encoder, evaluated(runs / "b").encoder
    expected = compare(first.ranks, second.ranks, "MRR", 5)
    found = facts["against"]["encoder_minus"]["MRR@5"]
    assert found["mean"] == pytest.approx(expected.difference.mean)
    assert found["p_value"] == pytest.approx(expected.p_value)


def test_a_run_does_not_differ_from_itself(runs: Path) -> None:
    against = evaluated(runs / "a", runs / "a").against
    assert against is not None
    assert {found.p_value for found in against.encoder.advantage.values()} == {1.0}


def test_without_another_run_the_page_has_no_such_section(runs: Path) -> None:
    alone = evaluated(runs / "a")
    assert "against" not in as_json(alone)
    assert "Against" not in html_report(alone)


def test_training_facts_are_shown_as_far_as_they_are_known(runs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(runs / "a", tmp_path / "run")
    write_json(run / TRAINING, {"clicks_per_second": 54321.0, "peak_memory_megabytes": 987.6})
    html = html_report(evaluated(run))
    assert "<dt>clicks per second</dt><dd>54,321</dd>" in html
    assert "<dt>peak memory</dt><dd>988 MB</dd>" in html
    (run / TRAINING).unlink()
    assert "peak memory" not in html_report(evaluated(run))


def test_a_figure_that_could_not_be_measured_is_left_out(runs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(runs / "a", tmp_path / "run")
    write_json(run / TRAINING, {"epochs": 2, "clicks_per_second": math.nan})
    evaluation = evaluated(run)
    assert as_json(evaluation)["training"] == {"epochs": 2}
    assert "clicks per second" not in html_report(evaluation)


def test_runs_of_different_protocol_are_not_compared(runs: Path, tmp_path: Path) -> None:
    other = train(tmp_path / "other", runs / "walks.txt", seed=0, remove_seen=True)
    with pytest.raises(RecipeError, match="remove_seen is True there and False here"):
        evaluated(runs / "a", other)


def test_runs_of_different_data_are_not_compared(runs: Path, tmp_path: Path) -> None:
    data = tmp_path / "walks.txt"
    data.write_text((runs / "walks.txt").read_text() + "1 1\n")
    other = train(tmp_path / "other", data, seed=0)
    with pytest.raises(RecipeError, match="the data's sha256 is"):
        evaluated(runs / "a", other)


def test_data_that_the_run_was_not_trained_on_is_refused(runs: Path, tmp_path: Path) -> None:
    data = tmp_path / "more.txt"
    data.write_text((runs / "walks.txt").read_text() + "1 1\n")
    recipe = Recipe.model_validate_json((runs / "a" / "recipe.json").read_text())
    histories, fact = load_data(recipe, data)
    with pytest.raises(RecipeError, match=r"trained on walks\.txt .*, not on more\.txt"):
        evaluate_run(runs / "a", fact, split(histories, recipe.data))


def test_a_run_without_a_checkpoint_says_so(runs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(runs / "a", tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(RecipeError, match="no checkpoint yet"):
        evaluated(run)


def test_an_unknown_metric_is_refused_before_anything_is_ranked(runs: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", f"{runs / 'a'}", "--metrics", "HR@3"])
    assert done.exit_code == 2
    assert "HR@3" in done.output


def test_an_artifact_carries_the_means_alone(evaluation: RunEvaluation, tmp_path: Path) -> None:
    write_json(tmp_path / "evaluation.json", as_json(evaluation))
    names = ["protocol", "seen_items_removed", "cases", "scorers"]
    assert list(carried_metrics(tmp_path)) == names


def test_data_without_a_test_case_is_refused(runs: Path) -> None:
    recipe = Recipe.model_validate_json((runs / "a" / "recipe.json").read_text())
    histories, fact = load_data(recipe, None)
    nobody = split(histories.without_newest(99), recipe.data)
    with pytest.raises(DataError, match=r"walks\.txt has no test cases under split leave_one_out"):
        evaluate_run(runs / "a", fact, nobody)


def test_a_single_case_has_a_mean_and_no_interval(evaluation: RunEvaluation) -> None:
    bucket = Bucket(1, 2, Metrics.of(np.array([1]), BREAKDOWN_KS))
    alone = replace(evaluation, by_history_length=[Group(bucket, bucket)])
    html = html_report(alone)
    assert "<td>1</td>\n<td>1.0000</td>" in html
    assert not re.search(r"\bnan\b", html)


@pytest.mark.parametrize(
    ("low", "high", "name", "short"),
    [
        (1, 2, "1", "1"),
        (3, 6, "3 to 5", "3-5"),
        (100, 1000, "100 to 999", "100-1k"),
        (10_000, 100_000, "10,000 to 99,999", "10k-100k"),
        (201, None, "201 and more", "≥ 201"),
    ],
    ids=str,
)
def test_buckets_are_named_by_their_values(
    low: int, high: int | None, name: str, short: str
) -> None:
    bucket = Bucket(low, high, Metrics(0, {}))
    assert (bucket_name(bucket), short_bucket_name(bucket)) == (name, short)
