"""Screening of a stranger's images on a stranger's model: `lucency screen`."""

from lucency.screening.ray_pool import on_ray
from lucency.screening.run import screen_images
from lucency.screening.settings import ScreenSettings
from lucency.screening.words import describe_answer

__all__ = ["ScreenSettings", "describe_answer", "on_ray", "screen_images"]
