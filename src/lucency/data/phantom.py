"""`phantom`: a synthetic chest X-ray cohort, drawn from a seed; nothing is downloaded.

Patients have several films, PA or AP, and a subset of the 14 ChestX-ray14 findings, at about the
prevalence and co-occurrence of the real data set (Wang et al., CVPR 2017). A film is drawn on
demand from (seed, row), so the cohort costs no memory and any film can be drawn alone. The films
are for trying and testing the flow; no number measured on them says anything about patients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from pydantic import Field
from scipy.special import ndtri

from lucency.data.guard import FileImages
from lucency.data.phantom_anatomy import Film
from lucency.data.phantom_film import draw_film
from lucency.records import (
    BoolArray,
    Decoded,
    Float64Array,
    FloatArray,
    Image,
    IntArray,
    Radiographs,
    Record,
    Transform,
)

PREVALENCE = {
    "Atelectasis": 0.103,
    "Cardiomegaly": 0.025,
    "Effusion": 0.119,
    "Infiltration": 0.177,
    "Mass": 0.052,
    "Nodule": 0.056,
    "Pneumonia": 0.013,
    "Pneumothorax": 0.047,
    "Consolidation": 0.042,
    "Edema": 0.021,
    "Emphysema": 0.022,
    "Fibrosis": 0.015,
    "Pleural_Thickening": 0.030,
    "Hernia": 0.002,
}
"""Share of films with each finding, as in ChestX-ray14, in its order."""

CORRELATION = {
    ("Atelectasis", "Effusion"): 0.35,
    ("Atelectasis", "Infiltration"): 0.15,
    ("Atelectasis", "Consolidation"): 0.20,
    ("Cardiomegaly", "Effusion"): 0.30,
    ("Cardiomegaly", "Edema"): 0.20,
    ("Effusion", "Infiltration"): 0.20,
    ("Effusion", "Consolidation"): 0.30,
    ("Effusion", "Edema"): 0.20,
    ("Effusion", "Mass"): 0.15,
    ("Effusion", "Pleural_Thickening"): 0.20,
    ("Infiltration", "Edema"): 0.35,
    ("Infiltration", "Pneumonia"): 0.30,
    ("Infiltration", "Consolidation"): 0.15,
    ("Mass", "Nodule"): 0.30,
    ("Mass", "Consolidation"): 0.15,
    ("Pneumonia", "Edema"): 0.35,
    ("Pneumonia", "Consolidation"): 0.20,
    ("Pneumothorax", "Emphysema"): 0.35,
    ("Fibrosis", "Pleural_Thickening"): 0.35,
    ("Fibrosis", "Nodule"): 0.15,
}
"""Latent (tetrachoric-like) correlations of the pairs that co-occur; all other pairs are 0."""

# Share of the latent variance that a patient carries from film to film.
PATIENT_SHARE = 0.6
FILMS_PER_PATIENT = 2.2


class PhantomSource(Record):
    """`[data] source = "phantom"`.

    images: number of films. size: height and width of a film in pixels.
    """

    source: Literal["phantom"] = "phantom"
    images: int = Field(default=4000, ge=50, le=200_000)
    size: int = Field(default=160, ge=64, le=1024)

    def load(self, seed: int) -> Radiographs:
        """Draw the cohort (labels, patients, views); films are drawn when they are read."""
        generator = np.random.default_rng([seed, 0x9A])
        patients = _draw_patients(self.images, generator)
        labels = _draw_labels(patients, generator)
        ap = _draw_ap(labels, generator)
        findings = tuple(PREVALENCE)
        return Radiographs(
            name=f"phantom ({self.images} synthetic films of {self.size} × {self.size} px)",
            findings=findings,
            image_ids=tuple(f"phantom-{i:06d}" for i in range(self.images)),
            patient_ids=tuple(f"P{p:06d}" for p in patients),
            labels=labels,
            splits=(None,) * self.images,
            views=tuple("AP" if a else "PA" for a in ap),
            images=PhantomImages(seed, self.size, patients, labels, ap),
            notes=("The films are synthetic: no number here says anything about patients.",),
        )


@dataclass(frozen=True)
class PhantomImages:
    """The films of a cohort, drawn when read. labels (N, 14); ap (N,) bool; patients (N,)."""

    seed: int
    size: int
    patients: IntArray
    labels: FloatArray
    ap: BoolArray

    def read(
        self, rows: Sequence[int], transform: Transform
    ) -> Iterator[Decoded | tuple[int, str]]:
        for outcome in self._drawing.read(rows, _Draw(self, transform)):
            if isinstance(outcome, Decoded):
                outcome = replace(outcome, native_shape=(self.size, self.size))
            yield outcome

    @cached_property
    def _drawing(self) -> FileImages:
        """Its workers stay for later reads, as those of real files do."""
        return FileImages([""] * len(self.patients))

    def draw(self, row: int) -> Image:
        """One film, (size, size) uint8, a pure function of the seed and the row."""
        film = Film(
            size=self.size,
            ap=bool(self.ap[row]),
            findings=frozenset(
                name for name, label in zip(PREVALENCE, self.labels[row], strict=True) if label
            ),
        )
        patient = np.random.default_rng([self.seed, 0xB0D, int(self.patients[row])])
        exposure = np.random.default_rng([self.seed, 0xF11, row])
        return draw_film(film, patient, exposure)


@dataclass(frozen=True)
class _Draw:
    """Draw a film, then transform it; films are drawn in the worker processes."""

    films: PhantomImages
    transform: Transform

    def __call__(self, _: Image, row: int) -> Image:
        return self.transform(self.films.draw(row), row)


def _draw_patients(n: int, generator: np.random.Generator) -> IntArray:
    """A patient number a film, ascending; films per patient are geometric."""
    counts = generator.geometric(1 / FILMS_PER_PATIENT, size=n)
    return np.repeat(np.arange(n), counts)[:n].astype(np.int64)


def _draw_labels(patients: IntArray, generator: np.random.Generator) -> FloatArray:
    """(N, 14) in {0, 1}: a Gaussian copula over findings, shared in part by a patient's films."""
    root = _Correlation().root
    k = len(PREVALENCE)
    shared = generator.standard_normal((int(patients[-1]) + 1, k))[patients]
    own = generator.standard_normal((len(patients), k))
    latent = (np.sqrt(PATIENT_SHARE) * shared + np.sqrt(1 - PATIENT_SHARE) * own) @ root.T
    threshold = ndtri(1 - np.array(list(PREVALENCE.values())))
    return np.asarray(latent > threshold, dtype=np.float32)


def _draw_ap(labels: FloatArray, generator: np.random.Generator) -> BoolArray:
    """(N,) bool: bedside (AP) films are 35 % at no finding and more with each finding."""
    share = np.clip(0.35 + 0.12 * labels.sum(axis=1), 0, 0.85)
    return np.asarray(generator.random(len(labels)) < share)


class _Correlation:
    """The findings' correlation matrix, made positive definite, and its Cholesky root."""

    @cached_property
    def root(self) -> Float64Array:
        names = list(PREVALENCE)
        matrix = np.eye(len(names))
        for (a, b), value in CORRELATION.items():
            i, j = names.index(a), names.index(b)
            matrix[i, j] = matrix[j, i] = value
        values, vectors = np.linalg.eigh(matrix)
        matrix = vectors @ np.diag(np.clip(values, 1e-3, None)) @ vectors.T
        scale = 1 / np.sqrt(np.diag(matrix))
        return np.linalg.cholesky(matrix * scale[:, None] * scale[None, :])
