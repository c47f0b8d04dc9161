"""Two clients for one contract: `Client` blocks, `AsyncClient` awaits; the rest is shared."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, TypedDict, TypeVar, Unpack

import httpx
import stamina

from client import answers, wire
from client.errors import ClientError, ConnectionFailed, DeadlineExceeded, NotReady
from client.results import Encoded, ItemId, Model, Scored
from client.wire import AttentionDetail, Call, History, Limits, UnknownItems

T = TypeVar("T")
DEFAULT_URL = "http://127.0.0.1:8000"
PROBE_INTERVAL_S = 0.1


class Options(TypedDict, total=False):
    """What both clients take by keyword."""

    timeout_s: float  # to connect, and again to answer; 30
    attempts: int  # of each request, the first included; 5
    retry_for_s: float  # no further attempt after this long; 60
    limits: Limits  # of one request
    headers: dict[str, str]  # sent with every request


class _Shared:
    """Options, retries, and the names of what goes wrong on the way."""

    def __init__(self, url: str, options: Options) -> None:
        if httpx.URL(url).scheme not in {"http", "https"}:
            raise ConnectionFailed(f"{url}: an address starts with http:// or https://")
        self.url = url
        self._timeout_s = options.get("timeout_s", 30.0)
        self._attempts = options.get("attempts", 5)
        self._retry_for_s = options.get("retry_for_s", 60.0)
        self._limits = options.get("limits", Limits())
        self._headers = {"content-type": "application/json"} | options.get("headers", {})

    def _tries(self) -> Any:
        """The attempts at one request, to be iterated with `for` or `async for`."""
        return stamina.retry_context(
            on=self._retry_when,
            attempts=self._attempts,
            timeout=self._retry_for_s,
            wait_initial=0.1,
            wait_max=5.0,
            wait_jitter=0.5,
        )

    def _retry_when(self, error: Exception) -> bool | float:
        """Whether to try again; as a number, after exactly so many seconds."""
        if not isinstance(error, ClientError) or not error.retryable:
            return False
        if error.retry_after is None:
            return True
        return error.retry_after if error.retry_after <= self._retry_for_s else False

    @contextmanager
    def _named_failures(self) -> Iterator[None]:
        try:
            yield
        except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
            raise DeadlineExceeded(f"{self.url}: no answer in {self._timeout_s:g} s") from error
        except httpx.RequestError as error:
            reason = str(error) or type(error).__name__
            raise ConnectionFailed(f"{self.url}: {reason}") from error


class Client(_Shared):
    """Talks to a Persona service; safe to share between threads, best used in a `with` block.

    Connection errors and the answers 429, 503 and 504 are tried again with growing pauses,
    or after the pause that the service asks for; nothing else is. Every method raises the
    errors of `client.errors`.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        transport: httpx.BaseTransport | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(url, options)
        self._http = httpx.Client(
            base_url=url, timeout=self._timeout_s, headers=self._headers, transport=transport
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connections; the client cannot be used afterwards."""
        self._http.close()

    def encode(
        self,
        histories: Iterable[History],
        *,
        model: str | None = None,
        attention: AttentionDetail = "none",
        unknown_items: UnknownItems = "token",
    ) -> Encoded:
        """The user embeddings of `histories`, each ordered from oldest to newest click.

        Args:
            histories: of any number; each a sequence of item ids, or a mapping
                `{"id": ..., "items": [...]}` whose id comes back with the result.
            model: its name; may be left out where the service has one model.
            attention: `pooled` for the weights in the position that the embedding is read
                from, `full` for every block's matrix.
            unknown_items: `token` keeps an item that the model does not know as a click on
                something unknown, `drop` leaves it out, `error` refuses the request.
        """
        calls = wire.encode_calls(
            histories, self._limits, model=model, attention=attention, unknown_items=unknown_items
        )
        return answers.joined_encoded([self._send(call) for call in calls])

    def score(
        self,
        histories: Sequence[History],
        candidates: Sequence[ItemId] | Sequence[Sequence[ItemId]],
        *,
        model: str | None = None,
        attention: bool = False,
        unknown_items: UnknownItems = "token",
    ) -> Scored:
        """How likely each history's next click is one of the `candidates`.

        Args:
            histories: as for `encode`.
            candidates: item ids for all histories, or one list a history.
            model: as for `encode`.
            attention: whether to tell how much each click speaks for each candidate.
            unknown_items: as for `encode`, of the histories; an unknown candidate is refused.
        """
        calls = wire.score_calls(
            histories,
            candidates,
            self._limits,
            model=model,
            attention=attention,
            unknown_items=unknown_items,
        )
        return answers.joined_scored([self._send(call) for call in calls])

    def models(self) -> list[Model]:
        """The models that the service offers."""
        return self._send(wire.models_call())

    def ready(self) -> bool:
        """Whether the service can answer now; asks once and raises nothing."""
        return self._not_ready() is None

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Returns once the service can answer.

        Raises:
            NotReady: it could not within `timeout_s`; the message has the last reason.
        """
        deadline = time.monotonic() + timeout_s
        while reason := self._not_ready():
            if time.monotonic() >= deadline:
                raise _never_ready(self.url, timeout_s, reason)
            time.sleep(PROBE_INTERVAL_S)

    def _not_ready(self) -> ClientError | None:
        try:
            self._send_once(wire.ready_call())
        except ClientError as error:
            return error
        return None

    def _send(self, call: Call[T]) -> T:
        for attempt in self._tries():
            with attempt:
                return self._send_once(call)
        raise AssertionError("stamina raises after the last attempt")

    def _send_once(self, call: Call[T]) -> T:
        with self._named_failures():
            response = self._http.request(call.method, call.path, content=call.content)
        return wire.read(call, response)


class AsyncClient(_Shared):
    """`Client` for asyncio: the same methods, awaited; use it in `async with`."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(url, options)
        self._http = httpx.AsyncClient(
            base_url=url, timeout=self._timeout_s, headers=self._headers, transport=transport
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections; the client cannot be used afterwards."""
        await self._http.aclose()

    async def encode(
        self,
        histories: Iterable[History],
        *,
        model: str | None = None,
        attention: AttentionDetail = "none",
        unknown_items: UnknownItems = "token",
    ) -> Encoded:
        """As `Client.encode`."""
        calls = wire.encode_calls(
            histories, self._limits, model=model, attention=attention, unknown_items=unknown_items
        )
        return answers.joined_encoded([await self._send(call) for call in calls])

    async def score(
        self,
        histories: Sequence[History],
        candidates: Sequence[ItemId] | Sequence[Sequence[ItemId]],
        *,
        model: str | None = None,
        attention: bool = False,
        unknown_items: UnknownItems = "token",
    ) -> Scored:
        """As `Client.score`."""
        calls = wire.score_calls(
            histories,
            candidates,
            self._limits,
            model=model,
            attention=attention,
            unknown_items=unknown_items,
        )
        return answers.joined_scored([await self._send(call) for call in calls])

    async def models(self) -> list[Model]:
        """As `Client.models`."""
        return await self._send(wire.models_call())

    async def ready(self) -> bool:
        """As `Client.ready`."""
        return await self._not_ready() is None

    async def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """As `Client.wait_until_ready`."""
        deadline = time.monotonic() + timeout_s
        while reason := await self._not_ready():
            if time.monotonic() >= deadline:
                raise _never_ready(self.url, timeout_s, reason)
            await asyncio.sleep(PROBE_INTERVAL_S)

    async def _not_ready(self) -> ClientError | None:
        try:
            await self._send_once(wire.ready_call())
        except ClientError as error:
            return error
        return None

    async def _send(self, call: Call[T]) -> T:
        async for attempt in self._tries():
            with attempt:
                return await self._send_once(call)
        raise AssertionError("stamina raises after the last attempt")

    async def _send_once(self, call: Call[T]) -> T:
        with self._named_failures():
            response = await self._http.request(call.method, call.path, content=call.content)
        return wire.read(call, response)


def _never_ready(url: str, timeout_s: float, reason: ClientError) -> NotReady:
    return NotReady(f"{url} did not become ready within {timeout_s:g} s: {reason}")
