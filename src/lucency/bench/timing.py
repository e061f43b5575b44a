"""Time several versions of one job in turn, so that a busy minute hits all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from lucency.progress import Advance

Job = Callable[[], object]
Seconds = tuple[float, ...]


def interleave(jobs: Mapping[str, Job], repeats: int, advance: Advance) -> dict[str, Seconds]:
    """Run the jobs A B A B …, after one round that is not counted; seconds of each repeat.

    A job returns when its work is done, not when it is queued.
    """
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(repeats + 1):
        for name, job in jobs.items():
            taken = seconds_of(job)
            if turn:
                seconds[name].append(taken)
            advance(1)
    return {name: tuple(taken) for name, taken in seconds.items()}


def seconds_of(job: Job) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def rates(count: int, seconds: Sequence[float]) -> Seconds:
    """Things a second in each repeat."""
    return tuple(count / s for s in seconds)


def ratios(above: Sequence[float], below: Sequence[float]) -> Seconds:
    """The quotient within each repeat: neighbours in time share whatever else the machine did."""
    return tuple(a / b for a, b in zip(above, below, strict=True))
