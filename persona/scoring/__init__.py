"""Scores whole files: with a service, with processes of this machine, or on a Ray cluster."""

from persona.scoring.errors import FileError, RunChanged, ScoringError, TooManyRejects, WorkerEnded
from persona.scoring.processes import ProcessScorer
from persona.scoring.scorer import Counts, ModelFacts, Scorer
from persona.scoring.service import ServiceScorer
from persona.scoring.whole_file import ScoreReport, score_file

__all__ = [
    "Counts",
    "FileError",
    "ModelFacts",
    "ProcessScorer",
    "RunChanged",
    "ScoreReport",
    "Scorer",
    "ScoringError",
    "ServiceScorer",
    "TooManyRejects",
    "WorkerEnded",
    "score_file",
]
