"""What goes wrong around HTTP itself; all else is in persona/contract.py.

PersonaError
├── ClientGone       the client closed the connection before the answer was there
├── UnknownEncoding  the body is compressed
├── CannotListen     the address cannot be listened on, for example because the port is in use
├── CannotShare      no folder has room for what the workers share
└── CannotServe      no worker becomes ready
"""

from persona.contract import PersonaError


class ClientGone(PersonaError):
    """Nobody is left to answer."""


class UnknownEncoding(PersonaError):
    """The body is not as it is, but compressed or otherwise encoded."""


class CannotListen(PersonaError):
    """The service cannot start; the message names the address."""


class CannotShare(PersonaError):
    """The service cannot start; the message names the folders and what is wrong with each."""


class CannotServe(PersonaError):
    """The service has given up; the message says how the last worker ended."""
