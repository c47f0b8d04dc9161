"""The client's errors, in addition to those of `persona.contract`.

PersonaError
├── ConnectionFailed    no connection, or it broke; retried
├── ChangeRefused       the service refused a change; the message says why
├── ServerError         the service failed; its log says why
└── UnexpectedAnswer    the answer does not come from Persona
"""

from persona.contract import PersonaError


class ConnectionFailed(PersonaError):
    """The service cannot be reached, or the connection broke."""


class ChangeRefused(PersonaError):
    """The service refused a change: it is not allowed, or a version is broken."""


class ServerError(PersonaError):
    """The service failed while it computed the answer."""


class UnexpectedAnswer(PersonaError):
    """The answer does not come from Persona, or is malformed."""
