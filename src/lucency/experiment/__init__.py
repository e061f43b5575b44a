"""One run, the whole flow: settings, films, measurements, gallery, summary."""

from lucency.experiment.run import run
from lucency.experiment.settings import ExperimentSettings

__all__ = ["ExperimentSettings", "run"]
