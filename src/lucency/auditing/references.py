"""What the tests say of clean reference models, kept: an audit that was killed goes on, and the
next audit beside the same models does not ask them again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lucency.detect.models.audit import Scores
from lucency.progress import Progress
from lucency.records import Float64Array, Record
from lucency.runs import digest, read_json, write_json


class KeptScores(Record):
    """Scores of one test on one model, as nested lists (2, K, L)."""

    test: str
    scores: list[list[list[float]]]


def kept(scores: Scores, folder: Path, identity: str) -> Scores:
    """The same, written into the folder and read from there once they are. identity: a digest of
    all that they depend on but the test. Raises IntegrityError for a file that is torn."""

    def found(name: str, progress: Progress) -> Float64Array:
        path = folder / f"{digest({'of': identity, 'test': name})[:24]}.json"
        if not path.exists():
            made = scores(name, progress)
            write_json(path, KeptScores(test=name, scores=made.tolist()))
        return np.array(read_json(path, KeptScores).scores)

    return found
