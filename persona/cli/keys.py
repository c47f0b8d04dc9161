"""`persona keys`: manages the keys of a service's clients."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(
    help="Add, list and remove the keys of a service's clients.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="Who holds the key: letters, digits, '_', '.', '-'.")]
File = Annotated[
    Path, typer.Option(help="File with the hashes of the keys.", envvar="PERSONA_KEYS_FILE")
]
Limit = Annotated[
    list[str] | None,
    typer.Option(help="Limit, such as 100/second or '1000000 histories/day'. May be repeated."),
]
DEFAULT = Path("keys.json")


@app.command()
def add(
    name: Name,
    file: File = DEFAULT,
    admin: Annotated[
        bool, typer.Option(help="The key may also change which models are served.")
    ] = False,
    limit: Limit = None,
) -> None:
    """Create a key, show it once, and write its hash to the file.

    A running service accepts it within a second.

        persona keys add shop --limit 100/second
    """
    from service.keys import add_key

    made = add_key(file, name, "admin" if admin else "user", limit or ())
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"The key of '{name}'. It is shown once; {file} holds its hash:", markup=False
    )
    typer.echo(made)


@app.command(name="list")
def list_(file: File = DEFAULT) -> None:
    """List the keys by name, with roles and limits."""
    from service.keys import read_keys

    for key in read_keys(file):
        typer.echo("\t".join([key.name, key.role, ", ".join(key.limits) or "no limit"]))


@app.command()
def remove(name: Name, file: File = DEFAULT) -> None:
    """Remove a key; a running service refuses it within a second."""
    from service.keys import remove_key

    remove_key(file, name)
    typer.echo(f"{file}: '{name}' removed")
