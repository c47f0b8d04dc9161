"""A recipe: every choice of a training run in one TOML file, checked before anything starts."""

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from model.clicks.readers import ClickFormat
from model.errors import RecipeError
from model.evaluation.metrics import METRICS
from model.network.config import EncoderConfig
from persona.columns import ColumnKind, check_columns
from persona.tables import TableOptions

MAX_SEED = 2**32 - 1  # a step's seed is a million times this, and has to fit in 64 bits
BY_RULE = "default"  # name of the default recipe, which has no file

# How columns are found; the format stands beside them, since clicks have more formats than tables.
TABLE_FIELDS = tuple(
    field.name
    for field in fields(TableOptions)
    if field.name not in {"format", "columns", "click_columns"}
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataRecipe(_Strict):
    """The clicks, their split, and their credit."""

    path: str = ""  # `--data` overrides it
    format: ClickFormat | None = None  # None = detected from the content
    # Of tables, as in `TableOptions`; options of the same names override them.
    user: str | None = None
    item: str | None = None
    time: str | None = None
    history: str | None = None
    where: str | None = None
    rating: str | None = None
    min_rating: float | None = None
    delimiter: str | None = None
    header: bool | None = None
    item_separator: str | None = None
    columns: dict[str, ColumnKind] = {}  # of clicks, that the encoder reads beside item and time
    name: str = ""  # of the data set, for the model card
    source: str = ""  # where the data set comes from and whom to cite
    licence: str = ""
    split: Literal["leave_one_out", "held_out_users", "time"] = "leave_one_out"
    # For validation, and again for the test: of the users, or with split `time` of the clicks.
    held_out_share: float = Field(0.05, gt=0, lt=0.5)
    targets: Literal["last", "all"] = "last"  # of a user's test clicks, with split `time`
    remove_seen: bool = False  # whether to rank without the items of the history
    limit: int | None = Field(None, ge=1)  # only the first lines of the file

    @field_validator("columns")
    @classmethod
    def _are_columns(cls, columns: dict[str, ColumnKind]) -> dict[str, ColumnKind]:
        check_columns(columns)
        return columns

    def table(self) -> TableOptions:
        """How to read a table."""
        given = {name: getattr(self, name) for name in TABLE_FIELDS}
        return TableOptions(**given, click_columns=tuple(self.columns.items()))

    def with_table(self, options: TableOptions) -> Self:
        """The same, with the given options."""
        given = {name: getattr(options, name) for name in TABLE_FIELDS}
        return self.model_copy(update={k: v for k, v in given.items() if v is not None})


class TrainingRecipe(_Strict):
    """The training loop: optimiser, batches, when to stop."""

    seed: int = Field(0, ge=0, le=MAX_SEED)
    epochs: int = Field(20, ge=1)
    minutes: float = Field(0.0, ge=0)  # limit for all calls, including validation; 0 = no limit
    validate_every: int = Field(1, ge=1)  # epochs
    validation_cases: int = Field(0, ge=0)  # ranked each time, one sample for all; 0 = every case
    patience: int = Field(5, ge=1)  # validations without a better `monitor` before stopping
    monitor: str = "NDCG@10"  # on the validation cases; one of METRICS
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)  # of matrices; not of tables, norms and biases
    warmup_steps: int = Field(200, ge=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    gradient_clip: float = Field(1.0, gt=0)  # largest norm of a step's gradient
    max_batch_tokens: int = Field(16_384, ge=1)  # padded positions per batch
    max_batch: int = Field(1024, ge=1)  # windows per batch
    unknown_rate: float = Field(0.01, ge=0, lt=1)  # clicks replaced by "unknown", to train its row
    asked_rate: float = Field(0.5, ge=0, le=1)  # positions that know the time of their target
    windows: Literal["all", "newest"] = "all"  # of each history
    negatives: int = Field(0, ge=0)  # in the loss; 0 = the whole catalogue
    share_negatives: bool = True  # within a batch; otherwise every position draws its own
    candidates: int = Field(128, ge=2)  # in the loss of source-target attention
    averaging: float = Field(0.0, ge=0, lt=1)  # decay of the moving mean of weights; 0 = none
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"  # auto: bf16 if fast

    @field_validator("monitor")
    @classmethod
    def _is_a_metric(cls, name: str) -> str:
        if name not in METRICS:
            raise ValueError(f"no metric {name!r}, known are {', '.join(METRICS)}")
        return name

    @model_validator(mode="after")
    def _validates_at_least_once(self) -> Self:
        if self.validate_every > self.epochs:
            message = f"validate_every is {self.validate_every}, but epochs is {self.epochs}"
            raise ValueError(f"{message}: the run would never validate")
        return self


class ItemsRecipe(_Strict):
    """Features of items, of which their vectors are made."""

    path: str = ""  # `--items` overrides it
    categories: tuple[str, ...] = ()  # columns whose numbers are names
    drop: float = Field(0.05, ge=0, lt=1)  # share of the learned parts that training leaves out
    penalty: float = Field(0.01, ge=0)  # in the loss, of the mean square length of learned parts


class Recipe(_Strict):
    """All choices of a run."""

    name: str
    description: str = ""
    data: DataRecipe = DataRecipe()
    # None: items are their ids alone, and what is written of a recipe says nothing of it.
    items: ItemsRecipe | None = Field(None, exclude_if=lambda items: items is None)
    encoder: EncoderConfig = EncoderConfig()
    training: TrainingRecipe = TrainingRecipe()


def read_recipe(path: Path) -> Recipe:
    """Reads and checks a recipe, in TOML or, from a run's folder, in JSON.

    Raises:
        RecipeError: the file cannot be read, or holds an unknown or impossible choice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            return Recipe.model_validate_json(text)
        return Recipe.model_validate(tomllib.loads(text))
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        raise RecipeError(f"{path}: {_first_problem(error)}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"{path}: not TOML: {error}") from error


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = "".join(f"{part}: " for part in [".".join(map(str, problem["loc"]))] if part)
    if problem["type"] in {"value_error", "json_invalid"}:  # their messages name the value
        return place + problem["msg"].removeprefix("Value error, ")
    return f"{place}{problem['msg']}, got {problem['input']!r}"
