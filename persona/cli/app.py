"""`persona`: the command line over data, training, export, serving and scoring."""

import sys
from typing import Annotated

import typer
from rich.console import Console

from persona.cli import data, evaluate, explain, export, items, keys, score, serve, sign, train
from persona.cli.rooms import hint, missing_room


def _print_version(wanted: bool) -> None:
    if wanted:
        from persona import __version__

        typer.echo(f"persona {__version__}")
        raise typer.Exit


def _check_room(
    context: typer.Context,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    if problem := missing_room(context.invoked_subcommand or ""):
        fail(problem)


app = typer.Typer(
    name="persona",
    help="Turns a person's click history into a user embedding, and shows which clicks it used.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    callback=_check_room,
)
app.add_typer(data.app, name="data")
app.add_typer(keys.app, name="keys")
app.add_typer(items.app, name="items")
app.command(name="train")(train.train)
app.command(name="evaluate")(evaluate.evaluate)
app.command(name="export")(export.export)
app.command(name="explain")(explain.explain)
app.command(name="serve")(serve.serve)
app.command(name="score")(score.score)
app.command(name="sign")(sign.sign)


def main() -> None:
    """Runs a verb; an expected failure ends with one message and exit status 1."""
    try:
        app()
    except _expected() as error:
        fail(str(error))
    except ModuleNotFoundError as error:
        if not (advice := hint(error.name or "")):
            raise
        fail(advice)


def _expected() -> tuple[type[Exception], ...]:
    """The error roots of the library and, if the verb has imported it, of `model`."""
    from persona.contract import PersonaError

    model_errors = sys.modules.get("model.errors")
    return (PersonaError,) if model_errors is None else (PersonaError, model_errors.ModelError)


def fail(message: str) -> None:
    """Prints the message to stderr and exits with status 1."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"persona: {message}", markup=False)
    sys.exit(1)
