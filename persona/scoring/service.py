"""Scores through a service."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TypeVar, Unpack, get_args

import httpx

from persona.client import Client, ConnectionFailed, ModelCard, UnexpectedAnswer
from persona.client.connection import Options
from persona.client.http import DEFAULT_URL
from persona.columns import ColumnKind
from persona.contract import DeadlineExceeded, ModelNotFound, NotReady, Overloaded
from persona.scoring.encoding import score_part
from persona.scoring.parts import Part
from persona.scoring.scorer import Answer, Histories, ModelFacts, Plan, ScoredPart, ask, item_type
from persona.scoring.window import Window

T = TypeVar("T")
# At a time. With 64, the queue of one worker is full and refuses some, while another worker waits:
# two cores then answer a tenth less.
REQUESTS = 16
TEMPORARY = (Overloaded, NotReady, DeadlineExceeded, ConnectionFailed)


class ServiceScorer:
    """Scores through a service, with as many requests at a time as it keeps up with.

    It sends less after the answers 429, 503 and 504 and after connection errors, and obeys
    `Retry-After`. A service that starts again meanwhile only costs the time.
    """

    at_once = 3  # parts: one that ends, one in full swing, one that begins
    # Small requests spread evenly over the workers of the service.
    batch_rows, batch_clicks = 256, 25_000
    tokens = computed_tokens = 0  # only the service knows

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        concurrency: int = REQUESTS,
        patience_s: float = 300.0,
        notice: Callable[[str], None] = lambda _: None,
        transport: httpx.BaseTransport | None = None,
        **options: Unpack[Options],
    ) -> None:
        """Connects to no service before `start`.

        Args:
            url: of the service.
            concurrency: requests at a time, at most; about 8 for each core of the service.
            patience_s: how long no request may succeed before the scoring ends.
            notice: is told when requests fail and are tried again.
            transport: as of `Client`.
            options: as of `Client`; its retries are not used.
        """
        options["attempts"] = 1
        self._client = Client(url, transport=transport, **options)
        self._window = Window(concurrency, patience_s, notice)
        self._parts = ThreadPoolExecutor(self.at_once, "score-part")
        self._requests = ThreadPoolExecutor(concurrency, "score-request")

    def start(self, plan: Plan) -> ModelFacts:
        """As in `Scorer`."""
        self._plan = plan
        first = self.answer([[]])
        # Where versions share the requests, or a new one takes over, one file is of one version.
        self._plan = replace(plan, model=first.either.model, version=first.either.version)
        facts = _facts(self._tried(self._client.models), self._plan)
        self._facts = replace(facts, items=item_type(first))
        return self._facts

    def submit(self, part: Part) -> "Future[ScoredPart | Exception]":
        """As in `Scorer`."""
        return self._parts.submit(
            score_part, self, self._plan, self._facts, part, self._requests.map
        )

    def close(self) -> None:
        """As in `Scorer`."""
        self._window.close()
        self._parts.shutdown(wait=False, cancel_futures=True)
        self._requests.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def answer(self, histories: Histories) -> Answer:
        """As in `Asked`."""
        return self._tried(
            partial(ask, self._client, self._plan, histories), divisible=len(histories) > 1
        )

    def _tried(self, ask: Callable[[], T], *, divisible: bool = False) -> T:
        """The answer, however many requests it takes.

        Raises:
            DeadlineExceeded: `divisible` says that less can be asked for.
            PersonaError: the request is refused, or nothing was answered for too long.
        """
        while True:
            sent = self._window.enter()
            try:
                answer = ask()
            except TEMPORARY as error:
                self._window.failed(error, sent)
                if divisible and isinstance(error, DeadlineExceeded):
                    raise
            except BaseException:
                self._window.answered()
                raise
            else:
                self._window.answered()
                return answer


def _columns(card: ModelCard) -> dict[str, ColumnKind]:
    """The columns of clicks that a model reads; services of earlier versions tell of none."""
    found, kinds = card.facts.get("columns"), get_args(ColumnKind)
    columns = found if isinstance(found, dict) else {}
    if not all(isinstance(one, dict) and one.get("kind") in kinds for one in columns.values()):
        raise UnexpectedAnswer(f"GET /v1/models: {card.name} has columns of an unknown kind")
    return {name: one["kind"] for name, one in columns.items()}


def _facts(cards: Sequence[ModelCard], plan: Plan) -> ModelFacts:
    """The model that answers."""
    for card in cards:
        if (card.name, card.version) == (plan.model, plan.version):
            width, checksum = card.facts.get("width"), card.facts.get("checksum", "")
            if not isinstance(width, int) or not isinstance(checksum, str):
                raise UnexpectedAnswer(f"GET /v1/models: {card.name} has no 'width'")
            architecture = card.facts.get("architecture")
            time = architecture.get("time", "none") if isinstance(architecture, dict) else "none"
            columns = _columns(card)
            return ModelFacts(
                card.name, card.version, checksum, width, reads_time=time != "none", columns=columns
            )
    offered = ", ".join(f"{card.name} version {card.version}" for card in cards) or "no model"
    raise ModelNotFound(f"no {plan.model} version {plan.version}; the service has {offered}")
