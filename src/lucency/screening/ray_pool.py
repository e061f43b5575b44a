"""Screening on a Ray cluster, for folders that outgrow one machine.

Parts go to workers as they become free, and come back in any order; a part whose worker died is
given to another one. The files must lie under the same paths on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lucency.data.guard import FileImages
from lucency.errors import ConfigError, MissingExtra
from lucency.screening.films import FilmList
from lucency.screening.parts import Rows, Run, screen_rows
from lucency.screening.worker import Job, Part

# Parts in flight for each worker: one in work, one waiting.
AHEAD = 2
RETRIES = 5


def on_ray(address: str) -> Run:
    """A `Run` on the cluster at `address` ("auto" = the one that this machine belongs to, "local" =
    a new one on this machine). Raises MissingExtra without Ray, ConfigError without a cluster."""

    def run(job: Job, films: FilmList, parts: Sequence[Rows]) -> Iterator[Part]:
        ray = _connected(address)
        try:
            yield from _run(ray, job, films, parts)
        finally:
            ray.shutdown()

    return run


def _run(ray: Any, job: Job, films: FilmList, parts: Sequence[Rows]) -> Iterator[Part]:
    shared = ray.put((job, films))
    remote = ray.remote(num_cpus=1, max_retries=RETRIES)(_screen)
    slots = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting = [remote.remote(shared, rows) for rows in parts[:slots]]
    rest = iter(parts[slots:])
    while waiting:
        (done, *_), waiting = ray.wait(waiting, num_returns=1)
        yield Part.model_validate_json(ray.get(done))
        waiting += [remote.remote(shared, rows) for rows in _next(rest)]


def _next(rest: Iterator[Rows]) -> list[Rows]:
    following = next(rest, None)
    return [] if following is None else [following]


def _screen(shared: tuple[Job, FilmList], rows: Rows) -> str:
    """On a worker: one thread, since there is a worker for each processor."""
    import torch

    torch.set_num_threads(1)
    job, films = shared
    with FileImages([films.paths[r] for r in rows], workers=1) as images:
        local = tuple(range(len(rows)))
        named = FilmList(
            tuple(films.paths[r] for r in rows),
            tuple(films.names[r] for r in rows),
            tuple(films.patients[r] for r in rows),
            tuple(films.views[r] for r in rows),
        )
        part = screen_rows(job, images, named, local)
    return part.model_copy(update={"first": rows[0]}).model_dump_json()


def _connected(address: str) -> Any:
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("Screening on a cluster", "ray") from error
    options: dict[str, Callable[[], Any] | Any] = {"log_to_driver": False, "logging_level": "error"}
    try:
        ray.init(None if address == "local" else address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"--ray must be the address of a running Ray cluster, 'auto' or 'local'; none answered "
            f"at {address!r} ({error})."
        ) from error
    return ray
