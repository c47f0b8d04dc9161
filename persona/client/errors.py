"""What can go wrong between the client and a service, beside the errors of `persona.contract`.

PersonaError
├── ConnectionFailed    no connection, or it broke; tried again
├── ServerError         the service failed; its log says why
└── UnexpectedAnswer    the answer does not come from Persona
"""

from persona.contract import PersonaError


class ConnectionFailed(PersonaError):
    """The service cannot be reached, or the connection broke."""


class ServerError(PersonaError):
    """The service failed while it computed the answer."""


class UnexpectedAnswer(PersonaError):
    """Something answers at this address, but not as Persona does."""
