"""The gain from time on MovieLens-100K, and its cost in the served encoder."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Literal

import numpy as np
import onnxruntime
import torch
import typer
from numpy.typing import NDArray

from bench.quality import DATA, RECIPES
from bench.report import machine, table
from bench.results import record, record_table
from bench.trained import mean, paired, seeded, trained
from export.graphs import export_graphs
from model.evaluation.metrics import Evaluation
from model.network.config import EncoderConfig
from model.network.encoder import UserEncoder
from model.network.time import TIME_KINDS, TimeKind
from model.training.recipe import Recipe

PAGE = Path(__file__).parents[1] / "docs" / "experiments.md"
N_ITEMS = 1682
SplitKind = Literal["leave_one_out", "time"]
FIGURES: dict[SplitKind, str] = {"leave_one_out": "ml100k", "time": "ml100k_time_split"}
TABLES: dict[SplitKind, str] = {
    "leave_one_out": "encoder_times",
    "time": "encoder_times_time_split",
}
SPLITS: dict[SplitKind, str] = {"leave_one_out": "leave-one-out", "time": "split by time"}
TODAY = 1_700_000_000
SHAPES = ((1, 110), (32, 110))
ROUNDS = 9  # of both encoders in turn, of which the medians count
ABOUT = (
    "Every film is ranked except those seen, all with `recipes/ml-100k.toml` and its `time` "
    "changed. *Unknown*: asked at the time of the newest click. *Known*: asked at the time of the "
    "target. Differences to `none` are of the mean over seeds, paired by user."
)


def times(
    *,
    data: Annotated[Path, typer.Option(help="The ratings.")] = DATA / "ml-100k.tsv",
    recipe: Annotated[Path, typer.Option(help="The recipe, with time.")] = RECIPES / "ml-100k.toml",
    seeds: Annotated[int, typer.Option(help="Trainings, of the seeds 0, 1, ...", min=1)] = 5,
    kinds: Annotated[
        str, typer.Option(help="Of time, with commas, to compare.  [default: the recipe's]")
    ] = "",
    split: Annotated[SplitKind, typer.Option(help="Of the clicks.")] = "leave_one_out",
    limit: Annotated[int | None, typer.Option(help="Only so many lines; keeps no figure.")] = None,
) -> None:
    """Train MovieLens-100K with time and without, and rank every film for everyone."""
    of_recipe = seeded(recipe, 0, None).encoder.time
    chosen = [kind for kind in TIME_KINDS if kind in {"none", of_recipe, *kinds.split(",")}]
    found = {}
    for kind in chosen:
        runs = [_changed(seeded(recipe, seed, limit), kind, split) for seed in range(seeds)]
        found[kind] = _ranked(runs, data)
    text = _beside(found)
    typer.echo(text)
    if limit:
        return
    command = f"python -m bench times --seeds {seeds}" + (f" --kinds {kinds}" if kinds else "")
    command += f" --split {split}" if split != "leave_one_out" else ""
    _record(found["none"][0], found[of_recipe], FIGURES[split], command)
    about = f"{ABOUT} Written by `{command}` on {machine()}."
    record_table(TABLES[split], f"#### Time, {SPLITS[split]}\n\n{about}\n\n{text}\n", [PAGE])


def time_cost(
    *,
    recipe: Annotated[Path, typer.Option(help="The recipe, with time.")] = RECIPES / "ml-100k.toml",
    kinds: Annotated[
        str, typer.Option(help="Of time, with commas, to compare.  [default: the recipe's]")
    ] = "",
    keep: Annotated[bool, typer.Option(help="Keep the figures.")] = True,
) -> None:
    """Time the served encoder with time and without, in turn, on one thread."""
    of_recipe = seeded(recipe, 0, None).encoder
    chosen = [kind for kind in TIME_KINDS if kind in {of_recipe.time, *kinds.split(",")} - {"none"}]
    rows, command = [], "python -m bench time-cost"
    with tempfile.TemporaryDirectory() as folder:
        plain = _session(of_recipe, "none", Path(folder))
        for kind in chosen:
            timed = _session(of_recipe, kind, Path(folder))
            ratios = [_ratio(timed, plain, *shape) for shape in SHAPES]
            rows.append([kind, *(f"{ratio:.2f}" for ratio in ratios)])
            if keep and kind == of_recipe.time:
                for (batch, length), ratio in zip(SHAPES, ratios, strict=True):
                    record(f"time_cost_{batch}_{length}", round(ratio, 3), 1.25, command)
    typer.echo(table(["encoding with over without", *map(str, SHAPES)], rows))


def _session(config: EncoderConfig, kind: TimeKind, root: Path) -> onnxruntime.InferenceSession:
    """The graph of embeddings, with random weights, on one thread."""
    folder = root / kind
    folder.mkdir()
    torch.manual_seed(0)
    encoder = UserEncoder(replace(config, time=kind), N_ITEMS).eval()
    facts = export_graphs(encoder, folder)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(folder / facts["embedding"].file, options)


def _ratio(
    timed: onnxruntime.InferenceSession,
    plain: onnxruntime.InferenceSession,
    batch: int,
    length: int,
) -> float:
    """The median of rounds in which both run in turn: what disturbs one, disturbs the other."""
    rng = np.random.default_rng(0)
    feeds = {
        "item_ids": rng.integers(0, N_ITEMS, (batch, length)),
        "key_mask": np.ones((batch, length), np.bool_),
        "times": TODAY + np.exp(rng.uniform(0, 14, (batch, length))).astype(np.int64).cumsum(1),
    }
    feeds["asked"] = feeds["times"][:, -1] + 86_400
    runs = max(3, 300 // batch)
    seconds = [[_seconds(one, feeds, runs) for one in (timed, plain)] for _ in range(ROUNDS)]
    return float(np.median([with_time / without for with_time, without in seconds]))


def _seconds(
    session: onnxruntime.InferenceSession, feeds: Mapping[str, NDArray[Any]], runs: int
) -> float:
    """Seconds of the fastest of several runs."""
    read = {one.name: feeds[one.name] for one in session.get_inputs()}
    found = []
    for _ in range(runs):
        started = perf_counter()
        session.run(["user_embedding"], read)
        found.append(perf_counter() - started)
    return min(found)


def _ranked(recipes: Sequence[Recipe], data: Path) -> tuple[list[Evaluation], list[Evaluation]]:
    """The test ranks of every recipe, the time of asking unknown and known."""
    unknown, known = [], []
    for recipe in recipes:
        run, kind = trained(recipe, data), recipe.encoder.time
        unknown.append(run.evaluate())
        known.append(run.evaluate_at_target_times() if kind != "none" else unknown[-1])
        figures = [each[-1].metrics["NDCG@10"] for each in (unknown, known)]
        seed = recipe.training.seed
        typer.echo(f"{kind}, seed {seed}: NDCG@10 unknown {figures[0]:.4f}, known {figures[1]:.4f}")
    return unknown, known


def _changed(recipe: Recipe, kind: TimeKind, split: SplitKind) -> Recipe:
    parts = recipe.model_dump()
    parts["encoder"]["time"] = kind
    parts["data"]["split"] = split
    return Recipe.model_validate(parts)


def _beside(found: dict[TimeKind, tuple[list[Evaluation], list[Evaluation]]]) -> str:
    ids = found["none"][0]
    rows = []
    for kind, modes in found.items():
        for name, mode in zip(("unknown", "known"), modes, strict=True):
            if kind == "none" and name == "known":
                continue
            margin = paired(mode, ids)
            less = f"{margin.difference.mean:+.4f}, {margin.p_text}" if mode is not ids else ""
            ratio = mean(mode, "NDCG@10") / mean(ids, "NDCG@10")
            figures = [f"{mean(mode, metric):.4f}" for metric in ("NDCG@10", "HR@10")]
            rows.append([kind, name if kind != "none" else "", *figures, f"{ratio:.3f}", less])
    return table(["time", "time of asking", "NDCG@10", "HR@10", "of ids", "beside ids"], rows)


def _record(
    ids: list[Evaluation],
    timed: tuple[list[Evaluation], list[Evaluation]],
    prefix: str,
    command: str,
) -> None:
    base = mean(ids, "NDCG@10")
    record(f"{prefix}_ids_ndcg10", round(base, 5), None, command)
    for name, mode, least in (("unknown", timed[0], 1.03), ("known", timed[1], 1.08)):
        figure = f"{prefix}_time_{name}_ndcg10"
        seeds = [round(one.metrics["NDCG@10"], 5) for one in mode]
        record(figure, round(mean(mode, "NDCG@10"), 5), round(least * base, 5), command)
        record(f"{figure}_seeds", seeds, None, command)
        record(f"{figure}_p", paired(mode, ids).p_value, 0.05, command)
    seeds = [round(one.metrics["NDCG@10"], 5) for one in ids]
    record(f"{prefix}_ids_ndcg10_seeds", seeds, None, command)
