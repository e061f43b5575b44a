"""A sweep on a cluster: two real nodes on this machine, one lost in the middle."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lucency.config import load_toml
from lucency.errors import ConfigError
from lucency.lock import LOCK
from lucency.runs import verify
from lucency.sweep import SweepSettings, on_ray, ray_pool, sweep
from lucency.sweep.ray_pool import OnRay
from ray_machines import a_machine, two_machines
from tiny_run import call, contents

ray = pytest.importorskip("ray")

pytestmark = pytest.mark.usefixtures("never_longer")

TESTS = Path(__file__).resolve().parents[1]


def _lose(cluster: Any, out: Path) -> None:
    """Take a node away once runs are under way on both."""
    (node,) = cluster.worker_nodes
    deadline = time.monotonic() + 120
    while len(list(out.glob("runs/*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    cluster.remove_node(node, allow_graceful=False)


@pytest.mark.slow
def test_a_lost_machine_costs_nothing(tiny_sweep, tmp_path: Path) -> None:
    """The same bytes as those of one process on this machine."""
    out = tmp_path / tiny_sweep.folder.name
    with a_machine(TESTS) as machines:
        cluster = two_machines(machines)
        loser = threading.Thread(target=_lose, args=(cluster, out), daemon=True)
        loser.start()
        sweep(
            load_toml(tiny_sweep.toml, SweepSettings),
            tiny_sweep.toml.parent,
            out,
            partial(on_ray, "auto"),
            file=tiny_sweep.toml.name,
            sweep_toml=tiny_sweep.toml.read_text(encoding="utf-8"),
            command=f"lucency sweep {tiny_sweep.toml.name}",
            device="cpu",
        )
        loser.join()
        assert not cluster.worker_nodes
    assert verify(out) == []
    assert contents(out) == contents(tiny_sweep.folder)


class FakeRay:
    """A cluster that answers as it is told, in the order in which jobs came."""

    class exceptions:  # noqa: N801
        class RayError(Exception): ...

        class RayTaskError(RayError): ...

    def __init__(self, answer: Any, processors: dict[str, int]) -> None:
        self._answer, self._processors = answer, processors
        self.options: dict[str, Any] = {}

    def remote(self, **options: Any) -> Any:
        self.options = options
        return lambda work: SimpleNamespace(remote=lambda job, software: f"reference to {job}")

    def wait(self, references: list[str], *, num_returns: int, timeout: float) -> Any:
        done = [] if self._answer is None else references[:num_returns]
        return done, references[len(done) :]

    def get(self, reference: str) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    def cluster_resources(self) -> dict[str, int]:
        return self._processors


class TestPool:
    def test_each_job_has_a_processor_and_its_share_of_a_gpu(self) -> None:
        fake = FakeRay("it failed", {"GPU": 1})
        pool = OnRay(fake, 0.5)
        pool.submit("job")  # type: ignore[arg-type]
        assert pool.next() == ("job", "it failed")
        assert fake.options["num_gpus"] == 0.5
        assert fake.options["num_cpus"] == 1

    def test_a_cluster_without_a_processor_is_named(self) -> None:
        pool = OnRay(FakeRay(None, {"CPU": 8}), 1.0)
        pool.submit("job")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="must have a GPU"):
            pool.next()

    def test_a_job_that_is_lost_again_and_again_fails_alone(self) -> None:
        lost = FakeRay.exceptions.RayError("the node died\nand more")
        pool = OnRay(FakeRay(lost, {"CPU": 1}), 0.0)
        pool.submit("job")  # type: ignore[arg-type]
        assert pool.next() == ("job", "The cluster lost it 6 times (the node died).")

    def test_a_machine_without_lucency_ends_the_sweep(self) -> None:
        cannot = FakeRay.exceptions.RayTaskError("failed to import on the worker: lucency")
        pool = OnRay(FakeRay(cannot, {"CPU": 1}), 0.0)
        pool.submit("job")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="must be installed on every machine"):
            pool.next()


class TestOnAWorker:
    def test_a_machine_that_does_not_see_the_folder_says_so(self, tiny_sweep) -> None:
        job = tiny_sweep.pool.done[-1]
        (elsewhere,) = [job.folder.parents[1].parent / "elsewhere" / "runs" / "0123"]
        said = ray_pool._work(SimpleNamespace(folder=elsewhere), ray_pool.software())  # type: ignore[arg-type]
        assert said is not None
        assert "must see the sweep's folder" in said
        assert not elsewhere.exists()

    def test_other_software_is_refused(self, tiny_sweep) -> None:
        theirs = {**ray_pool.software(), "lucency code": "0123456789ab"}
        said = ray_pool._work(tiny_sweep.pool.done[-1], theirs)
        assert said is not None
        assert "the same lucency code, 0123456789ab" in said

    def test_what_is_done_is_not_done_again(self, tiny_sweep) -> None:
        job = tiny_sweep.pool.done[-1]
        before = contents(job.folder)
        assert ray_pool._work(job, ray_pool.software()) is None
        assert contents(job.folder) == before
        assert (job.folder.parents[1] / LOCK).exists()


def test_no_cluster_is_an_error_before_anything_is_done(tiny_sweep, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    answer = call("sweep", tiny_sweep.toml, "--out", out, "--ray", "127.0.0.1:1")
    assert answer.code == 2
    assert "127.0.0.1:1" in answer.err
