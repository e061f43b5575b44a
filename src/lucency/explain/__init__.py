"""Where a network looked: one file an attribution method.

Each takes (victim, grey (N, 1, H, W) in [0, 1], indices of findings) and returns an `Attribution`
of those findings' logits. A new method is one file and one line here.
"""

from lucency.explain.attribution import Attribution, Explanation
from lucency.explain.cam import cam
from lucency.explain.grad_cam import grad_cam
from lucency.explain.gradient_input import gradient_input
from lucency.explain.gradient_median import gradient_median
from lucency.explain.hirescam import hirescam
from lucency.explain.integrated_gradients import integrated_gradients
from lucency.explain.layercam import layercam
from lucency.explain.occlusion import occlusion
from lucency.explain.rise import rise
from lucency.explain.smoothgrad import smoothgrad

__all__ = ["EXPLANATIONS", "Attribution", "Explanation"]

EXPLANATIONS: dict[str, Explanation] = {
    "gradient-median": gradient_median,
    "gradient-input": gradient_input,
    "integrated-gradients": integrated_gradients,
    "smoothgrad": smoothgrad,
    "cam": cam,
    "grad-cam": grad_cam,
    "hirescam": hirescam,
    "layercam": layercam,
    "occlusion": occlusion,
    "rise": rise,
}
"""By the names of the command line."""
