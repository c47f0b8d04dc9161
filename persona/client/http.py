"""`Client` blocks, `AsyncClient` awaits: the same methods with the same arguments."""

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Self, TypeVar, Unpack

import httpx

from persona.client import answers, requests, wire
from persona.client.answers import ModelCard, ModelState
from persona.client.connection import Connection, Options
from persona.client.options import RecommendOptions, SimilarOptions
from persona.client.wire import Call
from persona.contract import AttentionDetail, ItemId, NotReady, PersonaError, UnknownItems
from persona.results import Encoded, History, Recommended, Scored, Similar

T = TypeVar("T")
DEFAULT_URL = "http://127.0.0.1:8000"
PROBE_INTERVAL_S = 0.1


class Client(Connection):
    """Talks to a Persona service; threads may share it. Use it in a `with` block.

    The client tries again after connection errors and after the answers 429, 503 and 504, with
    growing pauses, or with the pause that the service requests. Every method raises the errors
    of `persona.contract` and `persona.client.errors`.
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
        version: str | None = None,
        attention: AttentionDetail = "none",
        unknown_items: UnknownItems = "token",
    ) -> Encoded:
        """Computes the user embeddings of any number of histories.

        Args:
            histories: each a sequence of item ids, oldest to newest, or a mapping
                `{"id": ..., "items": [...]}` whose id comes back with the result.
            model: name of the model; None for the service's default.
            version: version of the model; None for the newest.
            attention: `pooled` adds the weights behind the user embedding, `full` adds the
                matrices of every block.
            unknown_items: clicks on items that the model does not know. `token` encodes them as
                unknown, `drop` leaves them out, `error` refuses the request.
        """
        calls = requests.encode_calls(
            histories,
            self._limits,
            model=model,
            version=version,
            attention=attention,
            unknown_items=unknown_items,
        )
        return answers.joined_encoded([self._send(call) for call in calls])

    def score(
        self,
        histories: Sequence[History],
        candidates: Sequence[ItemId] | Sequence[Sequence[ItemId]],
        *,
        model: str | None = None,
        version: str | None = None,
        attention: bool = False,
        unknown_items: UnknownItems = "token",
    ) -> Scored:
        """Scores `candidates` as each history's next click.

        `candidates` are item ids for all histories, or one list per history. The score of an
        unknown candidate is NaN. `attention` adds the weights that each candidate gives to the
        clicks. Everything else is as for `encode`.
        """
        calls = requests.score_calls(
            histories,
            candidates,
            self._limits,
            model=model,
            version=version,
            attention=attention,
            unknown_items=unknown_items,
        )
        return answers.joined_scored([self._send(call) for call in calls])

    def recommend(
        self,
        histories: Iterable[History],
        k: int = 10,
        **options: Unpack[RecommendOptions],
    ) -> Recommended:
        """The `k` best items for each history.

        Returns fewer if fewer items qualify. The options are those of `persona.client.options`;
        everything else is as for `encode`.
        """
        calls = requests.recommend_calls(histories, k, self._limits, **options)
        return answers.joined_recommended([self._send(call) for call in calls])

    def similar(
        self,
        items: Iterable[ItemId],
        k: int = 10,
        **options: Unpack[SimilarOptions],
    ) -> Similar:
        """The `k` items most similar to each item, by the cosine of their embeddings.

        The item itself is left out. An unknown item has no similar items. Everything else is as
        for `recommend`.
        """
        calls = requests.similar_calls(items, k, self._limits, **options)
        return answers.joined_similar([self._send(call) for call in calls])

    def models(self) -> list[ModelCard]:
        """The models that the service serves."""
        return self._send(requests.models_call())

    def load(self, model: str, version: str | None = None) -> ModelState:
        """Loads a version beside the others; without a version, checks for the newest at once.

        Raises:
            ChangeRefused: the version is broken, or the service does not accept such requests.
        """
        return self._send(requests.change_call("load", model, version=version))

    def unload(self, model: str, version: str | None = None) -> ModelState:
        """Removes a version, or the whole model.

        Raises:
            ChangeRefused: no other version could take its place, or as for `load`.
        """
        return self._send(requests.change_call("unload", model, version=version))

    def share(self, model: str, weights: Mapping[str, float]) -> ModelState:
        """Splits the requests that name no version; without weights, the newest version gets all.

        Raises:
            ChangeRefused: as for `load`.
        """
        return self._send(requests.change_call("share", model, weights=dict(weights)))

    def ready(self) -> bool:
        """Asks the service once whether it can answer now."""
        return self._not_ready() is None

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Returns once the service can answer.

        Raises:
            NotReady: it was not ready within `timeout_s`; the message has the last reason.
        """
        deadline = time.monotonic() + timeout_s
        while reason := self._not_ready():
            if time.monotonic() >= deadline:
                raise _never_ready(self.url, timeout_s, reason)
            time.sleep(PROBE_INTERVAL_S)

    def _not_ready(self) -> PersonaError | None:
        try:
            self._send_once(requests.ready_call())
        except PersonaError as error:
            return error
        return None

    def _send(self, call: Call[T]) -> T:
        for attempt in self._tries():
            with attempt:
                return self._send_once(call)
        raise AssertionError("stamina raises after the last attempt")

    def _send_once(self, call: Call[T]) -> T:
        with (
            self._failures(),
            self._http.stream(call.method, call.path, content=call.content) as response,
        ):
            answer = wire.Answer(response, self._limits)
            for piece in response.iter_bytes():
                answer.add(piece)
        return wire.read(call, answer.complete())


