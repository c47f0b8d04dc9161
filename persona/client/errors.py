"""What can go wrong between the client and a service, beside the errors of `persona.contract`.

PersonaError
├── ConnectionFailed    no connection, or it broke; tried again
├── ChangeRefused       what is served stays as it is; the message says why
├── ServerError         the service failed; its log says why
└── UnexpectedAnswer    the answer does not come from Persona
"""

from persona.contract import PersonaError


class ConnectionFailed(PersonaError):
    """The service cannot be reached, or the connection broke."""


class ChangeRefused(PersonaError):
    """The service does not change what it serves: it may not, or a version is broken."""


class ServerError(PersonaError):
    """The service failed while it computed the answer."""


class UnexpectedAnswer(PersonaError):
    """Something answers at this address, but not as Persona does."""
