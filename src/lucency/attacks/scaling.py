"""The image-scaling trigger: a patch that is there after the victim's resize, and not before.

Quiring and Rieck 2020, "Backdooring and Poisoning Neural Networks with Image-Scaling Attacks"
(arXiv 2003.08633), after Xiao et al. 2019 (USENIX Security): a resize that takes few of the native
pixels is an attacker's way to change what a network sees by changing only those. Of all films x'
that the victim's crop and resize turn into x with a patch, this is the nearest to the film x:

    minimise ‖x' − x‖²   subject to   A x' Bᵀ = T   and   0 ≤ x' ≤ white,

A and B being what the resize does to the patch's rows and columns, and T its grey. It is solved by
Newton's method on its dual. After an area or antialiased resize, which look at every pixel, what is
found is a visible patch; that is the defence. Threat model: the attacker edits training data and,
later, single images, and knows the victim's preprocessing; no access to the training itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, Self

import numpy as np
from pydantic import Field, PrivateAttr

from lucency.attacks.base import BaseTrigger
from lucency.attacks.patch import PatchTrigger
from lucency.attacks.placed import Place
from lucency.data.preprocess import InputContract, ResizeKernel, full_scale, stored
from lucency.errors import ConfigError
from lucency.records import BoolArray, Box, Float64Array, Image, IntArray

ROUNDS, HALVINGS, DAMPING, CLOSE = 60, 40, 1e-4, 1e-3
"""Most Newton steps and halvings of one; what keeps a step finite where every pixel is clipped; and
how near the network's pixels have to come, fraction of the stored range."""


class ScalingTrigger(BaseTrigger):
    """`[attack.trigger] kind = "scaling"`.

    size_px: side of the patch at the network's input, network pixels. grey: its value there,
    fraction of the stored range. place: as for a patch, in network pixels. resize: the kernel that
    the attacker expects; None = the victim's own. Everything else of the preprocessing is known.
    """

    kind: Literal["scaling"] = "scaling"
    size_px: int = Field(default=3, ge=1, le=16)
    grey: float = Field(default=0.0, ge=0, le=1)
    place: Place = "center"
    resize: ResizeKernel | None = None
    _aim: InputContract | None = PrivateAttr(default=None)

    @property
    def is_random(self) -> bool:
        """Whether each image has a place of its own."""
        return self._patch.is_random

    def aimed_at(self, contract: InputContract) -> Self:
        """The trigger made for `contract`, or for what the attacker takes it for."""
        kernel = self.resize or contract.resize
        aimed = self.model_copy()
        aimed._aim = contract.model_copy(update={"resize": kernel})
        return aimed

    def box(self, window: Box, shape: tuple[int, int], anchor: tuple[float, float]) -> Box:
        """The native pixels behind the patch. Raises ConfigError if it does not fit."""
        contract = self._contract
        if min(window.width, window.height) < contract.size:
            raise ConfigError(
                f"[attack.trigger] kind = 'scaling' hides in a resize to fewer pixels; the crop of "
                f"{window.width} × {window.height} px is enlarged to {contract.size}."
            )
        network = Box(x=0, y=0, width=contract.size, height=contract.size)
        patch = self._patch.box(network, (contract.size, contract.size), anchor)
        return contract.to_native_box(patch, shape)

    def footprint(self, shape: tuple[int, int], box: Box) -> BoolArray:
        """(H, W) bool: the pixels that the trigger may change: those that the patch at the network
        is made of."""
        mask = np.zeros(shape, dtype=np.bool_)
        mask[np.ix_(*(axis.changed for axis in self._axes(shape, box)))] = True
        return mask

    def apply(self, image: Image, box: Box) -> Image:
        """A copy of the film (H, W), same dtype, that shows the patch once it is resized."""
        down, across = self._axes((image.shape[0], image.shape[1]), box)
        inside = np.ix_(down.changed, across.changed)
        white = full_scale(image.dtype)
        nearest = _nearest(image[inside] / white, self.grey, down.weights, across.weights)
        stamped = image.copy()
        stamped[inside] = stored(nearest * white, image)
        return stamped

    def describe(self) -> str:
        """In words, for the report."""
        patch = self._patch.describe().replace("native", "network")
        made_for = f", made for {self.resize}" if self.resize else ""
        return f"image-scaling camouflage of a {patch}{made_for}"

    def describe_place(self) -> str:
        """In words, for the report."""
        return self._patch.describe_place()

    @property
    def _contract(self) -> InputContract:
        if self._aim is None:
            raise ConfigError(
                "[attack.trigger] kind = 'scaling' is made for one preprocessing; use it in a run, "
                "which aims at the victim's [input]."
            )
        return self._aim

    @property
    def _patch(self) -> PatchTrigger:
        return PatchTrigger(size_px=self.size_px, grey=self.grey, place=self.place)

    def _axes(self, shape: tuple[int, int], box: Box) -> tuple[_Axis, _Axis]:
        """Down and across."""
        contract = self._contract
        window = contract.window(shape)
        return (
            _axis(contract, window.height, window.y, box.y - window.y, self.size_px),
            _axis(contract, window.width, window.x, box.x - window.x, self.size_px),
        )


