"""Scores whole files of histories with anything that is a `Scorer`."""

from persona.scoring.errors import FileError, NoHistories
from persona.scoring.rows import Columns
from persona.scoring.scorer import Scorer
from persona.scoring.whole_file import ScoreReport, score_file

__all__ = ["Columns", "FileError", "NoHistories", "ScoreReport", "Scorer", "score_file"]
