"""Where a network looked: one file an attribution method.

Each takes (victim, grey (N, 1, H, W) in [0, 1], the index of a finding) and returns (N, h, w)
float32 for that finding's logit. A new method is one file and one line here.
"""

from collections.abc import Callable

from torch import Tensor

from lucency.explain.grad_cam import grad_cam
from lucency.explain.gradient_median import gradient_median
from lucency.victims.victim import Victim

EXPLANATIONS: dict[str, Callable[[Victim, Tensor, int], Tensor]] = {
    "gradient × (x − median)": gradient_median,
    "Grad-CAM": grad_cam,
}
