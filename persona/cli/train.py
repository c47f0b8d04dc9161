"""`persona train`: trains a user encoder on clicks, by a recipe, and writes a run."""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from persona.cli.columns import (
    Clicks,
    ColumnOption,
    DataOption,
    FormatOption,
    click_columns,
    reads_tables,
)
from persona.cli.next_step import print_next
from persona.tables.options import TableOptions

if TYPE_CHECKING:
    from model.clicks.histories import Histories, Split
    from model.clicks.item_features import ItemFeatures
    from model.training.recipe import Recipe
    from model.training.run import DataFact
    from model.training.train import TrainingResult
    from model.training.warm_start import Carried, Gain
    from persona.contract import Floats


@reads_tables
def train(
    output: Annotated[Path, typer.Option(help="Folder of the run.")],
    recipe: Annotated[
        Path | None,
        typer.Option(help="TOML file with all settings.  [default: derived from the clicks]"),
    ] = None,
    data: DataOption = None,
    items: Annotated[
        Path | None,
        typer.Option(
            help="Features of the items, in place of the recipe's `items.path`: Parquet, JSON "
            "Lines or CSV with a column item_id."
        ),
    ] = None,
    format: FormatOption = None,  # noqa: A002  # the name of the option
    seed: Annotated[
        int | None,
        typer.Option(help="Seed, in place of the recipe's `training.seed`.", min=0, max=2**32 - 1),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Time limit for the whole run, including validation, in place of the recipe's "
            "`training.minutes`. 0: no limit.",
            min=0,
        ),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Start from the weights of this run, by default with its recipe and clicks.",
        ),
    ] = None,
    gain: Annotated[
        bool,
        typer.Option(
            help="With --from: also train from scratch for the same time, and report the gain."
        ),
    ] = True,
    devices: Annotated[
        int | None,
        typer.Option(
            help="Training processes, each on its own GPU, or all on CPUs.  "
            "[default: one per GPU, or one]",
            min=1,
        ),
    ] = None,
    progress: Annotated[bool, typer.Option(help="Show the progress.")] = True,
    column: ColumnOption = None,
    *,
    table: TableOptions,
) -> None:
    """Train a user encoder on clicks.

    If the run is interrupted, even by SIGKILL, the same command resumes it from its last
    checkpoint. The result is the same as without it, unless a time limit ends the run.

    Example: persona train --recipe recipes/msnbc.toml --data msnbc990928.seq --output runs/news

    Without a recipe: persona train --data clicks.csv --output runs/mine

    In a quarter of an hour: persona train --data clicks.csv --minutes 15 --output runs/mine

    Tonight's clicks, from yesterday's run:
    persona train --from runs/monday --data tuesday.csv --output runs/tuesday

    With features of the items, so that new items need no training:
    persona train --data clicks.csv --items items.csv --output runs/mine

    If the columns have other names (`persona data inspect` finds them):
    persona train --data events.csv --user visitorid --item itemid --output runs/mine

    With what happened at each click, and a price:
    persona train --data events.csv --column event=category --column price=number --output runs/shop
    """
    # On several devices Lightning starts one process each, and numbers all but the first.
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    given = {"seed": seed, "minutes": minutes}
    changes = {name: value for name, value in given.items() if value is not None}
    clicks = Clicks(data, format, table, click_columns(column))
    chosen = _Chosen(recipe, start, clicks, items, changes)
    try:
        run = _Run(output, chosen, devices or "auto", progress=progress, first=first)
        run.train(gain=gain)
    except KeyboardInterrupt:
        if first:
            message = "persona: interrupted; the same command resumes the run"
            Console(stderr=True, highlight=False).print(message)
        raise typer.Exit(130) from None


@dataclass(frozen=True)
class _Chosen:
    """The options about the recipe and the clicks."""

    recipe: Path | None
    start: Path | None
    clicks: Clicks
    items: Path | None  # file of their features
    changes: dict[str, float]  # of `training`

    def read(self) -> "tuple[Recipe, Histories, DataFact]":
        """The recipe, by default the earlier run's or one made from the clicks, and the clicks."""
        from model.training.default_recipe import default_recipe
        from model.training.recipe import BY_RULE, ItemsRecipe, Recipe, read_recipe
        from model.training.run import load_data, load_run_data, read_run_recipe

        clicks = self.clicks
        if self.recipe is not None:
            recipe = clicks.chosen(read_recipe(self.recipe))
            histories, fact = load_data(recipe, clicks.path)
        elif self.start is not None:
            recipe = clicks.chosen(read_run_recipe(self.start))
            histories, fact = load_run_data(self.start, recipe, clicks.path)
        else:
            recipe = clicks.chosen(Recipe(name=BY_RULE))
            histories, fact = load_data(recipe, clicks.path)
            recipe = default_recipe(histories, recipe.data)
        training = recipe.training.model_copy(update=self.changes)
        of_items = recipe.items or (ItemsRecipe() if self.items else None)
        return recipe.model_copy(update={"training": training, "items": of_items}), histories, fact

    def source(self, recipe: "Recipe") -> str:
        """Where the clicks are."""
        from model.training.run import source_of

        earlier = "" if self.start is None or self.recipe is not None else source_of(self.start)
        return self.clicks.path or earlier or recipe.data.path

    def items_source(self, recipe: "Recipe") -> str:
        """Where the features of the items are; "" if none are read."""
        from model.training.run import source_of

        if recipe.items is None:
            return ""
        earlier = self.start is not None and self.recipe is None and source_of(self.start, "items")
        return str(self.items or earlier or recipe.items.path)


