"""CAM (Zhou et al. 2016, arXiv 1512.04150) in closed form: what each cell adds to a logit.

Where the logit is a linear layer of the mean of a map, it is a sum over the cells of that map; all
findings come from one forward pass, and no gradient is needed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lucency.errors import ModelError
from lucency.explain.attribution import Attribution, check_completeness, checked
from lucency.explain.batching import BUDGET_MB, batches
from lucency.victims.head import find_head, keep_features
from lucency.victims.victim import Victim, frozen

CANDIDATES = 8
"""How many of the last maps are tried: norm, ReLU, pooling and what contains them."""
TOLERANCE = 0.02
"""Of the largest feature: the mean of a bfloat16 map is no more exact."""


def cam(
    victim: Victim, grey: Tensor, findings: Sequence[int], *, budget_mb: float = BUDGET_MB
) -> Attribution:
    """grey (N, 1, H, W) in [0, 1] -> maps (N, F, h, w), signed, the cells of the last map.

    Equation 2 over the number of cells: Σ_c w_c A_c / (h·w), with w the weights of the finding in
    the last linear layer and A the map (after the ReLU) whose mean enters it. Completeness: a map
    sums to the logit without its bias. One forward for all findings. Raises ModelError for a
    network that does not end in such a mean and a linear layer.
    """
    chosen = checked(victim, grey, findings)
    weights, bias = _head(victim, chosen)
    # The engine gives features without their map.
    own = replace(victim, engine=None)
    maps, logits = [], []
    with frozen(victim.network), torch.inference_mode():
        for part in batches(victim, len(grey), budget_mb=budget_mb, with_gradients=False):
            with (
                keep_features(own.network) as entered,
                keep_maps(own.network, weights.shape[1]) as candidates,
            ):
                logits.append(own.logits(grey[part]))
            activations = _pooled_map(candidates, entered)
            cells = activations.shape[2] * activations.shape[3]
            maps.append(torch.einsum("nchw,fc->nfhw", activations, weights) / cells)
    values, scores = torch.cat(maps), torch.cat(logits)
    error, warnings = check_completeness(
        values,
        scores[:, list(chosen)] - bias,
        tuple(victim.findings[f] for f in chosen),
        "the logit is not the output of the last linear layer",
    )
    return Attribution(values, scores, chosen, error, warnings)


def _head(victim: Victim, findings: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """The weights (F, D) and biases (F,) float32 of the findings."""
    head = find_head(victim.network)
    columns = victim.columns or range(len(victim.findings))
    rows = [columns[f] for f in findings]
    if head is None or max(rows) >= head.out_features:
        found = "no linear layer" if head is None else f"one with {head.out_features} outputs"
        raise ModelError(
            f"CAM needs a network that ends in a linear layer of more than {max(rows)} outputs, "
            f"found {found}; use grad-cam, or occlusion, which works for any model."
        )
    weights = head.weight.detach()[rows].float()
    bias = weights.new_zeros(len(rows)) if head.bias is None else head.bias.detach()[rows].float()
    return weights, bias


@contextmanager
def keep_maps(network: nn.Module, channels: int) -> Iterator[deque[Tensor]]:
    """Inside the block, the last maps (N, channels, h, w) that a module gave, newest last."""
    kept: deque[Tensor] = deque(maxlen=CANDIDATES)

    def keep(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[1] == channels:
            kept.append(output)

    with ExitStack() as stack:
        for module in network.modules():
            stack.callback(module.register_forward_hook(keep).remove)
        yield kept


def _pooled_map(candidates: deque[Tensor], entered: list[Tensor]) -> Tensor:
    """The newest map whose mean, or whose ReLU's mean, is what entered the head; float32.

    A ReLU that is called as a function leaves no map behind: the one before it is rectified here.
    """
    # What comes out of the pooling is its own mean; so maps of one cell are tried last.
    newest_last = sorted(candidates, key=lambda m: m.shape[2] * m.shape[3] > 1)
    for candidate in reversed(newest_last):
        activations = candidate.float()
        for values in (activations, activations.clamp(min=0)):
            if entered and _is_close(values.mean(dim=(2, 3)), entered[-1]):
                return values
    raise ModelError(
        "CAM needs a network whose last linear layer reads the mean of a map, and this one's reads "
        "something else; use grad-cam, or occlusion, which works for any model."
    )


def _is_close(mean: Tensor, features: Tensor) -> bool:
    if mean.shape != features.shape:
        return False
    return bool((mean - features).abs().max() <= TOLERANCE * features.abs().max())
