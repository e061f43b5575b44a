"""What every explanation returns: raw maps and the logits they explain, from the same network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from lucency.errors import ConfigError
from lucency.victims.victim import Victim

TINY = 1e-6
"""A promise nearer to 0 than this counts as this: logits have no more than float32 precision."""
LARGEST_ERROR = 0.05
"""A relative error of completeness above this is a warning …"""
SMALLEST_GAP = 0.01
"""… if it is also more than this in logits."""


@dataclass(frozen=True)
class Attribution:
    """The maps of some findings of some images.

    maps: (N, F, h, w) float32, raw, larger = more evidence for the finding's logit, never
    normalised, the method's own cells. logits: (N, K) float32, of all findings. findings: the F
    indices. completeness: (N, F) float32, |sum of the map - what the method promises| /
    max(|promise|, TINY), or None where nothing is promised. warnings: sentences with the number.
    """

    maps: Tensor
    logits: Tensor
    findings: tuple[int, ...]
    completeness: Tensor | None = None
    warnings: tuple[str, ...] = ()


Explanation = Callable[[Victim, Tensor, Sequence[int]], Attribution]
"""(victim, grey (N, 1, H, W) float32 in [0, 1], indices of findings) -> Attribution."""


def checked(
    victim: Victim, grey: Tensor, findings: Sequence[int], *, n_versions: int = 1
) -> tuple[int, ...]:
    """The findings, if the request can be served. n_versions: steps or samples of each image.

    Raises ConfigError.
    """
    if grey.ndim != 4 or grey.shape[1] != 1 or not len(grey):
        raise ConfigError(
            f"An explanation needs at least one image, as (N, 1, H, W), got {tuple(grey.shape)}."
        )
    n_findings = len(victim.findings)
    if not findings or any(not 0 <= f < n_findings for f in findings):
        raise ConfigError(
            f"An explanation needs indices of findings from 0 to {n_findings - 1}, got "
            f"{list(findings)}."
        )
    if n_versions < 1:
        raise ConfigError(f"An explanation needs at least one step or sample, got {n_versions}.")
    return tuple(findings)


def check_completeness(
    maps: Tensor, promised: Tensor, findings: tuple[str, ...], advice: str
) -> tuple[Tensor, tuple[str, ...]]:
    """maps (N, F, h, w), promised sums (N, F), the F names -> relative errors (N, F), warnings.

    One sentence at most: the worst violation, with its number and the advice.
    """
    promised = promised.double()
    gap = (maps.double().sum(dim=(2, 3)) - promised).abs()
    error = gap / promised.abs().clamp(min=TINY)
    violated = (error > LARGEST_ERROR) & (gap > SMALLEST_GAP)
    warnings: tuple[str, ...] = ()
    if violated.any():
        worst = int(gap.masked_fill(~violated, -1).argmax())
        i, f = divmod(worst, len(findings))
        warnings = (
            f"Completeness is violated by more than {LARGEST_ERROR:.0%} for {int(violated.sum())} "
            f"of {violated.numel()} maps; the largest gap is {float(gap[i, f]):.3g} in logits "
            f"({float(error[i, f]):.1%} of {float(promised[i, f]):.3g}; image {i + 1}, "
            f"{findings[f]}); {advice}.",
        )
    return error.float(), warnings
