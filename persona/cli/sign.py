"""`persona sign`: signs artifacts, so that a service can refuse unsigned ones."""

from pathlib import Path
from typing import Annotated

import typer


def sign(
    artifact: Annotated[
        Path | None, typer.Argument(help="Folder of an artifact.", show_default=False)
    ] = None,
    key: Annotated[Path, typer.Option(help="Private key.")] = Path("signing.pem"),
    new_key: Annotated[
        bool, typer.Option(help="Create the private key, and the public key .pub.pem beside it.")
    ] = False,
) -> None:
    """Sign an artifact with an Ed25519 key; needs the extra `signed`.

        persona sign --new-key
        persona sign artifacts/news/1

    A service with `PERSONA_TRUSTED_KEYS` opens only artifacts that one of those keys signed.
    """
    from persona.artifact import signature

    public = key.with_suffix(f".pub{key.suffix}")
    if new_key:
        signature.new_keys(key, public)
        typer.echo(f"{key} is the private key; {public} is for PERSONA_TRUSTED_KEYS")
    if artifact is not None:
        typer.echo(f"{signature.sign(artifact, key)} written")
