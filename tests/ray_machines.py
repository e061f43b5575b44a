"""A Ray cluster of two machines, each one processor, that are processes of this one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@contextmanager
def a_machine(*paths: Path) -> Iterator[Any]:
    """A cluster whose head has one processor; its workers find the modules in these folders.
    Skips where Ray cannot start."""
    import ray
    from ray.cluster_utils import Cluster

    # Short, since the paths of sockets may not be long.
    temp = tempfile.mkdtemp(prefix="lucency-ray-")
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    # A node that is gone is noticed within a second, not within a minute.
    quick = {"health_check_period_ms": 300, "health_check_failure_threshold": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(map(str, paths)))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # Ray sets it to the processors of a task, unless it is set.
        patch.setenv("OMP_NUM_THREADS", "3")
        patch.delenv("RAY_ADDRESS", raising=False)
        try:
            cluster = Cluster(
                initialize_head=True,
                head_node_args={**small, "temp_dir": temp, "_system_config": quick},
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, it is not ours
            shutil.rmtree(temp, ignore_errors=True)
            pytest.skip(f"Ray cannot start on this machine: {error}")
        yield SimpleNamespace(cluster=cluster, small=small)
        ray.shutdown()
        cluster.shutdown()
    shutil.rmtree(temp, ignore_errors=True)


def two_machines(machines: Any) -> Any:
    """The cluster with a second node, which a test may have taken away, and this process connected
    to it."""
    import ray

    if not machines.cluster.worker_nodes:
        machines.cluster.add_node(**machines.small)
    machines.cluster.wait_for_nodes()
    if not ray.is_initialized():
        ray.init(machines.cluster.address, log_to_driver=False, logging_level="error")
    return machines.cluster
