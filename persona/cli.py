"""`persona`: one command line over data, training, export, serving and scoring."""

import sys

import typer
from rich.console import Console

from persona import data, evaluate, explain, export, score, serve, train

app = typer.Typer(
    name="persona",
    help="Turns a person's click history into a user embedding, and shows what it looked at.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.command(name="train")(train.train)
app.command(name="evaluate")(evaluate.evaluate)
app.command(name="export")(export.export)
app.command(name="explain")(explain.explain)
app.command(name="serve")(serve.serve)
app.command(name="score")(score.score)

TRAIN_EXTRA = {"torch", "lightning", "onnx", "onnxscript", "matplotlib"}
ROOTS = {
    "client.errors": "ClientError",
    "export.errors": "ExportError",
    "model.errors": "ModelError",
    "service.errors": "ServiceError",
}


def main() -> None:
    """Runs a verb; an expected failure ends with its message and exit status 1."""
    try:
        app()
    except _expected() as error:
        fail(str(error))
    except ModuleNotFoundError as error:
        if error.name not in TRAIN_EXTRA:
            raise
        fail(f"this needs {error.name}: pip install 'persona-encoder[train]'")


def _expected() -> tuple[type[Exception], ...]:
    """The error roots of the rooms that the verb has imported; no other room can have failed.

    Importing them all would cost every verb the imports of every room.
    """
    return tuple(
        getattr(sys.modules[module], root)
        for module, root in ROOTS.items()
        if module in sys.modules
    )


def fail(message: str) -> None:
    """Prints the message to stderr and exits with status 1."""
    Console(stderr=True, highlight=False).print(f"persona: {message}", markup=False)
    sys.exit(1)
