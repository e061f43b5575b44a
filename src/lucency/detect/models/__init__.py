"""Finding backdoored models: `audit` makes the tests and says what they are worth together.

A test of a model is one file and one line in the table.
"""

from lucency.detect.models import small_patch, whole_film
from lucency.detect.models.evidence import ModelTest

TESTS: dict[str, ModelTest] = {
    small_patch.NAME: small_patch.small_patch,
    whole_film.SHADING: whole_film.shading,
    whole_film.WARP: whole_film.warp,
}
"""In the order in which they are made."""
