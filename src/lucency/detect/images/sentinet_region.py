"""SentiNet's region: the part of a film that an attribution map marks for a finding.

Chou et al. 2020 (arXiv 1812.00292), algorithm 2 without the masks of rival classes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from lucency.explain import EXPLANATIONS
from lucency.records import IntArray
from lucency.victims.victim import Victim


def find_regions(
    victim: Victim,
    suspects: Tensor,
    findings: IntArray,
    signs: IntArray,
    *,
    attribution: str,
    threshold: float,
    margin_px: int,
) -> Tensor:
    """suspects (P, 1, H, W), findings and signs (P,) -> the region of each, (P, 1, H, W) bool:
    where the map of sign · logit reaches its share of the maximum; empty if it is nowhere above 0.
    """
    regions = torch.zeros_like(suspects, dtype=torch.bool)
    for finding in np.unique(findings):
        rows = torch.from_numpy(np.flatnonzero(findings == finding)).to(suspects.device)
        explained = EXPLANATIONS[attribution](victim, suspects[rows], [int(finding)])
        sign = torch.from_numpy(signs).to(suspects.device)[rows].view(-1, 1, 1, 1)
        heat = (explained.maps * sign).clamp(min=0)
        heat = interpolate(heat, suspects.shape[2:], mode="bilinear", align_corners=False)
        peak = heat.amax(dim=(2, 3), keepdim=True)
        hot = (heat >= threshold * peak) & (heat > 0)
        regions[rows] = max_pool2d(hot.float(), 2 * margin_px + 1, stride=1, padding=margin_px) > 0
    return regions
