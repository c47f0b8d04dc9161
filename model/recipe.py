"""A recipe: every choice of a training run in one TOML file, checked before anything starts."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from model.encoder import EncoderConfig
from model.errors import RecipeError


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataRecipe(_Strict):
    """Which clicks, how they are split, and whom to credit."""

    path: str = ""  # `--data` replaces it
    format: str | None = None  # None = told by the file's name and content
    name: str = ""  # as the model card names the set
    source: str = ""  # where it comes from and whom to cite
    licence: str = ""
    split: Literal["leave_one_out", "held_out_users"] = "leave_one_out"
    held_out_share: float = Field(0.05, gt=0, lt=0.5)  # for validation, and again for the test
    remove_seen: bool = False  # whether items of the history are left out of the ranking
    limit: int | None = Field(None, ge=1)  # only the first lines of the file


class TrainingRecipe(_Strict):
    """The loop: optimiser, batches, when to stop."""

    seed: int = 0
    epochs: int = Field(20, ge=1)
    validate_every: int = Field(1, ge=1)  # epochs
    patience: int = Field(5, ge=1)  # validations without a better `monitor` before stopping
    monitor: str = "NDCG@10"  # on the validation cases
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)  # of matrices; not of tables, norms and biases
    warmup_steps: int = Field(200, ge=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    gradient_clip: float = Field(1.0, gt=0)  # largest norm of a step's gradient
    max_batch_tokens: int = Field(16_384, ge=1)  # padded positions a batch
    max_batch: int = Field(1024, ge=1)  # windows a batch
    unknown_rate: float = Field(0.01, ge=0, lt=1)  # clicks shown as unknown, to train its row
    windows: Literal["all", "newest"] = "all"  # of a history: all of its clicks, or the last ones
    negatives: int = Field(0, ge=0)  # of the loss; 0 = the whole catalogue
    share_negatives: bool = True  # by a batch; otherwise every position draws its own
    candidates: int = Field(128, ge=2)  # candidates a loss of source-target attention compares
    averaging: float = Field(0.0, ge=0, lt=1)  # decay of the mean of weights that is kept; 0 = none
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = (
        "auto"  # bf16 where it is fast
    )


class Recipe(_Strict):
    """All of a run."""

    name: str
    description: str = ""
    data: DataRecipe = DataRecipe()
    encoder: EncoderConfig = EncoderConfig()
    training: TrainingRecipe = TrainingRecipe()


def read_recipe(path: Path) -> Recipe:
    """Reads and checks a recipe.

    Raises:
        RecipeError: the file is missing, is not TOML, or holds an unknown or impossible choice.
    """
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text()))
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such recipe") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: {error}") from error
    except ValidationError as error:
        raise RecipeError(f"{path}: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    place = ".".join(map(str, problem["loc"]))
    return f"{place}: {problem['msg']}, got {problem['input']!r}"