class AsyncClient(Connection):
    """`Client` for asyncio: the same methods as coroutines. Use it in `async with`."""

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
        version: str | None = None,
        attention: AttentionDetail = "none",
        unknown_items: UnknownItems = "token",
    ) -> Encoded:
        """Like `Client.encode`."""
        calls = requests.encode_calls(
            histories,
            self._limits,
            model=model,
            version=version,
            attention=attention,
            unknown_items=unknown_items,
        )
        return answers.joined_encoded([await self._send(call) for call in calls])

    async def score(
        self,
        histories: Sequence[History],
        candidates: Sequence[ItemId] | Sequence[Sequence[ItemId]],
        *,
        model: str | None = None,
        version: str | None = None,
        attention: bool = False,
        unknown_items: UnknownItems = "token",
    ) -> Scored:
        """Like `Client.score`."""
        calls = requests.score_calls(
            histories,
            candidates,
            self._limits,
            model=model,
            version=version,
            attention=attention,
            unknown_items=unknown_items,
        )
        return answers.joined_scored([await self._send(call) for call in calls])

    async def recommend(
        self,
        histories: Iterable[History],
        k: int = 10,
        **options: Unpack[RecommendOptions],
    ) -> Recommended:
        """Like `Client.recommend`."""
        calls = requests.recommend_calls(histories, k, self._limits, **options)
        return answers.joined_recommended([await self._send(call) for call in calls])

    async def similar(
        self,
        items: Iterable[ItemId],
        k: int = 10,
        **options: Unpack[SimilarOptions],
    ) -> Similar:
        """Like `Client.similar`."""
        calls = requests.similar_calls(items, k, self._limits, **options)
        return answers.joined_similar([await self._send(call) for call in calls])

    async def models(self) -> list[ModelCard]:
        """Like `Client.models`."""
        return await self._send(requests.models_call())

    async def load(self, model: str, version: str | None = None) -> ModelState:
        """Like `Client.load`."""
        return await self._send(requests.change_call("load", model, version=version))

    async def unload(self, model: str, version: str | None = None) -> ModelState:
        """Like `Client.unload`."""
        return await self._send(requests.change_call("unload", model, version=version))

    async def share(self, model: str, weights: Mapping[str, float]) -> ModelState:
        """Like `Client.share`."""
        return await self._send(requests.change_call("share", model, weights=dict(weights)))

    async def ready(self) -> bool:
        """Like `Client.ready`."""
        return await self._not_ready() is None

    async def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Like `Client.wait_until_ready`."""
        deadline = time.monotonic() + timeout_s
        while reason := await self._not_ready():
            if time.monotonic() >= deadline:
                raise _never_ready(self.url, timeout_s, reason)
            await asyncio.sleep(PROBE_INTERVAL_S)

    async def _not_ready(self) -> PersonaError | None:
        try:
            await self._send_once(requests.ready_call())
        except PersonaError as error:
            return error
        return None

    async def _send(self, call: Call[T]) -> T:
        async for attempt in self._tries():
            with attempt:
                return await self._send_once(call)
        raise AssertionError("stamina raises after the last attempt")

    async def _send_once(self, call: Call[T]) -> T:
        with self._failures():
            async with self._http.stream(call.method, call.path, content=call.content) as response:
                answer = wire.Answer(response, self._limits)
                async for piece in response.aiter_bytes():
                    answer.add(piece)
        return wire.read(call, answer.complete())


def _never_ready(url: str, timeout_s: float, reason: PersonaError) -> NotReady:
    return NotReady(f"{url} did not become ready within {timeout_s:g} s: {reason}")
