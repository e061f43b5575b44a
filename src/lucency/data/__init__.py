"""How images come in: one file per source, all listed in `sources`; decoding; splits; the input
contract.

>>> from lucency.data import Source  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lucency.data.sources import SOURCES, Source

__all__ = ["SOURCES", "Source"]


def __getattr__(name: str) -> Any:
    """Import the table of sources on first use: every image worker imports this package."""
    if name in __all__:
        from lucency.data import sources

        return getattr(sources, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
