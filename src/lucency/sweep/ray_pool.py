"""Who does the jobs of a sweep: a Ray cluster.

The sweep's folder and the data must lie under the same paths on every machine, and the same Lucency
must be installed there. A run whose worker or whose machine died is given to another one, and goes
on from its last finished epoch.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lucency import lock
from lucency.errors import ConfigError, LucencyError
from lucency.ray_cluster import (
    PATIENCE_S,
    RETRIES,
    connected,
    first_line,
    import_ray,
    require_capacity,
    require_software,
    software,
)
from lucency.sweep.jobs import THREADS, Job, carry_out
from lucency.sweep.pool import Ended, Pool


class OnRay:
    """The pool of a connected cluster; each job has one processor and `gpus` of a GPU."""

    def __init__(self, ray: Any, gpus: float) -> None:
        self._ray, self._needed = ray, "GPU" if gpus else "CPU"
        options = {"num_cpus": THREADS, "num_gpus": gpus, "max_retries": RETRIES}
        self._remote = ray.remote(**options)(_work)
        self._under_way: dict[Any, Job] = {}

    def submit(self, job: Job) -> None:
        self._under_way[self._remote.remote(job, software())] = job

    def next(self) -> Ended:
        """Raises ConfigError if the cluster has no processor."""
        while True:
            done, _ = self._ray.wait(list(self._under_way), num_returns=1, timeout=PATIENCE_S)
            if done:
                return Ended(self._under_way.pop(done[0]), self._error(done[0]))
            require_capacity(self._ray, self._needed)

    def _error(self, reference: Any) -> str | None:
        try:
            error: str | None = self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as failure:
            if "failed to import on the worker" in str(failure):
                raise ConfigError(
                    "Lucency must be installed on every machine of the cluster, but one cannot "
                    "import it; install it there, in the Python that runs Ray."
                ) from failure
            raise
        except self._ray.exceptions.RayError as failure:
            return f"The cluster lost it {RETRIES + 1} times ({first_line(failure)})."
        return error


@contextmanager
def on_ray(address: str, gpus: float = 0.0) -> Iterator[Pool]:
    """The cluster at `address`: "HOST:PORT" of its head, "auto" = the one that this machine belongs
    to, "local" = a new one on this machine. Raises MissingExtra without Ray, ConfigError if no
    cluster is there."""
    ray = import_ray("A sweep on a cluster", address)
    with connected(ray, address):
        yield OnRay(ray, gpus)


def _work(job: Job, theirs: Mapping[str, str]) -> str | None:
    """On a worker: why the job failed, None if it did not."""
    try:
        require_software(theirs)
        root = job.folder.parents[1]
        if not lock.is_marked(root):
            raise ConfigError(
                f"Every machine of the cluster must see the sweep's folder, {root}, under the same "
                "path, but one does not; use a folder that the machines share."
            )
        carry_out(job)
    except LucencyError as error:
        return f"{socket.gethostname()}: {error}"
    return None
