"""Errors of the HTTP service; all others are in persona/contract.py.

PersonaError
├── ClientGone       the client closed the connection before the answer
├── UnknownEncoding  the body is compressed
├── Unauthorized     no key, or an unknown one
├── Forbidden        the sender or the key is not allowed to do this
├── RateLimited      the key's limit is reached; try again later
├── Conflict         this change of versions or items is not possible
├── NoStateFolder    the state folder cannot be written
├── BrokenKeys       the key file cannot be used; names the place in it
├── CannotListen     cannot listen on the address, for example because the port is in use
├── CannotShare      no folder has room for the files that the workers share
└── CannotServe      no worker becomes ready
"""

from persona.contract import PersonaError


class ClientGone(PersonaError):
    """The client has disconnected."""


class UnknownEncoding(PersonaError):
    """The body is compressed or otherwise encoded."""


class Forbidden(PersonaError):
    """The sender or the key is not allowed to do this."""


class Conflict(PersonaError):
    """This change is not possible, and nothing has changed; the message says why."""


class NoStateFolder(PersonaError):
    """The service cannot start; the message names the folder."""


class CannotListen(PersonaError):
    """The service cannot start; the message names the address."""


class BrokenKeys(PersonaError):
    """The keys cannot be read or written; the message names the file and the place."""


class Unauthorized(PersonaError):
    """The request needs a key."""


class RateLimited(PersonaError):
    """The key's limit is reached; `retry_after_s` says when to try again."""


class CannotShare(PersonaError):
    """The service cannot start; the message names the folders and what is wrong with each."""


class CannotServe(PersonaError):
    """The service has given up; the message says how the last worker ended."""
