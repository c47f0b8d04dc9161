"""The artifact: the folder with a trained encoder, which export writes and serving reads."""

from persona.artifact.errors import ArtifactError
from persona.artifact.reading import Artifact, find_artifacts, find_versions, open_artifact

__all__ = ["Artifact", "ArtifactError", "find_artifacts", "find_versions", "open_artifact"]
