"""What is wrong with an artifact.

PersonaError
└── ArtifactError    a file is missing, changed, malformed, or answers otherwise; names the file
"""

from persona.contract import PersonaError


class ArtifactError(PersonaError):
    """An artifact cannot be used; the message names the file and the reason."""
