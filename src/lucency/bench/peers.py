"""The same maps by other toolkits, as their users get them: one call a finding."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lucency.bench.toolkits import captum, grad_cam_toolkit
from lucency.data.preprocess import InputContract
from lucency.explain.baseline import FILL_WIDTH
from lucency.explain.gradient_median import WIDTH
from lucency.explain.median import median_filter
from lucency.explain.rise import GRID, PROBABILITY, draw_masks, masks_of
from lucency.victims.victim import Victim

Peer = Callable[[Tensor, Sequence[int]], Tensor]
"""grey (N, 1, H, W) in [0, 1], findings -> maps (N, F, h, w) float32 on the CPU."""


class GreyModel(nn.Module):
    """A victim's network as a user has it: float32, normalisation inside, and by default the
    default layout."""

    def __init__(
        self, victim: Victim, layout: torch.memory_format = torch.contiguous_format
    ) -> None:
        super().__init__()
        plain: Any = copy.deepcopy(victim.network)
        self.network = plain.to(memory_format=layout).requires_grad_(True).eval()
        self.layout = layout
        self.mean, self.std = _constants(victim.contract, victim.device)
        self.channels = victim.contract.channels

    def forward(self, grey: Tensor) -> Tensor:
        """grey (N, 1, H, W) in [0, 1] -> logits (N, K)."""
        batch = (grey.expand(-1, self.channels, -1, -1) - self.mean) / self.std
        logits: Tensor = self.network(batch.contiguous(memory_format=self.layout))
        return logits


def captum_gradient_median(model: GreyModel) -> Peer:
    """Captum's gradient, times what is smaller than the median."""
    saliency = captum().Saliency(model)

    def explain(grey: Tensor, finding: int) -> Tensor:
        gradient: Tensor = saliency.attribute(_leaf(grey), target=finding, abs=False)
        return gradient.detach() * (grey - median_filter(grey, WIDTH))

    return _a_finding_at_a_time(explain)


def captum_gradient_input(model: GreyModel) -> Peer:
    method = captum().InputXGradient(model)
    return _a_finding_at_a_time(lambda grey, k: method.attribute(_leaf(grey), target=k).detach())


def captum_integrated_gradients(model: GreyModel, *, steps: int, batch: int) -> Peer:
    """From the same baseline, with the same rule."""
    method = captum().IntegratedGradients(model)

    def explain(grey: Tensor, finding: int) -> Tensor:
        maps: Tensor = method.attribute(
            grey,
            baselines=median_filter(grey, WIDTH),
            target=finding,
            n_steps=steps,
            method="riemann_middle",
            internal_batch_size=batch,
        )
        return maps.detach()

    return _a_finding_at_a_time(explain)


def captum_smoothgrad(model: GreyModel, *, samples: int, noise: float, batch: int) -> Peer:
    tunnel = captum().NoiseTunnel(captum().Saliency(model))

    def explain(grey: Tensor, finding: int) -> Tensor:
        maps: Tensor = tunnel.attribute(
            _leaf(grey),
            nt_type="smoothgrad",
            nt_samples=samples,
            nt_samples_batch_size=max(1, min(samples, batch // len(grey))),
            stdevs=noise,
            target=finding,
            abs=False,
        )
        return maps.detach()

    return _a_finding_at_a_time(explain)


def captum_occlusion(model: GreyModel, *, window: int, stride: int, batch: int) -> Peer:
    """The same windows, filled with the same median."""
    method = captum().Occlusion(model)

    def explain(grey: Tensor, finding: int) -> Tensor:
        fill = median_filter(grey, FILL_WIDTH)
        with torch.no_grad():
            maps = [
                method.attribute(
                    image[None],
                    sliding_window_shapes=(1, window, window),
                    strides=(1, stride, stride),
                    baselines=filled[None],
                    target=finding,
                    perturbations_per_eval=batch,
                )
                for image, filled in zip(grey, fill, strict=True)
            ]
        return torch.cat(maps)

    return _a_finding_at_a_time(explain)


def plain_rise(model: GreyModel, *, masks: int, batch: int, seed: int = 0) -> Peer:
    """No toolkit has it for this: the paper's loop with the same masks, a finding at a time."""

    def explain(grey: Tensor, finding: int) -> Tensor:
        size = (grey.shape[2], grey.shape[3])
        cells, shifts = draw_masks(masks, GRID, PROBABILITY, size, seed)
        maps = []
        for image in grey:
            weighted, coverage = (torch.zeros(size, device=grey.device) for _ in range(2))
            total = torch.zeros((), device=grey.device)
            for start in range(0, masks, batch):
                part = slice(start, start + batch)
                shown = masks_of(cells[part], shifts[part], size).to(grey.device)
                with torch.no_grad():
                    logits = model(image * shown[:, None])[:, finding]
                weighted += torch.einsum("m,mhw->hw", logits, shown)
                coverage += shown.sum(dim=0)
                total += logits.sum()
            maps.append(weighted / coverage - total / masks)
        return torch.stack(maps)[:, None]

    return _a_finding_at_a_time(explain)


def toolkit_cam(model: GreyModel, name: str, layer: str) -> Peer:
    """A method of pytorch-grad-cam at a layer of the network; its maps are enlarged and scaled to
    [0, 1], as `as_toolkit` does."""
    toolkit = grad_cam_toolkit()
    method = getattr(toolkit, name)
    target = toolkit.utils.model_targets.ClassifierOutputTarget

    def explain(grey: Tensor, finding: int) -> Tensor:
        with method(model=model, target_layers=[model.network.get_submodule(layer)]) as cam:
            maps = cam(input_tensor=grey, targets=[target(finding)] * len(grey))
        return torch.from_numpy(maps)[:, None]

    return _a_finding_at_a_time(explain)


def as_toolkit(maps: Tensor, size: int) -> Tensor:
    """Maps (N, F, h, w) as pytorch-grad-cam gives them: positive part, enlarged, scaled."""
    scale = grad_cam_toolkit().utils.image.scale_cam_image
    drawn = [
        scale(scale(np.maximum(cells.numpy(), 0), (size, size))) for cells in maps.float().cpu()
    ]
    return torch.from_numpy(np.stack(drawn))


def _a_finding_at_a_time(explain: Callable[[Tensor, int], Tensor]) -> Peer:
    return lambda grey, findings: torch.cat([explain(grey, k).cpu() for k in findings], dim=1)


def _leaf(grey: Tensor) -> Tensor:
    return grey.detach().clone().requires_grad_(True)


def _constants(contract: InputContract, device: torch.device) -> tuple[Tensor, Tensor]:
    mean, std = (
        torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (contract.mean, contract.std)
    )
    return mean, std
