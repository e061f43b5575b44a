"""Screening on a cluster: two real nodes on this machine, processes killed, machines lost."""

from __future__ import annotations

import importlib
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ray_victim import DIGEST, VARIABLE, Note, watched_folder, workers
from torch import nn

from lucency import grpc_probe as probe
from lucency.data.preprocess import InputContract
from lucency.errors import ConfigError, LucencyError, MissingExtra, ModelError
from lucency.manifest import code_digest
from lucency.report.screen_record import ScreenedImage
from lucency.runs import verify
from lucency.screening import ScreenSettings, on_ray, parts, ray_pool
from lucency.screening.films import FilmList, list_films
from lucency.screening.parts import Rows, here, split
from lucency.screening.run import prepare
from lucency.screening.worker import Job, Part
from lucency.victims.card import load_victim, save_victim
from lucency.victims.engine import with_engine
from lucency.victims.victim import Victim
from ray_machines import a_machine, two_machines
from screened_model import reference, screen_images, suspects
from tiny_run import call
from toy_victims import SIZE

ray = pytest.importorskip("ray")

pytestmark = pytest.mark.usefixtures("one_thread", "never_longer")

TESTS = Path(__file__).resolve().parents[1]
SETTINGS = ScreenSettings(alpha=0.05, engine="torch")
N = 41


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SIZE", 4)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model, a reference set, 41 suspects (one of them broken), and the folder of orders."""
    folder = tmp_path_factory.mktemp("screening")
    watched_folder(folder / "model")
    reference(folder / "reference")
    suspects(folder / "suspects")
    (folder / "suspects" / "c-broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and nothing else")
    (folder / "watch").mkdir()
    (folder / "watch" / "test-process").write_text(str(os.getpid()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(folder / "watch"))
        patch.setenv(DIGEST, code_digest())
        yield folder


@pytest.fixture
def watch(place: Path) -> Iterator[Path]:
    """The folder of orders, without any."""
    folder = place / "watch"
    yield folder
    for path in folder.iterdir():
        if path.name != "test-process":
            path.unlink(missing_ok=True)


@pytest.fixture(scope="module")
def job(place: Path) -> Job:
    victim, clean = load_victim(place / "model", run_code=True), list_films([place / "reference"])
    return prepare(victim, clean, SETTINGS)[1]


@pytest.fixture(scope="module")
def local(place: Path) -> Path:
    """The same screening without a cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "SIZE", 4)
        return _screen(place, place / "local", here)


@pytest.fixture(scope="module")
def machines(place: Path) -> Iterator[Any]:
    with a_machine(TESTS / "screening", TESTS) as found:
        yield found


@pytest.fixture
def cluster(machines: Any) -> Any:
    return two_machines(machines)


def _screen(place: Path, out: Path, run: Any) -> Path:
    return screen_images(
        [place / "suspects"], place / "model", place / "reference", out, SETTINGS, run=run
    )


def _lines(folder: Path) -> list[ScreenedImage]:
    text = (folder / "screen.jsonl").read_text(encoding="utf-8")
    lines = [ScreenedImage.model_validate_json(line) for line in text.splitlines()]
    return [line.model_copy(update={"seconds": None}) for line in lines]


def _timeless(found: Sequence[Part]) -> list[Part]:
    ordered = sorted(found, key=lambda part: part.first)
    return [
        part.model_copy(
            update={
                "seconds": 0.0,
                "lines": tuple(line.model_copy(update={"seconds": None}) for line in part.lines),
            }
        )
        for part in ordered
    ]


def _after_the_first(run: Any, act: Callable[[], None]) -> tuple[Any, list[int]]:
    """The run that acts once a part has come back, and the first rows of the parts that came."""
    came: list[int] = []

    def acting(job: Job, films: FilmList, parts: Sequence[Rows]) -> Iterator[Part]:
        for part in run(job, films, parts):
            came.append(part.first)
            yield part
            if len(came) == 1:
                act()

    return acting, came


@pytest.mark.slow
class TestOnTwoNodes:
    def test_a_killed_worker_costs_nothing(
        self, place: Path, watch: Path, local: Path, cluster: Any, tmp_path: Path
    ) -> None:
        (watch / "together").write_text("2")
        run, came = _after_the_first(on_ray("auto"), (watch / "kill").touch)
        out = _screen(place, tmp_path / "out", run)

        (killed,) = watch.glob("killed-*")
        seen = workers(watch)
        assert int(killed.name.partition("-")[2]) in seen
        assert len({node for _, node in seen.values()}) == 2
        assert {threads for threads, _ in seen.values()} == {1}
        assert sorted(came) == [rows[0] for rows in split(N)]
        assert _lines(out) == _lines(local)
        assert [line.status for line in _lines(out)] == ["ok"] * 40 + ["rejected"]
        assert verify(out) == []
        # Whoever connected this process keeps the connection.
        assert ray.is_initialized()

    def test_a_lost_machine_costs_nothing(
        self, place: Path, watch: Path, job: Job, cluster: Any
    ) -> None:
        """The node goes while a part is in the middle of its passes on it."""
        (watch / "together").write_text("2")
        (node,) = cluster.worker_nodes

        def lose() -> None:
            (watch / "hold").touch()
            held: list[int] = []
            while len(held) < 2:
                held = [int(path.name.partition("-")[2]) for path in watch.glob("held-*")]
            assert node.node_id in {workers(watch)[pid][1] for pid in held}
            cluster.remove_node(node, allow_graceful=False)
            (watch / "hold").unlink()

        films = list_films([place / "suspects"])
        run, came = _after_the_first(on_ray("auto"), lose)
        found = list(run(job, films, split(N)))
        assert not cluster.worker_nodes
        assert sorted(came) == [rows[0] for rows in split(N)]
        assert _timeless(found) == _timeless(list(here(job, films, split(N))))

    @pytest.mark.parametrize(
        ("kind", "sentence"),
        [
            ("model", "The toy must fail, as it was told."),
            ("extra", "The toy needs an optional package; install it with: "),
            ("worker", "ValueError: no such grey"),
        ],
    )
    def test_what_a_worker_raises_is_one_sentence(
        self, place: Path, watch: Path, job: Job, cluster: Any, kind: str, sentence: str
    ) -> None:
        (watch / "fail").write_text(kind)
        with pytest.raises(LucencyError) as caught:
            list(on_ray("auto")(job, list_films([place / "suspects"]), split(N)))
        assert str(caught.value).startswith(f"{socket.gethostname()}: {sentence}")
        assert len(str(caught.value).splitlines()) == 1

    def test_a_fault_of_ours_is_not_hidden(
        self, place: Path, watch: Path, job: Job, cluster: Any
    ) -> None:
        (watch / "fail").write_text("ours")
        with pytest.raises(ZeroDivisionError, match="a fault of ours") as caught:
            list(on_ray("auto")(job, list_films([place / "suspects"]), split(N)))
        assert not isinstance(caught.value, LucencyError)

    @pytest.mark.parametrize("engine", ["torch", "openvino"])
    def test_a_convolutional_network_answers_the_same(
        self, place: Path, tmp_path: Path, cluster: Any, engine: Any
    ) -> None:
        """In bf16 where this machine computes it, and by an engine, which workers compile anew."""
        if engine == "openvino":
            pytest.importorskip("openvino")
        contract = InputContract(size=SIZE, mean=(0.5,), std=(0.25,))
        network = _small_densenet(contract)
        save_victim(tmp_path, network, "densenet-small", "test")
        victim = with_engine(load_victim(tmp_path), engine)
        victim.network.note = Note()  # type: ignore[assignment]
        clean, films = list_films([place / "reference"]), list_films([place / "suspects"])
        chosen = FilmList(*(column[:40] for column in vars(clean).values()))
        job = prepare(victim, chosen, SETTINGS)[1]
        some = split(N)[-3:]
        found = list(on_ray("auto")(job, films, some))
        assert _timeless(found) == _timeless(list(here(job, films, some)))

    def test_code_that_a_machine_lacks(
        self, place: Path, job: Job, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _only_here(tmp_path, monkeypatch, "import torch\nclass Net(torch.nn.Identity): pass\n")
        import only_here

        foreign = _with_network(job, only_here.Net())
        films = list_films([place / "suspects"])
        with pytest.raises(LucencyError) as caught:
            list(on_ray("auto")(foreign, films, split(N)))
        sentence = str(caught.value)
        assert "only_here" in sentence
        assert "PYTHONPATH" in sentence
        assert len(sentence.splitlines()) == 1

    def test_a_machine_without_lucency(
        self, place: Path, job: Job, cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As if: the function is one that workers cannot import."""
        _only_here(tmp_path, monkeypatch, "def screen(*_): return ''\n")
        import only_here

        monkeypatch.setattr(ray_pool, "_screen", only_here.screen)
        with pytest.raises(ConfigError, match="must be installed on every machine"):
            list(on_ray("auto")(job, list_films([place / "suspects"]), split(N)))

    def test_a_machine_with_another_lucency(
        self, place: Path, job: Job, cluster: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ours = {**ray_pool.software(), "lucency code": "0123456789ab"}
        monkeypatch.setattr(ray_pool, "software", lambda: ours)
        with pytest.raises(LucencyError, match="the same lucency code, 0123456789ab, but this one"):
            list(on_ray("auto")(job, list_films([place / "suspects"]), split(N)))

    def test_a_network_that_cannot_be_copied(self, place: Path, job: Job, cluster: Any) -> None:
        network = nn.Identity()
        network.lock = threading.Lock()  # type: ignore[assignment]
        films = list_films([place / "suspects"])
        with pytest.raises(ModelError, match="can be copied to other processes") as caught:
            list(on_ray("auto")(_with_network(job, network), films, split(N)))
        assert len(str(caught.value).splitlines()) == 1

    def test_the_command(
        self, place: Path, local: Path, cluster: Any, tmp_path: Path, watch: Path
    ) -> None:
        """By address, from a process that knew nothing of Ray; it lets go of the cluster."""
        ray.shutdown()
        arguments = ["screen", place / "suspects", "--model", place / "model", "--alpha", "0.05"]
        arguments += ["--reference", place / "reference", "--engine", "torch"]
        arguments += ["--ray", cluster.address, "--run-code", "--out", tmp_path / "out", "--json"]
        answer = call(*arguments)
        assert answer.code == 3, answer.err
        assert answer.err == ""
        assert _lines(tmp_path / "out") == _lines(local)
        assert not ray.is_initialized()


def _small_densenet(contract: InputContract) -> Victim:
    from lucency.victims.architectures import build

    network = build("densenet-small", 1, 4, seed=11).eval()
    return Victim(network, contract, ("A", "B", "C", "D"), bf16=True)


def _with_network(job: Job, network: nn.Module) -> Job:
    victim = replace(job.screener.victim, network=network)
    return replace(job, screener=replace(job.screener, victim=victim))


def _only_here(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """A module `only_here`, which no worker can find."""
    (folder / "only_here.py").write_text(code)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "only_here", raising=False)
    importlib.invalidate_caches()


class FakeRay:
    """Ray's functions, in this process: a task is done when somebody waits for it."""

    exceptions = ray.exceptions

    def __init__(self, capacity: dict[str, float], answer: Any = None) -> None:
        self.capacity, self.answer = capacity, answer
        self.options: dict[str, Any] = {}
        self.in_flight = self.most = self.asked = 0

    def put(self, value: Any) -> Any:
        return value

    def cluster_resources(self) -> dict[str, float]:
        return self.capacity

    def remote(self, **options: Any) -> Any:
        self.options = options

        def submit(shared: Any, first: int, films: FilmList) -> tuple[int, int]:
            self.in_flight += 1
            self.asked += 1
            self.most = max(self.most, self.in_flight)
            return first, len(films)

        return lambda function: SimpleNamespace(remote=submit)

    def wait(self, waiting: list[Any], num_returns: int, timeout: float) -> Any:
        if not self.capacity:
            return [], waiting
        return waiting[-1:], waiting[:-1]

    def get(self, task: tuple[int, int]) -> str:
        self.in_flight -= 1
        if isinstance(self.answer, Exception):
            raise self.answer
        first, n = task
        rejected = {"status": "rejected", "reason": "nothing"}
        lines = tuple(ScreenedImage(image=f"{first + i}", **rejected) for i in range(n))  # type: ignore[arg-type]
        return Part(
            first=first,
            lines=lines,
            described=(),
            copied=(),
            forwards=0,
            backwards=0,
            seconds=0.0,
        ).model_dump_json()


def _films(n: int) -> FilmList:
    nobody = (None,) * n
    return FilmList(tuple(Path(f"{i}.png") for i in range(n)), ("x",) * n, nobody, nobody)


class TestParts:
    def test_few_are_in_flight_whatever_there_are(self, job: Job) -> None:
        fake, n = FakeRay({"CPU": 3.0}), 4000
        came = []
        for part in ray_pool.screen_on(fake, job, _films(n), split(n)):
            came.append(part.first)
            # Nobody who does not ask gets more than those in flight.
            assert fake.asked - len(came) < 3 * ray_pool.AHEAD
        assert fake.most == 3 * ray_pool.AHEAD
        assert sorted(came) == [rows[0] for rows in split(n)]
        assert fake.options == {"num_cpus": 1, "num_gpus": 0, "max_retries": ray_pool.RETRIES}

    def test_machines_that_come_are_used(self, job: Job) -> None:
        fake = FakeRay({"CPU": 1.0})
        found = ray_pool.screen_on(fake, job, _films(400), split(400))
        next(found)
        assert fake.most == ray_pool.AHEAD
        fake.capacity = {"CPU": 5.0}
        next(found)
        assert fake.most == 5 * ray_pool.AHEAD

    def test_a_cluster_without_processors(self, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ray_pool, "PATIENCE_S", 0.0)
        with pytest.raises(ConfigError, match="must have a CPU, got none for"):
            list(ray_pool.screen_on(FakeRay({}), job, _films(9), split(9)))

    def test_a_network_on_a_gpu_is_sent_to_gpus(self, job: Job) -> None:
        class OnGpu(Victim):
            device = torch.device("cuda", 0)  # type: ignore[assignment]

        victim = OnGpu(nn.Identity(), job.screener.victim.contract, ("A",))
        moved = replace(job, screener=replace(job.screener, victim=victim))
        fake = FakeRay({"CPU": 64.0, "GPU": 1.0})
        assert len(list(ray_pool.screen_on(fake, moved, _films(40), split(40)))) == 10
        assert fake.options["num_gpus"] == 1
        assert fake.most == ray_pool.AHEAD

    def test_a_part_that_kills_every_worker(self, job: Job) -> None:
        fake = FakeRay({"CPU": 1.0}, ray.exceptions.WorkerCrashedError())
        with pytest.raises(LucencyError, match=r"lost one 6 times .*same command again") as caught:
            list(ray_pool.screen_on(fake, job, _films(9), split(9)))
        assert len(str(caught.value).splitlines()) == 1

    def test_nothing_to_do_needs_no_cluster(
        self, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ray, "init", None)
        assert list(on_ray("local")(job, _films(0), [])) == []


class TestAddress:
    def test_without_ray(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "ray", None)
        with pytest.raises(MissingExtra, match=r"pip install 'lucency\[ray\]'"):
            on_ray("local")

    def test_nothing_listens(self) -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        with pytest.raises(ConfigError, match=r"nothing answers .*refused.*; start it"):
            on_ray(f"127.0.0.1:{port}")

    @pytest.mark.parametrize(
        "address", ["", "nonsense", "host:", ":6379", "host:port", "host:99999", "host:0", "h:²"]
    )
    def test_no_address(self, address: str) -> None:
        with pytest.raises(ConfigError, match="must be HOST:PORT, 'auto' or 'local', got"):
            on_ray(address)

    @pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", None])
    def test_something_else_listens(
        self, answer: bytes | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It hangs up, speaks as a dashboard does, or says nothing."""
        monkeypatch.setattr(probe, "TIMEOUT_S", 0.3)
        with _server(answer) as port, pytest.raises(ConfigError, match="something else answers"):
            on_ray(f"127.0.0.1:{port}")

    def test_no_cluster_to_belong_to(
        self, job: Job, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def init(address: str, **_: Any) -> None:
            raise ConnectionError("Could not find any running Ray instance.\nPlease specify")

        monkeypatch.setattr(ray, "init", init)
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        with pytest.raises(ConfigError, match="'auto' gives: Could not find any running") as caught:
            list(on_ray("auto")(job, _films(4), split(4)))
        assert len(str(caught.value).splitlines()) == 1

    def test_what_ray_says_is_not_part_of_the_answer(
        self, job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """It tells of lost machines on standard output, whatever it is asked."""
        fake = FakeRay({"CPU": 1.0})
        for name in ("put", "cluster_resources", "remote", "wait", "get"):
            monkeypatch.setattr(ray, name, getattr(fake, name))
        say = lambda text: sys.stdout.write(f"{text}\n")  # noqa: E731 - looked up when it is called
        monkeypatch.setattr(ray, "init", lambda *_, **__: say("raylet started"))
        monkeypatch.setattr(ray, "shutdown", lambda: say("raylet ended"))
        for _ in on_ray("local")(job, _films(9), split(9)):
            say("raylet terminated")
        say("the answer")
        out, err = capsys.readouterr()
        assert out == "the answer\n"
        told = ["raylet started", *["raylet terminated"] * 3, "raylet ended"]
        assert err.splitlines() == told

    def test_local_is_a_new_cluster_and_ends_with_the_run(
        self, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Never the one that this machine belongs to, and without a page that others can open."""
        said: list[Any] = []
        fake = FakeRay({"CPU": 1.0})
        for name in ("put", "cluster_resources", "remote", "wait", "get"):
            monkeypatch.setattr(ray, name, getattr(fake, name))
        monkeypatch.setattr(ray, "init", lambda address, **options: said.append((address, options)))
        monkeypatch.setattr(ray, "shutdown", lambda: said.append("shutdown"))
        found = on_ray("local")(job, _films(9), split(9))
        next(iter(found))
        found.close()  # type: ignore[attr-defined]
        (address, options), last = said
        assert (address, last) == ("local", "shutdown")
        assert options["include_dashboard"] is False
        assert options["log_to_driver"] is False

    def test_the_command_refuses_before_it_calibrates(self, tmp_path: Path) -> None:
        arguments = ["screen", tmp_path, "--model", tmp_path, "--reference", tmp_path]
        answer = call(*arguments, "--out", tmp_path / "out", "--ray", "nowhere")
        assert answer.code == 2
        assert "--ray must be HOST:PORT" in answer.err
        assert len(answer.err.splitlines()) == 1


class _server:  # noqa: N801 - used as a function
    """A port at which something answers, once."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer, self.socket = answer, socket.create_server(("127.0.0.1", 0))
        self.open: list[socket.socket] = []

    def __enter__(self) -> int:
        threading.Thread(target=self._serve, daemon=True).start()
        return int(self.socket.getsockname()[1])

    def __exit__(self, *_: Any) -> None:
        self.socket.close()
        for connection in self.open:
            connection.close()

    def _serve(self) -> None:
        try:
            connection, _ = self.socket.accept()
        except OSError:
            return
        self.open.append(connection)
        if self.answer is not None:
            connection.recv(64)
            connection.sendall(self.answer)
            connection.close()
