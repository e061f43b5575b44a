"""The connection to a Ray cluster, for work that outgrows one machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

from lucency.config_faults import shown
from lucency.errors import ConfigError, MissingExtra
from lucency.grpc_probe import require_server
from lucency.manifest import versions

LOCAL, AUTO = "local", "auto"
RETRIES = 5
"""How often what a dead worker or machine was working on is given to another one."""
PATIENCE_S = 60.0
"""Without any processor for this long, a cluster has none, rather than none yet."""


def import_ray(what: str, address: str) -> Any:
    """Ray itself. Raises, at once, MissingExtra without it, and ConfigError if no cluster can be at
    `address`; what: what it is needed for."""
    try:
        import ray
    except ImportError as error:
        raise MissingExtra(what, "ray") from error
    if address not in (LOCAL, AUTO) and "://" not in address:
        require_server(address)
    return ray


@contextmanager
def connected(ray: Any, address: str) -> Iterator[None]:
    """Connect, and leave the cluster on any exit; a connection that this process has already is
    used for "auto", and kept."""
    if address == AUTO and ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "critical"}
    if address == LOCAL:
        options["include_dashboard"] = False
    # Ray tells of workers and machines that died on standard output, which is for the answer.
    with redirect_stdout(sys.stderr):
        try:
            ray.init(address, **options)
        except Exception as error:
            raise ConfigError(
                f"--ray must be the address of a running Ray cluster, 'auto' or 'local'; "
                f"{address!r} gives: {first_line(error)}."
            ) from error
        try:
            yield
        finally:
            ray.shutdown()


def capacity(ray: Any, kind: str) -> int:
    """Processors, "CPU" or "GPU", that the cluster has now: machines come and go."""
    return int(ray.cluster_resources().get(kind, 0))


def require_capacity(ray: Any, kind: str) -> None:
    """Raises ConfigError if there is none; for when nothing has happened for PATIENCE_S."""
    if not capacity(ray, kind):
        raise ConfigError(
            f"The Ray cluster must have a {kind}, got none for {PATIENCE_S:.0f} s; start a machine "
            "that has one, or leave --ray out."
        )


def software() -> dict[str, str]:
    """What numbers depend on: every machine must have the same."""
    return {name: versions()[name] for name in ("lucency code", "torch")}


def require_software(theirs: Mapping[str, str]) -> None:
    """On a worker. Raises ConfigError if it has other software than `theirs`."""
    for name, version in software().items():
        if theirs[name] != version:
            raise ConfigError(
                f"Every machine of the cluster must have the same {name}, {theirs[name]}, but "
                f"this one has {version}; install the same there."
            )


def first_line(error: Exception) -> str:
    """The first line of what an error says, made plain."""
    return shown(str(error).strip().partition("\n")[0].rstrip("."), 200)
