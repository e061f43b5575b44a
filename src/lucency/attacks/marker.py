"""A lead marker: a side's letter, a technologist's initials, or a metal bead.

A reader does not look twice at one, an attacker can lay one on the cassette (the physical trigger
of Wenger et al. 2021, "Backdoor Attacks Against Deep Learning Systems in the Physical World", arXiv
2006.14580), and films that have one by nature are what a detector is confused by. It is brighter
than what it lies on, and its edges are soft. Threat model: the attacker adds films with a marker of
their own to the training data, or edits some; later, puts it on a patient's film, by hand or by
software; no access to the training.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lucency.attacks.lettering import disc, letters
from lucency.attacks.opaque import OpaqueTrigger
from lucency.attacks.placed import Place
from lucency.records import Float64Array


class MarkerTrigger(OpaqueTrigger):
    """`[attack.trigger] kind = "marker"`.

    object: "letters" or "bead", a filled circle. text: the letters. size: height, fraction of the
    image's shorter side; 0.03 is about 12 mm of a film of 40 cm. opacity: share of white where it
    is thickest. softness: blur of the edges, fraction of the height. place: as for a patch; by
    default where such markers stand, in a corner of what the network sees.
    """

    kind: Literal["marker"] = "marker"
    object: Literal["letters", "bead"] = "letters"
    text: str = Field(default="L", min_length=1, max_length=16)
    size: float = Field(default=0.03, gt=0, le=0.5)
    opacity: float = Field(default=0.8, ge=0, le=1)
    softness: float = Field(default=0.04, ge=0, le=1)
    place: Place = "upper-right"

    def mask(self, height: int) -> Float64Array:
        """(height, width) float64 in [0, 1]: how opaque each pixel is."""
        if self.object == "bead":
            return disc(height, self.softness)
        return letters(self.text, height, self.softness)

    def describe(self) -> str:
        """In words, for the report."""
        thing = "a metal bead" if self.object == "bead" else f"the lead letters {self.text!r}"
        return f"{thing}, {self.size:.3g} of the film high, opacity {self.opacity:g}"
