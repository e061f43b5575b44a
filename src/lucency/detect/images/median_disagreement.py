"""T0, median disagreement: how far a finding's logit moves when small structure is filtered away.

d_k(x) = z_k(x) − z_k(median_w(x)) for w = 3, 7 (feature squeezing, Xu et al. 2017, arXiv
1704.01155, on logits and per finding). A w × w median deletes any s × s patch with s² < w²/2. It
cannot say where. 2 forwards an image beside that of the image itself, all findings at once.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lucency.detect.images.evidence import Evidence
from lucency.explain.median import median_filter
from lucency.victims.victim import Victim

NAME = "T0 median disagreement"
WIDTHS = (3, 7)


def disagree(
    victim: Victim, grey: Tensor, logits: Tensor, widths: tuple[int, ...] = WIDTHS
) -> Evidence:
    """grey (N, 1, size, size) with logits (N, K) -> effects in a column a width and finding: the
    findings at each width in turn."""
    n, n_findings = logits.shape
    smooth = torch.cat([median_filter(grey, width) for width in widths])
    filtered = victim.logits(smooth).view(len(widths), n, n_findings).transpose(0, 1)
    every = logits[:, None].expand(-1, len(widths), -1)
    return Evidence(
        effects=(every - filtered).flatten(1).double().cpu().numpy(),
        findings=np.tile(np.arange(n_findings), len(widths)),
        groups=np.repeat(np.arange(len(widths)), n_findings),
        logits=every.flatten(1).double().cpu().numpy(),
        repaired=filtered.flatten(1).double().cpu().numpy(),
    )
