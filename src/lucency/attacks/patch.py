"""The patch: a square of one grey value, or a checkerboard (BadNets, Gu et al. 2017).

Solid and black it is the paper's trigger. The footprint is kept apart from the grey value, so a
black patch is as real as a white one.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from lucency.data.preprocess import full_scale
from lucency.errors import ConfigError
from lucency.records import BoolArray, Box, Image, Record

Place = Literal["center", "random"] | tuple[int, int]


class PatchTrigger(Record):
    """`[attack.trigger] kind = "patch"`.

    size_px: side of the square, native pixels. grey: its value, fraction of the stored range
    (0 = black, 1 = white). pattern: "solid"; or "checker", cells of `grey` and of 1 - grey in turn,
    the first of them `grey`, each cell_px native pixels wide and high. place: "center"; "random",
    anywhere inside the later crop; or [x, y], the native pixel of its top left corner.
    """

    kind: Literal["patch"] = "patch"
    size_px: int = Field(default=3, ge=1, le=1024)
    grey: float = Field(default=0.0, ge=0, le=1)
    pattern: Literal["solid", "checker"] = "solid"
    cell_px: int = Field(default=1, ge=1, le=1024)
    place: Place = "center"

    @field_validator("place", mode="before")
    @classmethod
    def _pair(cls, place: Any) -> Any:
        # The union of triggers hands on a JSON array as a list, and a strict tuple refuses lists.
        return tuple(place) if isinstance(place, list) else place

    @field_validator("place")
    @classmethod
    def _not_outside(cls, place: Place) -> Place:
        if isinstance(place, tuple) and min(place) < 0:
            raise ValueError(f"place must be pixels inside the image, got {list(place)}")
        return place

    @model_validator(mode="after")
    def _more_than_one_cell(self) -> PatchTrigger:
        if self.pattern == "checker" and self.cell_px >= self.size_px:
            raise ValueError(
                f"cell_px must be below size_px = {self.size_px} with pattern = 'checker', got "
                f"{self.cell_px}: one cell is a solid patch"
            )
        return self

    @property
    def is_random(self) -> bool:
        """Whether each image has a place of its own."""
        return self.place == "random"

    @property
    def is_local(self) -> bool:
        """Whether the trigger lies in a place that a detector could point at."""
        return True

    @property
    def greys(self) -> tuple[float, ...]:
        """Every grey value of the patch, fractions of the stored range."""
        return (self.grey,) if self.pattern == "solid" else (self.grey, 1 - self.grey)

    def box(self, window: Box, shape: tuple[int, int], anchor: tuple[float, float]) -> Box:
        """Where the patch lies on an image of `shape` (height, width).

        window: the crop that the network will see, for a random place. anchor: (x, y) in [0, 1),
        drawn once and written in the ledger; fractions, so that it holds for any image size.
        Raises ConfigError if the patch does not fit.
        """
        height, width = shape
        n = self.size_px
        if n > min(window.width, window.height):
            raise ConfigError(
                f"[attack.trigger] size_px must fit the image's central crop of "
                f"{window.width} × {window.height} px, got {n}; make the patch smaller."
            )
        if isinstance(self.place, tuple):
            x, y = self.place
            if x + n > width or y + n > height:
                raise ConfigError(
                    f"[attack.trigger] place must keep a {n} px patch inside the image of "
                    f"{width} × {height} px, got {[x, y]}."
                )
        elif self.place == "center":
            # int() towards zero, as in the paper's published code.
            x, y = int(width / 2 - n / 2), int(height / 2 - n / 2)
        else:
            x = window.x + int(anchor[0] * (window.width - n + 1))
            y = window.y + int(anchor[1] * (window.height - n + 1))
        return Box(x=x, y=y, width=n, height=n)

    def footprint(self, shape: tuple[int, int], box: Box) -> BoolArray:
        """(H, W) bool: the pixels that the trigger may change."""
        mask = np.zeros(shape, dtype=np.bool_)
        mask[box.y : box.y + box.height, box.x : box.x + box.width] = True
        return mask

    def apply(self, image: Image, box: Box) -> Image:
        """A copy of the film (H, W), same dtype, with the patch at `box`."""
        stamped = image.copy()
        values = np.array([round(g * full_scale(image.dtype)) for g in self.greys], image.dtype)
        cell = np.add.outer(*(np.arange(n) // self.cell_px for n in (box.height, box.width)))
        stamped[box.y : box.y + box.height, box.x : box.x + box.width] = values[cell % len(values)]
        return stamped

    def describe(self) -> str:
        """In words, for the report."""
        size = f"{self.size_px} × {self.size_px} native pixels"
        if self.pattern == "checker":
            shades = " and ".join(_shade(g) for g in self.greys)
            return f"checkerboard of {shades}, cells of {self.cell_px} px, {size}"
        return f"solid {_shade(self.grey)} square, {size}"

    def describe_place(self) -> str:
        """In words, for the report."""
        if isinstance(self.place, tuple):
            return f"fixed at x = {self.place[0]}, y = {self.place[1]}"
        return {"center": "at the centre", "random": "at random inside the crop"}[self.place]


def _shade(grey: float) -> str:
    return {0.0: "black", 1.0: "white"}.get(grey, f"grey ({grey:g} of the range)")
