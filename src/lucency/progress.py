"""How long work tells that it is alive: the library calls, the command line draws."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

Advance = Callable[[int], None]
Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""progress(what is done, how many steps) -> a context whose value is called with steps done."""


@contextmanager
def silent(description: str, total: int) -> Iterator[Advance]:
    """The default: say nothing."""
    yield lambda steps: None
