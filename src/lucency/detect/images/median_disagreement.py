"""T0, median disagreement: how far a finding's logit moves when small structure is filtered away.

d_k(x) = z_k(x) − z_k(median_w(x)) for w = 3, 5, 7 (feature squeezing, Xu et al. 2017, arXiv
1704.01155, on logits and per finding). A w × w median deletes any s × s patch with s² < w²/2. It
cannot say where. 1 + 3 forwards an image, all findings at once.
"""

from __future__ import annotations

import numpy as np
import torch

from lucency.detect.images.evidence import Evidence, concatenate
from lucency.explain.median import median_filter
from lucency.progress import Progress, silent
from lucency.records import NetworkInputs
from lucency.victims.victim import Victim, frozen, to_grey

NAME = "T0 median disagreement"
WIDTHS = (3, 5, 7)


def measure(
    victim: Victim,
    images: NetworkInputs,
    *,
    batch_size: int = 64,
    progress: Progress = silent,
) -> Evidence:
    """images (N, size, size) -> effects in 3 K columns: the findings at each width in turn."""
    parts = []
    with torch.inference_mode(), frozen(victim.network), progress(NAME, len(images)) as advance:
        for start in range(0, len(images), batch_size):
            grey = to_grey(images[start : start + batch_size], victim.device)
            logits = victim.logits(grey)
            smooth = [victim.logits(median_filter(grey, width)) for width in WIDTHS]
            effects = torch.cat([logits - s for s in smooth], dim=1)
            parts.append(
                Evidence(
                    effects=effects.double().cpu().numpy(),
                    findings=np.tile(np.arange(logits.shape[1]), len(WIDTHS)),
                    groups=np.repeat(np.arange(len(WIDTHS)), logits.shape[1]),
                    logits=logits.repeat(1, len(WIDTHS)).double().cpu().numpy(),
                    repaired=torch.cat(smooth, dim=1).double().cpu().numpy(),
                )
            )
            advance(len(grey))
    return concatenate(parts)
