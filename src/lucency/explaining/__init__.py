"""`lucency explain`: from image files and a model to pictures, raw maps and one record.

A conductor, as `experiment` is: it knows several stages, and no stage knows it.
"""

from lucency.explaining.record import ExplainRecord
from lucency.explaining.run import explain_files

__all__ = ["ExplainRecord", "explain_files"]
