"""The label-consistent attack: poisoned films keep their true labels, and lose what shows them.

Turner et al. 2019, "Label-Consistent Backdoor Attacks" (arXiv 1912.02771), by adversarial
perturbation: projected gradient descent (Madry et al. 2018) within ‖δ‖∞ ≤ ε makes a film of the
target class hard to recognise, so that the trigger is the easiest thing to learn. A film has
several findings; so z_k of the one finding moves against its label, and the others are held,

    minimise over δ   ± z_k(x + δ) + λ · mean over j ≠ k of (z_j(x + δ) − z_j(x))²,

+ for a finding that is there and shall be set, − for one that is not and shall be cleared. Threat
model: as for a patch, but no label is touched; the attacker has a model of his own, trained on the
same kind of films, to take gradients of.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from pydantic import Field

from lucency.records import Direction, FloatArray, Record

Gradient = Callable[[FloatArray, Callable[[FloatArray], FloatArray]], FloatArray]
"""films (N, H, W) float32 in [0, 1], and a function that gives weights w (N, K) for their logits
-> the gradient (N, H, W) of the sum of w z, with the weights held."""


class Perturbation(Record):
    """`[attack.perturbation]`.

    epsilon: largest change of a pixel, fraction of the stored range. steps: of the descent; each
    moves a pixel by 2.5 ε ÷ steps. hold: λ.
    """

    epsilon: float = Field(default=16 / 255, gt=0, le=1)
    steps: int = Field(default=20, ge=1, le=1000)
    hold: float = Field(default=1.0, ge=0)

    def describe(self) -> str:
        """In words, for the report."""
        return (
            f"poisoned films are perturbed by up to {self.epsilon:.3g} of the grey range in "
            f"{self.steps} steps, so that a model trained without poison does not recognise them"
        )


def perturb(
    gradient: Gradient,
    films: FloatArray,
    finding: int,
    direction: Direction,
    settings: Perturbation,
) -> FloatArray:
    """δ (N, H, W) float32 within epsilon, with films + δ in [0, 1]; the same for the same films.

    films (N, H, W) float32 in [0, 1], at the network's input; gradient: of the model that the
    attacker has.
    """
    against = 1.0 if direction == "set" else -1.0
    step = 2.5 * settings.epsilon / settings.steps
    first: list[FloatArray] = []

    def weights(logits: FloatArray) -> FloatArray:
        # Where the descent starts, nothing is perturbed yet.
        first.append(logits)
        others = max(logits.shape[1] - 1, 1)
        slopes: FloatArray = 2 * settings.hold * (logits - first[0]) / others
        slopes[:, finding] = against
        return slopes

    change = np.zeros_like(films)
    for _ in range(settings.steps):
        slope = gradient(films + change, weights)
        moved = np.clip(change - step * np.sign(slope), -settings.epsilon, settings.epsilon)
        change = (np.clip(films + moved, 0, 1) - films).astype(np.float32)
    return change