@dataclass(frozen=True)
class _Run:
    """One training."""

    output: Path
    chosen: _Chosen
    devices: int | Literal["auto"]
    progress: bool = field(kw_only=True)
    first: bool = field(kw_only=True)  # of the processes that train together

    def train(self, *, gain: bool) -> None:
        """Trains, and reports the result."""
        import logging

        from model.training.columns import with_columns
        from model.training.features import load_features
        from model.training.run import TRAINING, check_split, split, write_json
        from model.training.train import train_encoder
        from model.training.warm_start import initial_weights

        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
        recipe, histories, fact = self.chosen.read()
        self._print(_counts(fact))
        parts = split(histories, recipe.data)
        check_split(parts)
        recipe = with_columns(recipe, parts.train, self.chosen.start)
        start, item_ids = self.chosen.start, histories.item_ids
        items = load_features(recipe, self.chosen.items_source(recipe), item_ids, start)
        features = None if items is None else items.matrix
        weights = carried = None
        if start is not None:
            weights, carried = initial_weights(start, recipe, item_ids, features)
            self._print(_carried(carried))
        self._begin(recipe, histories, fact, items)
        result = train_encoder(
            recipe,
            parts,
            self.output,
            progress=self.progress,
            devices=self.devices,
            weights=weights,
            features=features,
        )
        if self.first:
            write_json(self.output / TRAINING, asdict(result))
        self._print(_summary(result))
        if carried is not None:
            self._compare(recipe, parts, result, carried, features, gain=gain)
        print_next(Console(quiet=not self.first), "evaluate", self.output)

    def _begin(
        self,
        recipe: "Recipe",
        histories: "Histories",
        fact: "DataFact",
        items: "ItemFeatures | None",
    ) -> None:
        from model.training.features import keep_columns
        from model.training.run import begin, remember_source

        if self.first:
            begin(self.output, recipe, histories, fact)
            if items is not None:
                keep_columns(self.output, items)
            source, of_items = self.chosen.source(recipe), self.chosen.items_source(recipe)
            remember_source(self.output, source, of_items)

    def _compare(
        self,
        recipe: "Recipe",
        parts: "Split",
        result: "TrainingResult",
        carried: "Carried",
        features: "Floats | None",
        *,
        gain: bool,
    ) -> None:
        from model.training.warm_start import measure_gain, write_start

        found = None
        if gain and self.devices in {1, "auto"} and self.first:
            self._print("from nothing, to compare:")
            found = measure_gain(
                recipe, parts, self.output, result, progress=self.progress, features=features
            )
            self._print(_gain(found))
        if self.first:
            write_start(self.output, carried, found)

    def _print(self, text: str) -> None:
        console = Console(quiet=not self.first, highlight=False, soft_wrap=True)
        console.print(text, markup=False)


def _counts(fact: "DataFact") -> str:
    broken = f", {fact.broken_rows:,} broken rows left out" if fact.broken_rows else ""
    return (
        f"{fact.file}: {fact.users:,} users, {fact.items:,} items, {fact.clicks:,} clicks{broken}"
    )


def _summary(result: "TrainingResult") -> str:
    ended = " (the time was up)" if result.out_of_time else ""
    return (
        f"{result.parameters:,} parameters, {result.epochs} epochs in {result.seconds:.0f} s on "
        f"{result.device}{ended}; best validation {result.monitor} {result.best:.4f} in epoch "
        f"{result.best_epoch}"
    )


def _carried(carried: "Carried") -> str:
    return (
        f"from {carried.run}: {carried.kept_items:,} items kept, {carried.new_items:,} new, "
        f"{carried.gone_items:,} gone"
    )


def _gain(gain: "Gain") -> str:
    found = gain.comparison
    return (
        f"test NDCG@10 {gain.warm:.4f}, from nothing in the same {gain.seconds:.0f} s "
        f"{gain.from_nothing:.4f}: {found.difference.mean:+.4f} "
        f"({found.difference.interval('{:+.4f}')}), {found.p_text}"
    )