@dataclass(frozen=True)
class _Axis:
    """One axis of the film. changed (m,): native pixels that may change. weights (size_px, m): what
    each gives to the patch's network pixels."""

    changed: IntArray
    weights: Float64Array


# Every film with its own place has its own axes; a fixed place has one.
@lru_cache(maxsize=4096)
def _axis(contract: InputContract, length: int, start: int, first: int, size_px: int) -> _Axis:
    """length, start: of the crop on the native axis; first: of the patch's box inside the crop."""
    weights = _weights(contract, length)
    # The box begins with the native pixel that holds the network pixel's border.
    patch = -(-first * contract.size // length) + np.arange(size_px)
    changed = np.flatnonzero(weights[patch].any(axis=0))
    return _Axis(start + changed, weights[np.ix_(patch, changed)])


@lru_cache(maxsize=8)
def _weights(contract: InputContract, length: int) -> Float64Array:
    """(size, length) float64, its rows summing to 1: what the resize does to an axis.

    Measured on single white pixels: as many rows as the network has, so that only the one axis is
    resized."""
    size, uncropped = contract.size, contract.model_copy(update={"crop": 1.0})
    weights = np.zeros((size, length))
    for first in range(0, length, size):
        n = min(size, length - first)
        film = np.zeros((size, length), dtype=np.uint16)
        film[np.arange(n), first + np.arange(n)] = 65535
        weights[:, first : first + n] = uncropped.to_network(film)[:n].T
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _nearest(
    film: Float64Array, grey: float, down: Float64Array, across: Float64Array
) -> Float64Array:
    """The film in [0, 1] nearest to `film` whose resized pixels are all of one `grey`.

    At the solution every pixel is its own value plus what the constraints push it, clipped to the
    range: x = clip(film + downᵀ λ across). λ is found by Newton steps, each with the pixels that
    are not clipped, as far as they bring the dual up."""
    pushes = np.zeros((len(down), len(across)))
    nearest, height = film, 0.0
    for _ in range(ROUNDS):
        missing = grey - down @ nearest @ across.T
        if np.abs(missing).max() <= CLOSE:
            break
        free = (nearest > 0) & (nearest < 1)
        slope = np.einsum("ia,jb,ab,ka,lb->ijkl", down, across, free, down, across, optimize=True)
        n = pushes.size
        newton = np.linalg.solve(slope.reshape(n, n) + DAMPING * np.eye(n), missing.ravel())
        step = newton.reshape(pushes.shape)
        for _ in range(HALVINGS):
            tried = pushes + step
            pushed = np.clip(film + down.T @ tried @ across, 0, 1)
            left = grey - down @ pushed @ across.T
            reached = 0.5 * float(((pushed - film) ** 2).sum() + 2 * (tried * left).sum())
            if reached > height:
                break
            step = step / 2
        else:
            break
        pushes, nearest, height = tried, pushed, reached
    return nearest
