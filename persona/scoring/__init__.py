"""Scores whole files: with a service, with processes of this machine, or on a Ray cluster.

A name is imported when it is first used, so that a worker has in memory only what it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from persona.scoring.errors import (
        FileError,
        InternalError,
        RunChanged,
        ScoringError,
        TooManyRejects,
        WorkerEnded,
    )
    from persona.scoring.on_ray import RayScorer
    from persona.scoring.processes import ProcessScorer
    from persona.scoring.scorer import Counts, ModelFacts, Scorer
    from persona.scoring.service import ServiceScorer
    from persona.scoring.whole_file import ScoreReport, score_file

__all__ = [
    "Counts",
    "FileError",
    "InternalError",
    "ModelFacts",
    "ProcessScorer",
    "RayScorer",
    "RunChanged",
    "ScoreReport",
    "Scorer",
    "ScoringError",
    "ServiceScorer",
    "TooManyRejects",
    "WorkerEnded",
    "score_file",
]

MODULES = {
    "errors": "FileError InternalError RunChanged ScoringError TooManyRejects WorkerEnded",
    "on_ray": "RayScorer",
    "processes": "ProcessScorer",
    "scorer": "Counts ModelFacts Scorer",
    "service": "ServiceScorer",
    "whole_file": "ScoreReport score_file",
}


def __getattr__(name: str) -> object:
    for module, names in MODULES.items():
        if name in names.split():
            return getattr(import_module(f"persona.scoring.{module}"), name)
    raise AttributeError(f"module 'persona.scoring' has no attribute '{name}'")
