"""How long the queue takes, measured while there is work.

Two things take time: the runs, by token and graph, and everything else that a worker's one thread
does between them, by piece: it reads requests and writes answers. Half of a short history's time is
of the second kind, and next to nothing of a long one's. The fixed cost of a run counts as tokens:
those of short runs would look slow otherwise. Larger turns weigh more, older ones less.
"""

from collections.abc import Hashable
from time import perf_counter

from persona.engine.runs import RUN_COST_TOKENS

FIRST_TOKEN_S = 5e-6  # before anything is measured
FIRST_PIECE_S = 50e-6
HORIZON_TOKENS = 32_768.0  # after as many, what was measured before counts for a third
HORIZON_PIECES = 512.0


class _Mean:
    """A weighted mean of the seconds that something takes."""

    __slots__ = ("_count", "_horizon", "_seconds")

    def __init__(self, first_s: float, horizon: float) -> None:
        self._horizon = horizon
        self._count = horizon / 16  # what the first guess counts for
        self._seconds = first_s * self._count

    def add(self, count: int, seconds: float) -> None:
        keep = max(0.0, 1 - count / self._horizon)
        self._count = self._count * keep + count
        self._seconds = self._seconds * keep + seconds

    def of_one(self) -> float:
        return self._seconds / self._count


class Pace:
    """The speed of one batcher."""

    def __init__(self) -> None:
        self._tokens: dict[Hashable, _Mean] = {}
        self._pieces = _Mean(FIRST_PIECE_S, HORIZON_PIECES)
        self._computed_s = 0.0  # in this turn
        self._computed_pieces = 0

    def seconds(self, group: Hashable, tokens: int, pieces: int = 1) -> float:
        """What computing so much takes."""
        return tokens * self._mean(group).of_one() + pieces * self._pieces.of_one()

    def least_seconds(self, tokens: int, pieces: int) -> float:
        """The same, for whichever graph is the fastest."""
        token_s = min([mean.of_one() for mean in self._tokens.values()], default=FIRST_TOKEN_S)
        return tokens * token_s + pieces * self._pieces.of_one()

    def add_run(self, group: Hashable, tokens: int, pieces: int, seconds: float) -> None:
        """Notes a run of the turn."""
        self._mean(group).add(tokens + RUN_COST_TOKENS, seconds)
        self._computed_s += seconds
        self._computed_pieces += pieces

    def end_turn(self, began: float) -> float:
        """Notes what else the turn took; it began, or had something to do, at `began`.

        Returns:
            The time, by `perf_counter`.
        """
        now = perf_counter()
        if self._computed_pieces:
            rest = max(0.0, now - began - self._computed_s)
            self._pieces.add(self._computed_pieces, rest)
        self._computed_s, self._computed_pieces = 0.0, 0
        return now

    def _mean(self, group: Hashable) -> _Mean:
        # Each search is a group of its own; all of a kind are as fast.
        kind = group if isinstance(group, str) else type(group)
        if (mean := self._tokens.get(kind)) is None:
            mean = self._tokens[kind] = _Mean(FIRST_TOKEN_S, HORIZON_TOKENS)
        return mean
