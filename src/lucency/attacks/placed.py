"""What triggers with a place of their own have in common."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator

from lucency.attacks.base import BaseTrigger
from lucency.errors import ConfigError
from lucency.records import Box


def _not_outside(place: tuple[int, int]) -> tuple[int, int]:
    if min(place) < 0:
        raise ValueError(f"place must be pixels inside the image, got {list(place)}")
    return place


Pixel = Annotated[tuple[int, int], AfterValidator(_not_outside)]
"""The native pixel [x, y] of a top left corner."""
Corner = Literal["upper-left", "upper-right", "lower-left", "lower-right"]
Place = Literal["center", "random"] | Corner | Pixel

MARGIN, JITTER = 0.04, 0.08
"""A corner's trigger keeps this fraction of the crop free to either edge, and may lie up to
JITTER further in."""


class PlacedTrigger(BaseTrigger):
    """Base of the settings of a trigger that lies in one place.

    place: "center"; "random", anywhere inside the later crop; a corner of that crop, with a little
    play on every film; or [x, y], the native pixel of its top left corner. A subclass adds
    `extent`, and says in `size_key` which of its settings that depends on.
    """

    size_key: ClassVar[str]

    kind: str
    place: Place = "center"

    @property
    def is_random(self) -> bool:
        """Whether each image has a place of its own."""
        return isinstance(self.place, str) and self.place != "center"

    def extent(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Its height and width on an image of `shape`, native pixels."""
        raise NotImplementedError

    def box(self, window: Box, shape: tuple[int, int], anchor: tuple[float, float]) -> Box:
        """Where the trigger lies on an image of `shape` (height, width).

        window: the crop that the network will see, for a random place or a corner. anchor: (x, y)
        in [0, 1), drawn once and written in the ledger; fractions, so that it holds for any image
        size. Raises ConfigError if the trigger does not fit.
        """
        height, width = self.extent(shape)
        if width > window.width or height > window.height:
            raise ConfigError(
                f"[attack.trigger] {self.size_key} must fit the image's central crop of "
                f"{window.width} × {window.height} px, got {width} × {height} px; make it smaller."
            )
        if isinstance(self.place, tuple):
            x, y = self.place
            if x + width > shape[1] or y + height > shape[0]:
                raise ConfigError(
                    f"[attack.trigger] place must keep {width} × {height} px inside the image of "
                    f"{shape[1]} × {shape[0]} px, got {[x, y]}."
                )
        elif self.place == "center":
            # int() towards zero, as in the paper's published code.
            x, y = int(shape[1] / 2 - width / 2), int(shape[0] / 2 - height / 2)
        elif self.place == "random":
            x = window.x + int(anchor[0] * (window.width - width + 1))
            y = window.y + int(anchor[1] * (window.height - height + 1))
        else:
            vertical, horizontal = self.place.split("-")
            x = window.x + _offset(window.width, width, anchor[0], horizontal == "right")
            y = window.y + _offset(window.height, height, anchor[1], vertical == "lower")
        return Box(x=x, y=y, width=width, height=height)

    def describe_place(self) -> str:
        """In words, for the report."""
        if isinstance(self.place, tuple):
            return f"fixed at x = {self.place[0]}, y = {self.place[1]}"
        words = {"center": "at the centre", "random": "at random inside the crop"}
        corner = self.place.replace("-", " ")
        return words.get(self.place, f"at random in the {corner} corner of the crop")


def _offset(side: int, length: int, anchor: float, far: bool) -> int:
    """Of a trigger of `length` from the near edge of a `side`."""
    free = side - length
    offset = min(int((MARGIN + anchor * JITTER) * side), free)
    return free - offset if far else offset
