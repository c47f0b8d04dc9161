"""`python -m bench`: one subcommand a benchmark; without one, all of them in turn."""

import typer

from bench.ablations import ablations
from bench.attention import attention
from bench.batch import batch, pooled
from bench.ceiling import ceiling
from bench.cold_items import cold_items
from bench.container import container
from bench.curves import curves
from bench.faults import kills, large, overload
from bench.generated import schemathesis
from bench.hostile import hostile
from bench.house import house, house_training
from bench.items import items
from bench.kept_load import kept_load
from bench.ladder import ladder
from bench.memory import memory
from bench.news import news
from bench.next_click import next_click
from bench.online import latency, online
from bench.pictures import plots
from bench.playground import playground
from bench.pooling import pooling
from bench.protocols import protocols
from bench.quality import ml1m, msnbc_training, wikispeedia
from bench.reading import reading
from bench.recommend import reasons, recommend
from bench.rectools import rectools
from bench.reload import reload
from bench.scoring import scoring
from bench.secured import secured
from bench.soak import soak
from bench.times import time_cost, times
from bench.training_cost import training_cost
from bench.tree import tests, tree
from bench.warm_start import warm_start
from bench.window_step import window_step

app = typer.Typer(help="Measure, and write bench/results.json and bench/RESULTS.md.")
app.command()(tree)
app.command()(tests)
app.command()(plots)
app.command()(container)
app.command()(hostile)
app.command()(news)
app.command()(attention)
app.command()(pooling)
app.command()(playground)
app.command()(reasons)
app.command()(schemathesis)
app.command()(reading)
app.command()(scoring)
for serving in (
    online,
    ceiling,
    latency,
    ladder,
    batch,
    pooled,
    memory,
    curves,
    protocols,
    recommend,
    next_click,
    kept_load,
    reload,
    secured,
    house,
    time_cost,
    items,
):
    app.command()(serving)
for fault in (overload, kills, large, soak):
    app.command()(fault)
for training in (
    msnbc_training,
    wikispeedia,
    ml1m,
    ablations,
    times,
    rectools,
    house_training,
    training_cost,
    warm_start,
    cold_items,
    window_step,
):
    app.command()(training)


@app.callback(invoke_without_command=True)
def run_all(context: typer.Context) -> None:
    """Measure, and write bench/results.json and bench/RESULTS.md."""
    if context.invoked_subcommand is None:
        for benchmark in app.registered_commands:
            if benchmark.callback is not None:
                context.invoke(benchmark.callback)


app()
