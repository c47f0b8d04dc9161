"""The artifact: the folder that carries a trained encoder from export to serving."""

from persona.artifact.errors import ArtifactError
from persona.artifact.reading import Artifact, find_artifacts, find_versions, open_artifact

__all__ = ["Artifact", "ArtifactError", "find_artifacts", "find_versions", "open_artifact"]
