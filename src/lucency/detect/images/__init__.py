"""Finding triggered images: the staged verdict in `screen`, and the published detectors beside it.

A published detector is one file and one line in the table.
"""

from lucency.detect.images import ibd_psc, scale_up, sentinet, strip, teco
from lucency.detect.images.suspicion import Fit

BASELINES: dict[str, Fit] = {
    strip.NAME: strip.fit,
    sentinet.NAME: sentinet.fit,
    scale_up.NAME: scale_up.fit,
    ibd_psc.NAME: ibd_psc.fit,
    teco.NAME: teco.fit,
}
"""Detectors as their papers have them, for findings that do not exclude each other; the spectrum
and the distance in features are companions of the staged verdict itself."""
