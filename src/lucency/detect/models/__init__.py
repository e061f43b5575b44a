"""Finding backdoored models: `audit` makes the tests and says what they are worth together.

A test of a model is one file and one line in the table.
"""

from lucency.detect.models import (
    bti_dbf,
    channel_lipschitz,
    mm_bd,
    neuron_inspect,
    small_patch,
    whole_film,
)
from lucency.detect.models.evidence import ModelTest

TESTS: dict[str, ModelTest] = {
    small_patch.NAME: small_patch.small_patch,
    whole_film.SHADING: whole_film.shading,
    whole_film.WARP: whole_film.warp,
    mm_bd.NAME: mm_bd.margins,
    bti_dbf.NAME: bti_dbf.feature_decoupling,
    neuron_inspect.NAME: neuron_inspect.explanation_statistics,
    channel_lipschitz.NAME: channel_lipschitz.last_layer,
}
"""In the order in which they are made."""
