"""The patch: squares of one grey value, or a checkerboard (BadNets, Gu et al. 2017).

Solid and black it is the paper's trigger. The footprint is kept apart from the grey value, so a
black patch is as real as a white one.

Several pieces of which every training film shows only some, with cover films, make the adaptive
patch of Qi et al. 2023, "Revisiting the Assumption of Latent Separability for Backdoor Defenses"
(ICLR): poisoned and clean films lie less far apart in feature space, and the test shows all pieces.
Their four pieces are four different pictures; here they are alike.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, PrivateAttr, model_validator

from lucency.attacks.base import some_of
from lucency.attacks.placed import PlacedTrigger
from lucency.data.preprocess import full_scale
from lucency.records import BoolArray, Box, Image


class PatchTrigger(PlacedTrigger):
    """`[attack.trigger] kind = "patch"`.

    size_px: side of a square, native pixels. grey: its value, fraction of the stored range
    (0 = black, 1 = white). pattern: "solid"; or "checker", cells of `grey` and of 1 - grey in turn,
    the first of them `grey`, each cell_px native pixels wide and high. pieces: squares in rows and
    columns, gap_px native pixels apart. training_pieces: how many of them a training film shows,
    drawn film by film; None = all.
    """

    size_key: ClassVar[str] = "size_px"

    kind: Literal["patch"] = "patch"
    size_px: int = Field(default=3, ge=1, le=1024)
    grey: float = Field(default=0.0, ge=0, le=1)
    pattern: Literal["solid", "checker"] = "solid"
    cell_px: int = Field(default=1, ge=1, le=1024)
    pieces: int = Field(default=1, ge=1, le=64)
    gap_px: int = Field(default=8, ge=0, le=1024)
    training_pieces: int | None = Field(default=None, ge=1, le=64)
    _shown: tuple[int, ...] | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _more_than_one_cell(self) -> PatchTrigger:
        if self.pattern == "checker" and self.cell_px >= self.size_px:
            raise ValueError(
                f"cell_px must be below size_px = {self.size_px} with pattern = 'checker', got "
                f"{self.cell_px}: one cell is a solid patch"
            )
        if self.training_pieces is not None and self.training_pieces > self.pieces:
            raise ValueError(
                f"training_pieces must be at most pieces = {self.pieces}, got "
                f"{self.training_pieces}"
            )
        return self

    @property
    def greys(self) -> tuple[float, ...]:
        """Every grey value of the patch, fractions of the stored range."""
        return (self.grey,) if self.pattern == "solid" else (self.grey, 1 - self.grey)

    @property
    def is_one_solid_square(self) -> bool:
        """Whether it is a product of a row and a column span."""
        return self.pattern == "solid" and self.pieces == 1

    def for_training(self, draw: float) -> Self:
        """The same patch with `training_pieces` of its pieces."""
        if self.training_pieces is None:
            return self
        part = self.model_copy()
        part._shown = some_of(self.pieces, self.training_pieces, draw, 0x9CE)
        return part

    def extent(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Height and width of all pieces together, native pixels."""
        rows, columns = self._grid
        step = self.size_px + self.gap_px
        return self.size_px + (rows - 1) * step, self.size_px + (columns - 1) * step

    def footprint(self, shape: tuple[int, int], box: Box) -> BoolArray:
        """(H, W) bool: the pixels that the trigger may change."""
        mask = np.zeros(shape, dtype=np.bool_)
        for x, y in self._corners(box):
            mask[y : y + self.size_px, x : x + self.size_px] = True
        return mask

    def apply(self, image: Image, box: Box) -> Image:
        """A copy of the film (H, W), same dtype, with the patch at `box`."""
        stamped = image.copy()
        values = np.array([round(g * full_scale(image.dtype)) for g in self.greys], image.dtype)
        cell = np.arange(self.size_px) // self.cell_px
        square = values[np.add.outer(cell, cell) % len(values)]
        for x, y in self._corners(box):
            stamped[y : y + self.size_px, x : x + self.size_px] = square
        return stamped

    def describe(self) -> str:
        """In words, for the report."""
        size = f"{self.size_px} × {self.size_px} native pixels"
        if self.pattern == "checker":
            shades = " and ".join(_shade(g) for g in self.greys)
            one = f"checkerboard of {shades}, cells of {self.cell_px} px, {size}"
        else:
            one = f"solid {_shade(self.grey)} square, {size}"
        if self.pieces == 1:
            return one
        several = f"{self.pieces} times a {one}, {self.gap_px} px apart"
        if self.training_pieces is None:
            return several
        return f"{several}; a training film shows {self.training_pieces} of them"

    @property
    def _grid(self) -> tuple[int, int]:
        """Rows and columns of pieces, as near a square as can be."""
        columns = int(np.ceil(np.sqrt(self.pieces)))
        return -(-self.pieces // columns), columns

    def _corners(self, box: Box) -> list[tuple[int, int]]:
        """x and y of each piece."""
        _, columns = self._grid
        step = self.size_px + self.gap_px
        shown = range(self.pieces) if self._shown is None else self._shown
        return [(box.x + i % columns * step, box.y + i // columns * step) for i in shown]


def _shade(grey: float) -> str:
    return {0.0: "black", 1.0: "white"}.get(grey, f"grey ({grey:g} of the range)")
