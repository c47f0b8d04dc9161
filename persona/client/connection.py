"""The base of both clients: address, options, retries and connection errors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypedDict

import httpx
import stamina

from persona.client.errors import ConnectionFailed, UnexpectedAnswer
from persona.client.options import Limits
from persona.contract import DeadlineExceeded, NotReady, Overloaded

RETRIED = (Overloaded, NotReady, DeadlineExceeded, ConnectionFailed)
# There may be room sooner, but a few attempts must outlast a burst or a worker's restart.
LEAST_PAUSE_S = 1.0


class Options(TypedDict, total=False):
    """Keyword arguments of both clients, with their defaults."""

    timeout_s: float  # to connect, and again to answer; 30
    attempts: int  # per request, including the first; 5
    retry_for_s: float  # no further attempt after this time; 60
    limits: Limits  # of one request
    headers: dict[str, str]  # sent with every request


class Connection:
    """The base of both clients."""

    def __init__(self, url: str, options: Options) -> None:
        self.url = _checked(url)
        self._timeout_s = options.get("timeout_s", 30.0)
        self._attempts = options.get("attempts", 5)
        self._retry_for_s = options.get("retry_for_s", 60.0)
        self._limits = options.get("limits", Limits())
        fixed = {"content-type": "application/json", "accept-encoding": "identity"}
        self._headers = fixed | options.get("headers", {})

    def _tries(self) -> Any:
        """The attempts for one request, for a `for` or `async for` loop."""
        return stamina.retry_context(
            on=self._retry_when,
            attempts=self._attempts,
            timeout=self._retry_for_s,
            wait_initial=0.1,
            wait_max=5.0,
            wait_jitter=0.5,
        )

    def _retry_when(self, error: Exception) -> bool | float:
        """Whether to retry, or the exact number of seconds to wait."""
        if not isinstance(error, RETRIED):
            return False
        pause_s = error.retry_after_s
        if pause_s is None:
            return True
        return max(LEAST_PAUSE_S, pause_s) if pause_s <= self._retry_for_s else False

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turns httpx's errors into those of this package."""
        try:
            yield
        except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
            raise DeadlineExceeded(f"{self.url}: no answer in {self._timeout_s:g} s") from error
        except httpx.DecodingError as error:
            raise UnexpectedAnswer(f"{self.url}: {error}") from error
        except httpx.RequestError as error:
            reason = str(error) or type(error).__name__
            raise ConnectionFailed(f"{self.url}: {reason}") from error


def _checked(url: str) -> str:
    try:
        scheme = httpx.URL(url).scheme
    except httpx.InvalidURL as error:
        raise ConnectionFailed(f"{url}: {error}") from error
    if scheme not in {"http", "https"}:
        raise ConnectionFailed(f"{url}: an address starts with http:// or https://")
    return url
