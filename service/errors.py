"""What goes wrong around HTTP itself; all else is in persona/contract.py.

PersonaError
├── ClientGone       the client closed the connection before the answer was there
├── UnknownEncoding  the body is compressed
├── Forbidden        whoever asks may not change what is served
├── Conflict         what is served cannot be changed like that
├── NoStateFolder    there is no place for copies of artifacts and for what was chosen
└── CannotListen     the address cannot be listened on, for example because the port is in use
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
