"""The errors about artifacts.

PersonaError
└── ArtifactError    a file is missing, changed or malformed, or gives other answers; names the file
"""

from persona.contract import PersonaError


class ArtifactError(PersonaError):
    """An artifact cannot be used; the message names the file and the reason."""
