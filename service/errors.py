"""What goes wrong around HTTP itself; all else is in persona/contract.py.

PersonaError
├── ClientGone       the client closed the connection before the answer was there
├── UnknownEncoding  the body is compressed
└── CannotListen     the address cannot be listened on, for example because the port is in use
"""

from persona.contract import PersonaError


class ClientGone(PersonaError):
    """Nobody is left to answer."""


class UnknownEncoding(PersonaError):
    """The body is not as it is, but compressed or otherwise encoded."""


class CannotListen(PersonaError):
    """The service cannot start; the message names the address."""
