"""RecTools' SASRec beside ours: the same clicks, protocol and sizes, in one run."""

import hashlib
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from bench import encoders
from bench.peers import environment
from bench.quality import DATA, RECIPES
from bench.report import machine, table
from bench.results import record, record_table
from bench.trained import go_on, seeded, trained, with_error
from bench.trainers.job import Job, newest, save_split
from model.clicks.histories import Cases, Int, Split, leave_one_out
from model.evaluation.metrics import Metrics, compare
from model.training.recipe import Recipe, TrainingRecipe
from model.training.run import load_data

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "bench" / "trainers" / "with_rectools.py"
# The same PyTorch as ours, so that trainers are compared and not their kernels.
REQUIREMENTS = (
    "rectools==0.19.0",
    "rectools[torch]",
    f"torch=={version('torch').partition('+')[0]}",
)
THEIRS, SAME, SHIPPED = "RecTools SASRec", "Persona, the same sizes", "Persona, the recipe"
Speeds = Mapping[str, Sequence[float]]  # clicks a second of each round


@dataclass(frozen=True)
class Quality:
    """The quality of theirs and ours on the same test cases."""

    theirs: Int  # ranks
    ours: Int | None  # none on part of the users: kept runs are of whole files
    facts: Mapping[str, float | str]  # of their training


def rectools(
    *,
    data: Annotated[Path, typer.Option(help="The clicks.")] = DATA / "ml-1m.txt",
    recipe: Annotated[Path, typer.Option(help="Ours; its sizes are theirs.")] = RECIPES
    / "ml-1m.toml",
    rounds: Annotated[int, typer.Option(help="Epochs of each, in turn; 0: no speed.")] = 3,
    minutes: Annotated[float, typer.Option(help="Of their training; 0: no quality.")] = 180,
    patience: Annotated[int, typer.Option(help="Epochs without a better one.")] = 10,
    threads: Annotated[int, typer.Option(help="Of each.")] = 2,
    limit: Annotated[int | None, typer.Option(help="So many users, and no figure.")] = None,
) -> None:
    """Train RecTools' SASRec and ours on the same clicks: clicks a second, and NDCG@10."""
    torch.set_num_threads(threads)
    chosen = seeded(recipe, 0, None)
    histories, _ = load_data(chosen, data)
    if limit:
        histories = histories.select(np.arange(limit))
    split = leave_one_out(histories)
    with tempfile.TemporaryDirectory() as folder:
        job = replace(
            _job(chosen, Path(folder)),
            threads=threads,
            rounds=rounds,
            patience=patience,
            minutes=minutes,
        )
        save_split(split, Path(job.split))
        speeds = measure_speed(job, chosen, split) if rounds else {}
        found = measure_quality(job, chosen, data, limit) if minutes else None
    command = f"python -m bench rectools --rounds {rounds} --minutes {minutes:g}"
    if speeds:
        _tell_speed(job, speeds, command, keep=not limit)
    if found:
        _tell_quality(job, found, command, keep=not limit)


def _job(recipe: Recipe, folder: Path) -> Job:
    """Their sizes are our recipe's."""
    sizes = recipe.encoder
    return Job(
        split=str(folder / "split.npz"),
        folder=str(folder),
        width=sizes.width,
        blocks=sizes.blocks,
        heads=sizes.heads,
        max_length=sizes.max_length,
        dropout=sizes.dropout,
    )


def same_sizes(job: Job) -> Recipe:
    """Ours with their sizes, batches and loss: plain, softmax over all items, fp32."""
    return Recipe.model_validate(
        {
            "name": "same-sizes",
            "encoder": {
                "width": job.width,
                "blocks": job.blocks,
                "heads": job.heads,
                "max_length": job.max_length,
                "dropout": job.dropout,
                "feed_forward": 1,
                "gated": False,
                "positions": "learned",
            },
            "training": {
                "learning_rate": job.learning_rate,
                "max_batch": job.batch,
                "max_batch_tokens": job.batch * (job.max_length + 1),
                "precision": "32-true",
                "seed": job.seed,
            },
        }
    )


def measure_speed(job: Job, recipe: Recipe, split: Split) -> Speeds:
    """An epoch of each in turn, so many rounds, the first of them to warm up."""
    # The clicks that theirs learns from, so that an epoch is the same work.
    short = replace(split, train=newest(split.train, job.max_length + 1))
    speeds: dict[str, list[float]] = {THEIRS: [], SAME: [], SHIPPED: []}
    folder = Path(job.folder)
    with _trainer("speed", job) as process:
        for turn in range(1 + job.rounds):
            found = {
                THEIRS: _their_epoch(process),
                SAME: our_epoch(same_sizes(job), short, folder / "same", turn),
                SHIPPED: our_epoch(recipe, split, folder / "shipped", turn),
            }
            typer.echo(f"round {turn}: " + ", ".join(f"{k} {v:,.0f}" for k, v in found.items()))
            for name, speed in found.items():
                if turn:
                    speeds[name].append(speed)
    return speeds


def our_epoch(recipe: Recipe, split: Split, run: Path, turn: int) -> float:
    """Clicks a second of the next epoch of the run.

    By the public function, and thus with what comes with it: going on from a checkpoint, writing
    two, and validation, which is cut to one case.
    """
    one = Cases(split.validation.histories.select(np.arange(1)), split.validation.targets[:1])
    # Nothing but epochs ends this run: one case's NDCG does not get better for ever.
    ends = {"epochs": turn + 1, "patience": 1_000_000, "validate_every": 1}
    training: TrainingRecipe = recipe.training.model_copy(update=ends)
    chosen = recipe.model_copy(update={"training": training})
    result = go_on(chosen, replace(split, validation=one), run)
    return result.training_clicks / result.seconds


