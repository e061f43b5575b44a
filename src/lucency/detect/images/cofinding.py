"""Co-finding residual: a finding that the other findings do not explain.

Findings come together: a film with an effusion often has atelectasis, and the logits of a network
know it. A backdoor sets or clears one finding alone. So each logit is compared with what the others
of the same film lead to expect, taking clean logits for Gaussian:

r_k(x) = (P z')_k / √P_kk,

with z' the standardised logits and P their precision matrix, shrunk (Ledoit and Wolf 2004) since
there are few clean films. It is how far z_k is above its conditional mean, in conditional
standard deviations. Where findings are independent it is the plain standardised logit.

It names the finding, cannot say where, and intervenes on nothing; a film whose findings are seldom
seen together looks odd as well. Larger |r| = more suspicious. Cost: the one forward that every test
shares.

What it is best for is to say which effects of an intervention matter. Undoing a trigger takes away
what the other findings do not explain; undoing a rib's edge changes whatever it changes. So an
effect that brings a finding closer to what the others lead to expect counts |r_k|-fold, within
limits: networks differ in how well their findings explain each other.
"""

from __future__ import annotations

import numpy as np

from lucency.detect.images.evidence import Evidence
from lucency.detect.images.whitening import Whitening, fit_whitening
from lucency.records import Float64Array, FloatArray

NAME = "co-finding residual"
LEAST, MOST = 0.5, 1.5
"""What anything counts for at least and at most. Not nothing: a trigger that clears a finding can
leave an answer that explains itself, and is found by what its repair brings to light. Not without
end: where findings explain little, the oddest clean films would set the threshold."""


def fit_residuals(logits: FloatArray | Float64Array) -> Whitening:
    """logits (n, K) of clean films. Raises DataError for fewer than 2."""
    return fit_whitening(np.asarray(logits, np.float64))


def residuals(of: Whitening, logits: FloatArray | Float64Array) -> Float64Array:
    """logits (N, K) -> (N, K): how far each finding is above what the others lead to expect, in
    clean conditional standard deviations."""
    away = of.standardise(np.asarray(logits, np.float64)) - of.mean
    # A logit that is no number makes residuals that are none, and its film is rejected later.
    with np.errstate(invalid="ignore"):
        return np.asarray((away @ of.precision) / np.sqrt(np.diag(of.precision)))


def relevance(residual: Float64Array, evidence: Evidence) -> Float64Array:
    """residual (N, K) of the films of `evidence` -> (N, C): what each effect counts for."""
    of_column = residual[:, evidence.findings]
    closer = evidence.effects * of_column > 0
    return np.where(closer, np.abs(of_column).clip(LEAST, MOST), LEAST)
