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
    small_patch.NAME: ModelTest(small_patch.small_patch),
    whole_film.SHADING: ModelTest(whole_film.shading),
    whole_film.WARP: ModelTest(whole_film.warp),
    mm_bd.NAME: ModelTest(mm_bd.margins, among_findings=False),
    bti_dbf.NAME: ModelTest(bti_dbf.feature_decoupling, among_findings=False),
    neuron_inspect.NAME: ModelTest(neuron_inspect.explanation_statistics, among_findings=False),
    channel_lipschitz.NAME: ModelTest(channel_lipschitz.last_layer, among_findings=False),
}
"""In the order in which they are made."""
DEFAULT = (small_patch.NAME, whole_film.SHADING, whole_film.WARP, mm_bd.NAME)
"""Those that are made unless others are asked for."""
