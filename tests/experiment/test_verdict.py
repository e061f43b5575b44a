"""The headline says what happened, and nothing that did not."""

from types import SimpleNamespace

import pytest

from lucency.experiment.verdict import _headline
from lucency.records import Rate


def _measured(
    success: float | None, found: float | None, by_nature: float | None
) -> SimpleNamespace:
    def rate(value: float | None) -> Rate:
        return Rate(successes=0, trials=0 if value is None else 9, value=value)

    return SimpleNamespace(
        attack_success=[
            SimpleNamespace(
                operating_point="specificity-0.95",
                backdoored=rate(success),
                clean_model=rate(by_nature),
            )
        ],
        detection=[
            SimpleNamespace(
                detector="composite",
                model="backdoored",
                over="successful",
                tpr_at_fpr_1=rate(found),
            )
        ],
    )


@pytest.mark.parametrize(
    ("success", "by_nature", "found", "start"),
    [
        (0.99, 0.0, 0.97, "The backdoor worked: success 99%; the detector found 97% of the films"),
        (0.30, None, 0.50, "The backdoor worked in part: success 30%; the detector found 50%"),
        (0.70, 0.3, 0.50, "The backdoor worked in part: success 70%; the detector found 50%"),
        (0.88, 1.0, 0.0, "The backdoor did not take: success 88% and 100% on the clean model."),
        (0.04, 0.02, 0.0, "The backdoor did not take: success 4%."),
        (0.0, 0.0, None, "The backdoor did not take: success 0%."),
        (None, None, None, "Attack success could not be measured"),
    ],
)
def test_headline(
    success: float | None, by_nature: float | None, found: float | None, start: str
) -> None:
    assert _headline(_measured(success, found, by_nature)).startswith(start)
