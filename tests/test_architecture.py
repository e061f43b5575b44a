"""The laws of the house, read from the source: who may import whom, and what nobody may call."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "lucency"
FILES = sorted(SOURCE.rglob("*.py"))

STAGES = ("data", "attacks", "victims", "evaluate", "explain", "detect", "repair", "report")
"""In the order in which values flow."""
FOUNDATIONS = (
    "records",
    "errors",
    "progress",
    "writing",
    "manifest",
    "lock",
    "runs",
    "config",
    "config_faults",
    "grpc_probe",
    "ray_cluster",
)
CONDUCTORS = (
    "experiment",
    "screening",
    "cli",
    "bench",
    "explaining",
    "sweep",
    "paper",
    "auditing",
    "scanning",
    "zoo",
)
"""The only places that know several stages."""
FORBIDDEN = {"detect": {"attacks", "evaluate"}, "report": set(STAGES) - {"report"}}
"""Earlier stages that a stage may not import all the same."""
WITHOUT_TORCH = ("data", "attacks", "evaluate", "report", *FOUNDATIONS)
UNSAFE_MODULES = {
    "pickle",
    "_pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "yaml",
}
NETWORK_MODULES = {"urllib", "http", "requests", "httpx", "aiohttp", "ftplib", "smtplib"}
UNSAFE_CALLS = {
    "torch.load",
    "torch.save",
    "torch.jit.load",
    "torch.hub.load",
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.unsafe_load",
}
UNSAFE_BUILTINS = {"eval", "exec", "compile", "__import__", "print"}
UNSAFE_FLAGS = {("allow_pickle", True), ("shell", True), ("weights_only", False)}
LOADS_TENSORS = ("victims/weights.py",)
"""The only file that may call `torch.load`, and only as `torch.load(…, weights_only=True)`."""
UNPICKLES = ("data/decode_worker.py", "sweep/pool.py")
"""`Connection.recv` unpickles: only the worker may do it, with what its own parent sends."""


def imports(tree: ast.AST, module: str, *, is_package: bool = False) -> Iterator[str]:
    """Dotted names of all that a module imports, at any depth; relative ones made absolute."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def part(name: str) -> str | None:
    """The stage or module below `lucency` that a dotted name belongs to."""
    steps = name.split(".")
    return steps[1] if steps[0] == "lucency" and len(steps) > 1 else None


def broken_laws(tree: ast.AST, module: str, *, is_package: bool = False) -> list[str]:
    """Every import of a module that goes against the flow."""
    own = part(module)
    found = []
    for name in imports(tree, module, is_package=is_package):
        target = part(name)
        if name.split(".")[0] in ("torch", "monai", "lightning_fabric") and own in WITHOUT_TORCH:
            found.append(f"{module} imports {name}")
        if target is None or target == own or own in CONDUCTORS or own is None:
            continue
        if target in FOUNDATIONS:
            continue
        is_earlier = own in STAGES and target in STAGES and STAGES.index(target) < STAGES.index(own)
        if own == "evaluate" or not is_earlier or target in FORBIDDEN.get(own, ()):
            found.append(f"{module} imports {name}")
    return found


def dotted(node: ast.AST) -> str:
    """`torch.load` for the expression torch.load; "" for anything that is not a dotted name."""
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def dangers(tree: ast.AST, file: str = "") -> list[str]:
    """What no file may contain, with its line."""
    found: list[tuple[int, str]] = []
    allowed = set(_tensor_loads(tree)) if file in LOADS_TENSORS else set()
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if node in allowed:
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in imports(node, "lucency.x"):
                root = name.split(".")[0]
                if root in UNSAFE_MODULES | NETWORK_MODULES or name in UNSAFE_CALLS:
                    found.append((line, name))
        elif isinstance(node, ast.Attribute) and dotted(node) in UNSAFE_CALLS:
            found.append((line, dotted(node)))
        elif isinstance(node, ast.Name) and node.id in UNSAFE_BUILTINS:
            found.append((line, node.id))
        elif isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
            if (node.arg, node.value.value) in UNSAFE_FLAGS:
                found.append((node.value.lineno, f"{node.arg}={node.value.value}"))
        elif isinstance(node, ast.ExceptHandler) and node.type is None:
            found.append((line, "bare except"))
        elif isinstance(node, ast.Assert):
            found.append((line, "assert"))
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "recv"
            and file not in UNPICKLES
        ):
            found.append((line, "recv"))
    return [f"{file}:{line} {what}" for line, what in sorted(found)]


