"""What waits in a batcher, in tokens and in seconds, and who is let in beside it."""

import heapq
from typing import Any

from persona.contract import Overloaded
from persona.engine.pace import Pace
from persona.engine.runs import Piece

# Pieces of large queries are no larger, and while small queries come, a turn takes no more than
# this of what is not due: 1 ms in which nothing else is answered.
PIECE_TOKENS = 256
STRETCH_S = 30e-6  # about ten times what it takes to compute a token
SHARE = 0.75  # of the deadline, that the queue may take: the answer has to be written and sent too
# Of what is not read yet. How long it will take is a guess; what is read and then refused has cost
# most of what an answer costs, and under load nearly all would be.
SHARE_UNREAD = 0.68


class Backlog:
    """The pieces that wait, added up."""

    def __init__(self, max_tokens: int) -> None:
        self.pace = Pace()
        self.tokens = 0
        self.seconds = 0.0  # that computing all of them will take
        self._due_s = 0.0  # and those that go before whatever arrives now
        self._later: list[tuple[float, int, Piece[Any, Any]]] = []  # a heap of the others
        self._max_tokens = max_tokens

    def admit(self, tokens: int, seconds: float, deadline_s: float, now: float) -> None:
        """Lets a query in that will take so many seconds; whatever it is, if nothing waits.

        Raises:
            Overloaded: the queue is full, or the deadline would pass in it.
        """
        if not self.tokens:
            return
        if (excess := self.tokens + tokens - self._max_tokens) > 0:
            raise Overloaded(
                f"the queue is full: {self.tokens:,} tokens wait and this request has "
                f"{tokens:,}, limit {self._max_tokens:,}",
                retry_after_s=self.seconds * min(1.0, excess / self.tokens),
            )
        self._due_before(now)
        self._refuse(seconds, tokens, deadline_s)

    def refuse_late(self, deadline_s: float, tokens: int) -> None:
        """Refuses what nobody has read yet, and which has about so many tokens; 0 are few.

        Raises:
            Overloaded: the deadline would pass in the queue.
        """
        if tokens or self.seconds > SHARE_UNREAD * deadline_s:
            own_s = self.pace.least_seconds(tokens, tokens // PIECE_TOKENS)
            self._refuse(own_s, tokens, deadline_s, SHARE_UNREAD)

    def add(self, piece: Piece[Any, Any], now: float) -> None:
        """Counts a piece that begins to wait."""
        self.tokens += piece.tokens
        self.seconds += piece.seconds
        _, due, number = piece.place
        if due <= now:
            self._count_due(piece)
        else:
            heapq.heappush(self._later, (due, number, piece))

    def remove(self, piece: Piece[Any, Any]) -> None:
        """Counts a piece that waits no more."""
        piece.waits = False
        self.tokens -= piece.tokens
        self.seconds -= piece.seconds
        if piece.is_due:
            self._due_s -= piece.seconds
        if not self.tokens:
            self.seconds = self._due_s = 0.0  # without what rounding has left
            self._later.clear()

    def _count_due(self, piece: Piece[Any, Any]) -> None:
        piece.is_due = True
        self._due_s += piece.seconds

    def _due_before(self, now: float) -> None:
        """Counts the pieces that go before a small query which arrives now."""
        while self._later and self._later[0][0] <= now:
            _, _, piece = heapq.heappop(self._later)
            if piece.waits:
                self._count_due(piece)

    def _refuse(self, own_s: float, tokens: int, deadline_s: float, share: float = SHARE) -> None:
        wait_s = self._due_s
        if tokens > PIECE_TOKENS:  # where there is a queue, others come before all of it is due
            wait_s = self.seconds + min(self.seconds, STRETCH_S * tokens)
        excess_s = wait_s + own_s - share * deadline_s
        if excess_s > 0 and wait_s > 0:
            raise Overloaded(
                f"the queue takes {wait_s * 1000:,.0f} ms and this request "
                f"{own_s * 1000:,.0f} ms, too long for {deadline_s * 1000:,.0f} ms",
                retry_after_s=min(wait_s, excess_s),
            )
