"""How much one query may ask for, how much may wait, and whose artifacts may answer."""

import sys
from dataclasses import dataclass
from pathlib import Path

from persona.contract import InvalidRequest

UNLIMITED = sys.maxsize


@dataclass(frozen=True)
class Limits:
    """The limits of an engine; by default a query may be of any size."""

    max_histories: int = UNLIMITED  # a query
    max_history_items: int = UNLIMITED  # a history, before truncation
    max_attention_values: int = UNLIMITED  # numbers in a result
    max_scores: int = UNLIMITED  # histories times candidates of a query
    max_k: int = UNLIMITED  # recommended items a history
    max_recommendations: int = UNLIMITED  # histories times recommended items of a query
    max_batch_tokens: int = 2048  # a run of a graph, padding included
    max_queue_tokens: int = 262_144  # waiting for one model
    kept_megabytes: float = 0.0  # of recent histories that a model keeps on an event loop; 0: none
    kept_clicks: int = 8  # of a history that is kept, at least
    kept_seconds: float = 900.0  # that anything of a history is kept, at most
    trusted_keys: tuple[Path, ...] = ()  # one of which signed each artifact; without any, no matter


def refuse_more(
    place: str,
    value: int,
    limit: int,
    unit: str,
    part: str = "clicks",
    *,
    history: int | None = None,
) -> None:
    """Holds a limit.

    Raises:
        InvalidRequest: `value` is above `limit`; `part` and `history` say where.
    """
    if value > limit:
        raise InvalidRequest(
            f"{place} has {value:,} {unit}, limit {limit:,}", part, history=history
        )
