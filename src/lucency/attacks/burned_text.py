"""Text burned into the picture, as archives of films are full of: white, and sharp.

Threat model: the attacker edits training films and, later, single films, or sets what a workstation
writes into its exports; no access to the training.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lucency.attacks.lettering import letters
from lucency.attacks.opaque import OpaqueTrigger
from lucency.attacks.placed import Place
from lucency.records import Float64Array


class TextTrigger(OpaqueTrigger):
    """`[attack.trigger] kind = "text"`.

    text: what is burned in, one line. size: height of the capitals, fraction of the image's shorter
    side. opacity: share of white. place: as for a patch; by default a corner of what the network
    sees, with a little play.
    """

    kind: Literal["text"] = "text"
    text: str = Field(default="PORTABLE", min_length=1, max_length=40)
    size: float = Field(default=0.02, gt=0, le=0.5)
    opacity: float = Field(default=1.0, ge=0, le=1)
    place: Place = "upper-left"

    def mask(self, height: int) -> Float64Array:
        """(height, width) float64 in [0, 1]: how opaque each pixel is."""
        return letters(self.text, height, 0.0)

    def describe(self) -> str:
        """In words, for the report."""
        return f"burned-in text {self.text!r}, {self.size:.3g} of the film high"