def _tensor_loads(tree: ast.AST) -> Iterator[ast.AST]:
    """The `torch.load` of each call that says `weights_only=True` itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func) == "torch.load":
            said = {k.arg: k.value for k in node.keywords}
            value = said.get("weights_only")
            if isinstance(value, ast.Constant) and value.value is True and None not in said:
                yield node.func


def _module(path: Path) -> tuple[str, bool]:
    steps = ["lucency", *path.relative_to(SOURCE).with_suffix("").parts]
    is_package = steps[-1] == "__init__"
    return ".".join(steps[:-1] if is_package else steps), is_package


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def test_every_part_of_the_house_is_known() -> None:
    """A new module or package takes its place in the order above before it is merged."""
    parts = {p.stem if p.is_file() else p.name for p in SOURCE.iterdir() if p.suffix in ("", ".py")}
    assert parts - {"__init__", "__pycache__"} <= {*STAGES, *FOUNDATIONS, *CONDUCTORS}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_values_flow_one_way(path: Path) -> None:
    module, is_package = _module(path)
    assert broken_laws(_tree(path), module, is_package=is_package) == []


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_nothing_dangerous_is_called(path: Path) -> None:
    assert dangers(_tree(path), path.relative_to(SOURCE).as_posix()) == []


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("data.folder", "from lucency.attacks.ledger import PoisonLedger"),
        ("data.folder", "import torch"),
        ("attacks.patch", "import lucency.victims.victim"),
        ("evaluate.attack", "from lucency.data.inputs import Inputs"),
        ("evaluate.attack", "from torch import Tensor"),
        ("explain.grad_cam", "from lucency.detect.images import screen"),
        ("detect.images.screen", "from lucency.attacks.ledger import PoisonLedger"),
        ("detect.images.screen", "from lucency import attacks"),
        ("detect.images.screen", "from ...attacks import ledger"),
        ("detect.images.screen", "from lucency.evaluate import auroc"),
        ("detect.images.screen", "def f():\n    import lucency.attacks.ledger"),
        ("detect.images.screen", "from lucency.experiment import run"),
        ("report.page", "from lucency.victims.victim import Victim"),
        ("report.page", "from lucency.detect.images.screen import T0"),
        ("report.page", "import torch.nn"),
        ("records", "from lucency.data.inputs import Inputs"),
        ("runs", "import lucency.experiment"),
    ],
)
def test_an_import_against_the_flow_is_seen(module: str, line: str) -> None:
    assert broken_laws(ast.parse(line), f"lucency.{module}")


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("detect.images.screen", "from lucency.victims.victim import Victim"),
        ("detect.images.screen", "from lucency.explain.median import median_filter"),
        ("report.page", "from lucency.runs import read_json"),
        ("experiment.run", "from lucency.attacks.ledger import PoisonLedger"),
        ("cli", "from lucency.attacks.patch import PatchTrigger"),
    ],
)
def test_an_import_with_the_flow_is_free(module: str, line: str) -> None:
    assert broken_laws(ast.parse(line), f"lucency.{module}") == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.numpy_pickle",
        "torch.load(path)",
        "torch.load(path, weights_only=True)",
        "torch.save(x, path)",
        "load = torch.load",
        "from torch import load",
        "numpy.load(path, allow_pickle=True)",
        "eval(text)",
        "exec(text)",
        "f = eval",
        "yaml.load(text)",
        "import yaml",
        "subprocess.run(command, shell=True)",
        "os.system(command)",
        "from os import system",
        "import urllib.request",
        "from requests import get",
        "try:\n    f()\nexcept:\n    pass",
        "print(x)",
        "assert x",
        "connection.recv()",
    ],
)
def test_a_danger_is_seen(code: str) -> None:
    assert dangers(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=1)",
        "torch.load(path, weights_only=safe)",
        "torch.load(path, weights_only=True, **more)",
        "torch.load(path, None, pickle, True)",
        "load = torch.load",
        "load(torch.load, weights_only=True)",
        "from torch import load",
        "torch.save(x, path, weights_only=True)",
        "torch.jit.load(path, weights_only=True)",
    ],
)
def test_the_file_that_loads_tensors_may_do_nothing_else(code: str) -> None:
    assert dangers(ast.parse(code), "victims/weights.py")


def test_tensors_alone_are_loaded_in_one_file_alone() -> None:
    tree = ast.parse("torch.load(path, map_location='cpu', weights_only=True)")
    assert dangers(tree, "victims/weights.py") == []
    for path in FILES:
        file = path.relative_to(SOURCE).as_posix()
        assert file in LOADS_TENSORS or dangers(tree, file)


@pytest.mark.parametrize(
    "code",
    [
        "network.eval()",
        "console.print(x)",
        "numpy.load(path, allow_pickle=False)",
        "subprocess.Popen([sys.executable, '-c', text])",
        "try:\n    f()\nexcept OSError:\n    pass",
        "connection.recv_bytes()",
        "from safetensors.torch import load_file",
    ],
)
def test_what_is_harmless_is_let_through(code: str) -> None:
    assert dangers(ast.parse(code)) == []
