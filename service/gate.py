"""Admits requests by their key's role and limits.

Without a key file, anyone may send requests, but nobody may change what is served. With
PERSONA_ADMIN=1, this machine may.
"""

import math
import os
import re
import time
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Literal

from limits import parse
from starlette.types import Scope

from persona.contract import PersonaError, RequestTooLarge
from service.errors import Forbidden, RateLimited, Unauthorized
from service.keys import HISTORIES, Key, Keyring
from service.metrics import MULTIPROCESS_FOLDER
from service.shared_counts import SharedCounts
from service.versions.admission import require_operator
from service.visit import current

# Probes and scrapers have no key. They learn how busy the service is, but see no histories.
OPEN = frozenset(
    {"/", "/health/live", "/health/ready", "/metrics", "/v2/health/live", "/v2/health/ready"}
)
# The page has no secrets: it asks its user for a key, and sends it to the API.
_PAGE = "/playground/"
# Requests that change which models and items are served.
_ADMIN = re.compile(r"/(v1/models|v2/repository/models)/[^/]+/(load|unload|share)|/v1/items")


@dataclass(frozen=True, slots=True)
class _OwnLimit:
    """A limit of one key."""

    name: str
    amount: int
    seconds: int
    text: str


@cache
def _own_limits(key: Key, *, of_histories: bool) -> list[_OwnLimit]:
    found = []
    for text in key.limits:
        if (HISTORIES in text) == of_histories:
            item = parse(text.replace(HISTORIES, "", 1))
            unit = HISTORIES if of_histories else ""
            shown = str(item).replace(" per", f"{unit} per", 1)
            found.append(
                _OwnLimit(item.key_for(key.name) + unit, item.amount, item.get_expiry(), shown)
            )
    return found


class Gate:
    """Finds the key of a request, and refuses requests without a key or over its limits."""

    def __init__(self, keys: Path | None, *, open_to_operators: bool = False) -> None:
        """Reads the keys.

        Without keys, `open_to_operators` lets this machine change what is served.

        Raises:
            BrokenKeys: the file cannot be used.
        """
        self._keyring = Keyring(keys) if keys is not None else None
        self._open_to_operators = open_to_operators
        shared = os.environ.get(MULTIPROCESS_FOLDER)
        self._counts = SharedCounts(Path(shared) if shared else None)

    @property
    def has_keys(self) -> bool:
        """Whether requests need a key."""
        return self._keyring is not None

    def admit(self, scope: Scope) -> Key | None:
        """The key of an admitted request; None if it needs none.

        Raises:
            Unauthorized: it has no key, or an unknown one.
            Forbidden: the key is not an admin key, or there are no keys and the request
                comes from another machine.
            RateLimited: a limit of the key is reached.
        """
        need = _need(scope["method"], scope["path"], scope.get("root_path", ""))
        if need == "nothing":
            return None
        if self._keyring is None:
            if need == "admin key":
                require_operator(self._open_to_operators, scope.get("client"), scope["headers"])
            return None
        presented = _presented(scope)
        if presented is None:
            raise Unauthorized("this needs a key: Authorization: Bearer KEY, or x-api-key: KEY")
        key = self._keyring.find(presented, time.monotonic())
        if key is None:
            raise Unauthorized("the key is not known")
        if need == "admin key" and key.role != "admin":
            raise Forbidden(f"the key '{key.name}' is not an admin key")
        if (visit := current()) is not None:
            visit.key = key.name
            if key.limits and _own_limits(key, of_histories=True):
                visit.charge = partial(self._charge, key, of_histories=True)
        if key.limits:
            self._charge(key, 1, of_histories=False)
        return key

    def _charge(self, key: Key, amount: int, *, of_histories: bool) -> None:
        """Counts requests or histories; refused ones do not count.

        Raises:
            RateLimited: a limit of the key is reached.
            RequestTooLarge: the request alone has more histories than a limit.
        """
        limits = _own_limits(key, of_histories=of_histories)
        for number, limit in enumerate(limits, 1):
            if self._counts.add(limit.name, limit.seconds, amount) > limit.amount:
                for counted in limits[:number]:
                    self._counts.add(counted.name, counted.seconds, -amount)
                raise self._limited(key, limit, amount)

    def _limited(self, key: Key, limit: _OwnLimit, amount: int) -> PersonaError:
        if amount > limit.amount:
            return RequestTooLarge(
                f"the request has {amount:,} histories; the limit of the key '{key.name}' is "
                f"{limit.text}"
            )
        seconds = math.ceil(self._counts.seconds_left(limit.seconds))
        return RateLimited(
            f"the limit of the key '{key.name}' is {limit.text}; try again in {seconds} s",
            retry_after_s=max(1, seconds),
        )


@lru_cache(maxsize=1024)
def _need(method: str, path: str, prefix: str) -> Literal["nothing", "key", "admin key"]:
    """The role that a request needs; `prefix` was put before the path by a proxy."""
    path = path.removeprefix(prefix)
    if path in OPEN or path.startswith(_PAGE):
        return "nothing"
    changes = method == "POST" and _ADMIN.fullmatch(path) is not None
    return "admin key" if changes else "key"


def _presented(scope: Scope) -> bytes | None:
    """The key in a request's headers."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, presented = value.partition(b" ")
            if scheme.lower() == b"bearer":
                return bytes(presented.strip())
        elif name == b"x-api-key":
            return bytes(value)
    return None
