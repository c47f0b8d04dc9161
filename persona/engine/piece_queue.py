"""The pieces that wait to be computed, in the two orders that the batcher needs."""

import heapq
from bisect import bisect_left, insort
from collections.abc import Hashable, Iterator
from typing import Generic

from persona.engine.backlog import Backlog
from persona.engine.runs import Input, Output, Piece


class PieceQueue(Generic[Input, Output]):
    """Pieces by their due time, and those of each group by their length."""

    def __init__(self, backlog: Backlog) -> None:
        """Begins empty; the backlog is told what waits."""
        self._backlog = backlog
        self._waiting: dict[int, Piece[Input, Output]] = {}  # by number
        self._due: list[tuple[float, int]] = []  # a heap; may still name pieces that left
        self._groups: dict[Hashable, list[tuple[int, float, int]]] = {}  # sorted places

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, piece: Piece[Input, Output], now: float) -> None:
        """Lets a piece wait."""
        self._waiting[piece.place[2]] = piece
        heapq.heappush(self._due, piece.place[1:])
        insort(self._groups.setdefault(piece.group, []), piece.place)
        if piece.submission.counted:
            self._backlog.add(piece, now)

    def remove(self, piece: Piece[Input, Output]) -> None:
        """Takes a piece out."""
        del self._waiting[piece.place[2]]
        places = self._groups[piece.group]
        del places[bisect_left(places, piece.place)]
        if not places:  # a search is a group of its own, which holds what it has found
            del self._groups[piece.group]
        if piece.submission.counted:
            self._backlog.remove(piece)

    def expire(self, now: float) -> None:
        """Fails the submissions that are late."""
        submissions = [piece.submission for piece in self._waiting.values()]
        for submission in submissions:
            if submission.deadline <= now:
                submission.expire()

    def first_due(self, now: float) -> Piece[Input, Output] | None:
        """The piece that is due first; those that nobody waits for leave."""
        while self._due:
            piece = self._waiting.get(self._due[0][1])
            if piece is not None and piece.submission.is_wanted(now):
                return piece
            heapq.heappop(self._due)
            if piece is not None:
                self.remove(piece)
        return None

    def nearest(self, lead: Piece[Input, Output]) -> Iterator[Piece[Input, Output]]:
        """The pieces that wait in the leading piece's group, nearest length first."""
        places = self._groups.get(lead.group, [])
        longer = bisect_left(places, lead.place)
        shorter = longer - 1
        while shorter >= 0 or longer < len(places):
            if longer == len(places) or (
                shorter >= 0 and lead.length - places[shorter][0] < places[longer][0] - lead.length
            ):
                at, shorter = shorter, shorter - 1
            else:
                at, longer = longer, longer + 1
            yield self._waiting[places[at][2]]