def measure_quality(job: Job, recipe: Recipe, data: Path, limit: int | None) -> Quality:
    """Theirs to its best epoch, and the kept run of our recipe's first seed, trained if need be."""
    kept = encoders.CACHE / "rectools" / _digest(job)
    kept.mkdir(parents=True, exist_ok=True)
    with _trainer("quality", replace(job, folder=str(kept))) as process:
        facts = _answer(process)
    ours = None if limit else trained(recipe, data).evaluate().ranks
    return Quality(np.load(kept / "ranks.npy"), ours, facts)


def _digest(job: Job) -> str:
    """Tells trainings apart, not when they end."""
    same = asdict(replace(job, split="", folder="", minutes=0, patience=0, rounds=0))
    clicks = Path(job.split).read_bytes()
    text = json.dumps([same, REQUIREMENTS, hashlib.sha256(clicks).hexdigest()])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@contextmanager
def _trainer(verb: str, job: Job) -> Iterator["subprocess.Popen[str]"]:
    """Their process, which ends with this block."""
    program = environment(REQUIREMENTS) / "bin" / "python"
    order = Path(job.folder) / f"{verb}.json"
    order.write_text(json.dumps(asdict(job)))
    threads = {"OMP_NUM_THREADS": str(job.threads), "PYTHONPATH": str(ROOT)}
    with (encoders.CACHE / "RecTools.log").open("w") as log:
        process = subprocess.Popen(
            [str(program), str(SCRIPT), verb, str(order)],
            cwd=ROOT,
            env=os.environ | threads,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.communicate()


def _their_epoch(process: "subprocess.Popen[str]") -> float:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    epoch = _answer(process)
    speed: float = epoch["clicks"] / epoch["seconds"]
    return speed


def _answer(process: "subprocess.Popen[str]") -> Any:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        words = (encoders.CACHE / "RecTools.log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"RecTools ended without an answer:\n{words}")
    return json.loads(line)


def ratio(speeds: Speeds) -> float:
    """Ours to theirs at the same sizes, of medians."""
    return statistics.median(speeds[SAME]) / statistics.median(speeds[THEIRS])


def _tell_speed(job: Job, speeds: Speeds, command: str, *, keep: bool) -> None:
    theirs = statistics.median(speeds[THEIRS])
    rows = [
        [
            name,
            f"{statistics.median(rounds):,.0f}",
            f"{min(rounds):,.0f} to {max(rounds):,.0f}",
            f"{statistics.median(rounds) / theirs:.2f}",
        ]
        for name, rounds in speeds.items()
    ]
    text = table(["", "clicks a second", "rounds", "times RecTools"], rows)
    typer.echo(text)
    if keep:
        record("train_speed_vs_rectools", round(ratio(speeds), 3), 1.5, command)
        text = f"## Training speed beside RecTools' SASRec\n\n{_about(job, command)}\n\n{text}\n"
        record_table("encoder_rectools_speed", text)


def _tell_quality(job: Job, found: Quality, command: str, *, keep: bool) -> None:
    rows = []
    for name, ranks in ((THEIRS, found.theirs), (SHIPPED, found.ours)):
        if ranks is None:
            continue
        margin = compare(ranks, found.theirs).difference
        ahead = f"{margin.mean:+.4f} ({margin.low:+.4f}, {margin.high:+.4f})"
        figures = [with_error(Metrics.of(ranks), metric) for metric in ("NDCG@10", "HR@10")]
        rows.append([name, *figures, "" if name == THEIRS else ahead])
    facts = found.facts
    trained_for = (
        f"RecTools {facts['version']}: {facts['epoch']} epochs in "
        f"{float(facts['seconds']) / 60:.0f} minutes, the best of them {facts['best_epoch']} by "
        f"validation NDCG@10 ({float(facts['best']):.4f}); {facts['parameters']:,} parameters."
    )
    text = f"{table(['', 'NDCG@10', 'HR@10', 'ahead, paired, 95 %'], rows)}\n\n{trained_for}"
    typer.echo(text)
    if keep:
        ndcg = Metrics.of(found.theirs)["NDCG@10"]
        record("rectools_ndcg10", round(ndcg, 5), None, command)
        text = f"## Quality beside RecTools' SASRec\n\n{_about(job, command)}\n\n{text}\n"
        record_table("encoder_rectools_quality", text)


def _about(job: Job, command: str) -> str:
    return (
        f"MovieLens-1M, leave one out, every film ranked, seen ones removed, by our metrics. Both: "
        f"width {job.width}, {job.blocks} blocks, {job.heads} heads, length {job.max_length}, "
        f"dropout {job.dropout:g}, softmax over all items, batches of {job.batch} histories, Adam "
        f"at {job.learning_rate:g}, fp32, {job.threads} threads, the same PyTorch. The rest of "
        "RecTools is as it comes. Clicks are targets that got a loss; an epoch of each in turn, "
        "after one to warm up, its data loader included; ours with its checkpoints and the "
        f"validation of one case too. `{SAME}` learns from the newest {job.max_length + 1} clicks "
        "as RecTools does, with a feed-forward layer as narrow as RecTools'; "
        f"`{SHIPPED}` is `recipes/ml-1m.toml`, seed 0. Theirs stops after {job.patience} epochs "
        f"without a better validation NDCG@10, or {job.minutes:g} minutes. Written by "
        f"`{command}` on {machine()}."
    )
