"""What goes wrong around HTTP itself; all else is in persona/contract.py.

PersonaError
├── ClientGone       the client closed the connection before the answer was there
├── UnknownEncoding  the body is compressed
├── Unauthorized     no key, or one that is not known
├── Forbidden        whoever asks, or the key, may not do this
├── RateLimited      the key has had its requests for now; try again
├── Conflict         what is served cannot be changed like that
├── NoStateFolder    there is no place for copies of artifacts and for what was chosen
├── BrokenKeys       the file of keys cannot be used; names the place in it
├── CannotListen     the address cannot be listened on, for example because the port is in use
├── CannotShare      no folder has room for what the workers share
└── CannotServe      no worker becomes ready
"""

from persona.contract import PersonaError


class ClientGone(PersonaError):
    """Nobody is left to answer."""


class UnknownEncoding(PersonaError):
    """The body is not as it is, but compressed or otherwise encoded."""


class Forbidden(PersonaError):
    """Whoever asks may not do this."""


class Conflict(PersonaError):
    """What is served cannot be changed like that; the message says why, and all stays as it is."""


class NoStateFolder(PersonaError):
    """The service cannot start; the message names the folder."""


class CannotListen(PersonaError):
    """The service cannot start; the message names the address."""


class BrokenKeys(PersonaError):
    """The keys cannot be read or written; the message names the file and the place."""


class Unauthorized(PersonaError):
    """The request needs a key."""


class RateLimited(PersonaError):
    """The key's limit is reached; `retry_after_s` says when it is not."""


class CannotShare(PersonaError):
    """The service cannot start; the message names the folders and what is wrong with each."""


class CannotServe(PersonaError):
    """The service has given up; the message says how the last worker ended."""
