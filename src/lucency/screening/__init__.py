"""Screening of a stranger's images on a stranger's model: `lucency screen`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lucency.screening.ray_pool import on_ray
    from lucency.screening.run import screen_images
    from lucency.screening.settings import ScreenSettings
    from lucency.screening.words import describe_answer

__all__ = ["ScreenSettings", "describe_answer", "on_ray", "screen_images"]

_HOMES = {
    "ScreenSettings": "settings",
    "describe_answer": "words",
    "on_ray": "ray_pool",
    "screen_images": "run",
}


def __getattr__(name: str) -> Any:
    """Import on first use: every image worker imports this package, and torch would cost each of
    them seconds and half a gigabyte."""
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(f"lucency.screening.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
