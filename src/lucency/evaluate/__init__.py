"""What is measured: performance, attack success, detection. Pure functions to records."""

from lucency.evaluate.attack import measure_attack_success, succeeded
from lucency.evaluate.detection import measure_cell, measure_detection, threshold_at_fpr
from lucency.evaluate.faithfulness import patch_curve
from lucency.evaluate.localisation import is_hit, localise
from lucency.evaluate.means import mean
from lucency.evaluate.operating import operating_points
from lucency.evaluate.performance import auroc_difference, measure_performance, micro_floor
from lucency.evaluate.ranking import auprc, auroc
from lucency.evaluate.rates import rate

__all__ = [
    "auprc",
    "auroc",
    "auroc_difference",
    "is_hit",
    "localise",
    "mean",
    "measure_attack_success",
    "measure_cell",
    "measure_detection",
    "measure_performance",
    "micro_floor",
    "operating_points",
    "patch_curve",
    "rate",
    "succeeded",
    "threshold_at_fpr",
]
