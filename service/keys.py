"""The keys of clients: named, stored as hashes in a file, and reloaded when the file changes.

A key is 32 random bytes, so one round of SHA-256 is enough. Slow hashes such as bcrypt protect
passwords, which can be guessed, and would cost each request a tenth of a second here.
"""

import hashlib
import hmac
import json
import logging
import secrets
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from limits import parse
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from service.errors import BrokenKeys

PREFIX = "persona_"  # lets secret scanners recognise a key
LOOK_S = 1.0  # maximum delay until a change of the file is noticed

logger = logging.getLogger(__name__)


HISTORIES = " histories"  # follows the number if the limit counts histories


def _checked_limit(text: str) -> str:
    parse(text.replace(HISTORIES, "", 1))
    return text


# Examples: "100/second", which counts requests, or "1000000 histories/day".
Limit = Annotated[str, AfterValidator(_checked_limit)]
Role = Literal["user", "admin"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Key(_Strict):
    """A key's holder, role and limits."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    role: Role = "user"
    limits: tuple[Limit, ...] = ()  # all hold


class KeyFile(_Strict):
    """The content of the key file."""

    keys: tuple[Key, ...] = ()


def read_keys(path: Path) -> tuple[Key, ...]:
    """The keys of a file.

    Raises:
        BrokenKeys: the file is missing or malformed, or contains a name twice.
    """
    try:
        keys = KeyFile.model_validate_json(path.read_bytes()).keys
    except OSError as error:
        raise BrokenKeys(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, problem["loc"]))
        raise BrokenKeys(f"{path}: {place}: {problem['msg']}") from None
    names = [key.name for key in keys]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BrokenKeys(f"{path}: the name '{twice[0]}' occurs twice")
    return keys


def add_key(path: Path, name: str, role: Role = "user", limits: Iterable[str] = ()) -> str:
    """Adds a key to a file, created if missing; returns the key, which is stored nowhere else.

    Raises:
        BrokenKeys: the name exists, or the name, a limit or the file is not valid.
    """
    keys = read_keys(path) if path.exists() else ()
    if name in {key.name for key in keys}:
        raise BrokenKeys(f"{path}: the name '{name}' exists already")
    made = PREFIX + secrets.token_urlsafe(32)
    try:
        key = Key(name=name, sha256=_hash(made.encode()), role=role, limits=tuple(limits))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        raise BrokenKeys(f"{problem['loc'][0]} {problem['input']!r}: {problem['msg']}") from None
    _write(path, (*keys, key))
    return made


def remove_key(path: Path, name: str) -> None:
    """Removes a key from a file.

    Raises:
        BrokenKeys: no key has that name, or the file is not valid.
    """
    keys = read_keys(path)
    if name not in {key.name for key in keys}:
        raise BrokenKeys(f"{path}: no key has the name '{name}'")
    _write(path, tuple(key for key in keys if key.name != name))


def _write(path: Path, keys: tuple[Key, ...]) -> None:
    """Replaces the file in one step, so that no reader sees a part of it."""
    text = json.dumps(KeyFile(keys=keys).model_dump(mode="json"), indent=1) + "\n"
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    written = Path(file.name)
    written.chmod(mode)
    written.replace(path)


def _hash(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


def _by_digest(path: Path) -> dict[str, Key]:
    return {key.sha256: key for key in read_keys(path)}


class Keyring:
    """The current keys of a file."""

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Raises:
            BrokenKeys: as `read_keys`.
        """
        self._path = path
        self._seen = self._signature()
        self._keys = _by_digest(path)
        self._looked = 0.0

    def find(self, presented: bytes, now: float) -> Key | None:
        """The key with this secret.

        It is looked up by its digest, whose bytes an attacker cannot choose, and compared in
        constant time.
        """
        if now - self._looked > LOOK_S:
            self._looked = now
            self._read_again()
        digest = _hash(presented)
        found = self._keys.get(digest)
        if found is None or not hmac.compare_digest(found.sha256, digest):
            return None
        return found

    def _read_again(self) -> None:
        """Reloads the file; a broken file changes nothing, so nobody is locked out."""
        signature = self._signature()
        if signature == self._seen:
            return
        self._seen = signature
        try:
            self._keys = _by_digest(self._path)
        except BrokenKeys as error:
            logger.warning("kept the previous keys: %s", error)
        else:
            logger.info("%d keys read from %s", len(self._keys), self._path)

    def _signature(self) -> tuple[int, ...] | None:
        """A value that changes with the file, also if it is a swapped link, as in Kubernetes."""
        with suppress(OSError):
            stat = self._path.stat()
            return stat.st_mtime_ns, stat.st_ino, stat.st_size
        return None
