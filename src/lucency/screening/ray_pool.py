"""Screening on a Ray cluster, for folders that outgrow one machine.

Parts go to workers as they become free, and come back in any order; a part whose worker or whose
machine died is given to another one. The images must lie under the same paths on every machine,
and the same Lucency, and the model's own code if it has any, must be installed there.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import torch

from lucency.config_faults import shown
from lucency.data.guard import FileImages, WorkerError
from lucency.errors import ConfigError, LucencyError, ModelError
from lucency.ray_cluster import (
    PATIENCE_S,
    RETRIES,
    capacity,
    connected,
    first_line,
    import_ray,
    require_capacity,
    require_software,
    software,
)
from lucency.screening.films import FilmList
from lucency.screening.parts import Rows, Run, screen_rows
from lucency.screening.worker import Job, Part

# Parts in flight for each worker: one in work, one waiting.
AHEAD = 2


def on_ray(address: str) -> Run:
    """A `Run` on the cluster at `address`: "HOST:PORT" of its head, "auto" = the one that this
    machine belongs to, "local" = a new one on this machine.

    Raises, at once rather than after a calibration, MissingExtra without Ray and ConfigError if no
    cluster can be there. The run itself raises ConfigError for a cluster that does not let us in or
    has no processor (no GPU, if the model is on one), ModelError for a network that cannot be
    copied, and LucencyError, with the machine's name, for what a worker raised.
    """
    ray = import_ray("Screening on a cluster", address)

    def run(job: Job, films: FilmList, parts: Sequence[Rows]) -> Iterator[Part]:
        if not parts:
            return
        with connected(ray, address):
            yield from screen_on(ray, job, films, parts)

    return run


def screen_on(ray: Any, job: Job, films: FilmList, parts: Sequence[Rows]) -> Iterator[Part]:
    """Screen parts with a connected Ray, in the order in which they get done."""
    needed = "GPU" if job.screener.victim.device.type == "cuda" else "CPU"
    shared = [_put(ray, job)]
    remote = ray.remote(num_cpus=1, num_gpus=int(needed == "GPU"), max_retries=RETRIES)(_screen)
    rest = iter(parts)
    waiting: list[Any] = []
    while True:
        # Counted anew each time: machines come and go.
        slots = AHEAD * max(1, capacity(ray, needed))
        for rows in islice(rest, max(0, slots - len(waiting))):
            waiting.append(remote.remote(shared, rows[0], _named(films, rows)))
        if not waiting:
            return
        done, waiting = ray.wait(waiting, num_returns=1, timeout=PATIENCE_S)
        if not done:
            require_capacity(ray, needed)
        for reference in done:
            yield Part.model_validate_json(_result(ray, reference))


def _named(films: FilmList, rows: Rows) -> FilmList:
    """These films alone: a worker need not know of millions of others."""
    return FilmList(
        tuple(films.paths[r] for r in rows),
        tuple(films.names[r] for r in rows),
        tuple(films.patients[r] for r in rows),
        tuple(films.views[r] for r in rows),
    )


def _put(ray: Any, job: Job) -> Any:
    try:
        return ray.put((job, software()))
    except Exception as error:
        raise ModelError(
            "The network must be one that can be copied to other processes, but this one cannot "
            f"({first_line(error)}); leave --ray out."
        ) from error


def _result(ray: Any, reference: Any) -> str:
    try:
        text: str = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, LucencyError):
            raise LucencyError(str(error.cause)) from None
        if "failed to import on the worker" in str(error):
            raise ConfigError(
                "Lucency must be installed on every machine of the cluster, but one cannot import "
                "it; install it there, in the Python that runs Ray."
            ) from error
        raise
    except ray.exceptions.RayError as error:
        raise LucencyError(
            f"The cluster must finish every part of the screening, but lost one {RETRIES + 1} "
            f"times ({first_line(error)}); start the same command again to go on."
        ) from error
    return text


# --- on a worker ---------------------------------------------------------------------------------


def _screen(shared: Sequence[Any], first: int, films: FilmList) -> str:
    """Screen one part, which begins with row `first` of the whole list; a `Part` as JSON."""
    # There is a worker for each processor.
    torch.set_num_threads(1)
    try:
        job = _fetched(shared[0])
        with FileImages(films.paths, workers=1) as images:
            part = screen_rows(job, images, films, range(len(films)))
    except (LucencyError, WorkerError) as error:
        # A plain class, which surely survives the way back, and the last line of a traceback.
        sentence = str(error).strip().rpartition("\n")[2]
        raise LucencyError(f"{socket.gethostname()}: {sentence}") from None
    return part.model_copy(update={"first": first}).model_dump_json()


@lru_cache(maxsize=1)
def _fetched(reference: Any) -> Job:
    """Once a worker, rather than once a part: an engine compiles its network on first use."""
    import ray

    try:
        job, theirs = ray.get(reference)
    except Exception as error:
        cause = str(error).strip().rpartition("\n")[2]
        raise ConfigError(
            "Every machine of the cluster must be able to load the model, but this one gives: "
            f"{shown(cause, 200)}; install the model's code there, or put it on PYTHONPATH."
        ) from error
    require_software(theirs)
    found: Job = job
    return found
