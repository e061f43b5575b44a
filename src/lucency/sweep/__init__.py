"""`lucency sweep`: a grid of experiments, resumable, on as many processors as there are."""

from lucency.sweep.pool import n_processors, processes
from lucency.sweep.ray_pool import on_ray
from lucency.sweep.run import sweep
from lucency.sweep.settings import SweepSettings
from lucency.sweep.verdict import describe_sweep

__all__ = ["SweepSettings", "describe_sweep", "n_processors", "on_ray", "processes", "sweep"]
