"""What scoring a file needs of a model: `persona.Client` and `persona.Engine` both have it."""

from collections.abc import Sequence
from typing import Protocol

from persona.contract import ItemId, UnknownItems
from persona.results import Encoded


class Scorer(Protocol):
    """Turns histories into user embeddings; several threads call it at a time."""

    def encode(
        self,
        histories: Sequence[Sequence[ItemId]],
        *,
        model: str | None = None,
        version: str | None = None,
        unknown_items: UnknownItems = "token",
    ) -> Encoded:
        """Encodes each history, ordered from oldest to newest click.

        Raises:
            InvalidRequest: a history is refused; `history` says which.
            RequestTooLarge: fewer or shorter histories may succeed.
            DeadlineExceeded: fewer or shorter histories may succeed.
        """
