"""The published experiment: its settings, its reading, and a whole small reproduction."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score

from browsing import browser, check_quiet_and_within
from lucency.attacks.label_edits import LabelEdit
from lucency.attacks.patch import PatchTrigger
from lucency.attacks.survival import measure_survival
from lucency.data.preprocess import InputContract
from lucency.errors import ConfigError
from lucency.experiment import ExperimentSettings
from lucency.paper import in_settings, protocol, reproduce
from lucency.paper import run as run_module
from lucency.paper.explanations import published_grad_cam
from lucency.paper.mixed import mixed_scores
from lucency.paper.protocol import (
    PITFALLS,
    correction,
    experiment,
    main_sweep,
    pitfall_sweep,
    true_rate,
)
from lucency.paper.run import survival_rows
from lucency.report.paper_record import PaperReport
from lucency.runs import verify
from lucency.sweep.settings import expand
from lucency.victims.architectures import build
from lucency.victims.victim import Victim
from tiny_run import call, contents
from tiny_sweep import Here, here

__all__ = ["browser"]

FINDINGS = ("Effusion", "Mass", "Hernia")


class TestProtocol:
    def test_the_published_survival(self) -> None:
        """P1 of the reading of the paper: 0, 0, 1 and 4 px; asymmetric 0, 1, 1, 1."""
        rows = survival_rows()
        assert [row.pixels["nearest"] for row in rows] == [0, 0, 1, 4]
        assert [row.pixels["nearest-asymmetric"] for row in rows] == [0, 1, 1, 1]
        assert [row.pixels["area"] for row in rows] == [1, 4, 4, 4]

    @pytest.mark.parametrize("size", [1, 2, 3, 4])
    def test_synthetic_films_have_the_published_geometry(self, size: int) -> None:
        """Smaller, and a centred trigger survives as it did."""
        found = ExperimentSettings.model_validate_json(
            json.dumps(experiment(None) | {"attack": {**_attack(), "poison_rate": 0.1}})
        )
        native = found.data.size
        for kernel in ("nearest", "nearest-asymmetric", "area"):
            ours = found.input.model_copy(update={"resize": kernel})
            theirs = InputContract(size=224, crop=0.6, resize=kernel)
            trigger = PatchTrigger(size_px=size)
            small = measure_survival(trigger, ours, (native, native), (0.0, 0.0))
            large = measure_survival(trigger, theirs, (1024, 1024), (0.0, 0.0))
            assert (small.pixels, small.max_change) == (
                large.pixels,
                pytest.approx(large.max_change, abs=0.02),
            )

    def test_the_published_grid_is_whole(self) -> None:
        sweep = main_sweep(None, "published", in_settings())
        assert sweep.n_runs == 2 * 448
        cells = expand(sweep, Path(), "grid")
        rates = {
            c.settings.attack.poison_rate for c in cells if c.settings.attack.protocol == "add"
        }
        assert max(rates) == 0.5
        assert min(rates) == pytest.approx(0.01 / 1.01)

    @pytest.mark.parametrize("data", [None, Path("films")])
    def test_every_pitfall_is_switched_alone(self, data: Path | None) -> None:
        cells = expand(pitfall_sweep(data, "small"), Path(), "pitfalls")
        of = {str(cell.axes["case"]): cell.settings for cell in cells}
        published = of.pop("published").model_dump()
        corrected = of.pop("corrected").model_dump()
        assert list(of) == [f"published without {id}" for id in in_settings()]
        assert in_settings() == ("P1", "P3", "P5", "P6", "P7", "P8")
        assert [p.id for p in PITFALLS] == [f"P{i}" for i in range(1, 11)]
        for name, settings in of.items():
            changed = _differences(published, settings.model_dump())
            assert changed == set(correction({name.split()[-1]}))
        assert _differences(published, corrected) == set(correction(in_settings()))

    def test_a_share_is_a_rate_of_the_films_after_poisoning(self) -> None:
        assert true_rate("replace", 0.2) == 0.2
        assert true_rate("add", 1.0) == 0.5

    @pytest.mark.parametrize("named", ["P2", "P9", "p1", "P1,P11", ""])
    def test_a_pitfall_that_is_no_setting_is_refused(self, named: str, tmp_path: Path) -> None:
        answer = call("reproduce", "paper", "--correct", named, "--out", tmp_path / "out")
        assert answer.code == 2
        assert "--correct must be of P1, P3, P5, P6, P7, P8, or all" in answer.err


def _attack() -> dict[str, object]:
    return dict(experiment(None)["attack"])  # type: ignore[arg-type]


def _differences(a: dict, b: dict, path: str = "") -> set[str]:
    """Dotted keys at which two settings differ."""
    found: set[str] = set()
    for key in a:
        at = f"{path}.{key}".strip(".")
        if isinstance(a[key], dict) and isinstance(b[key], dict):
            found |= _differences(a[key], b[key], at)
        elif a[key] != b[key]:
            found.add(at)
    return found


class TestMixed:
    def test_against_scikit_learn(self, tmp_path: Path) -> None:
        generator = np.random.default_rng(3)
        n, label = 40, LabelEdit(kind="replace", target="Mass")
        truth = generator.integers(0, 2, (n, 3)).astype(np.float32)
        truth[0, 0] = np.nan
        clean, triggered = generator.random((2, n, 3))
        path = _predictions(tmp_path, truth, clean, triggered)
        scores = mixed_scores(path, label, seed=5)
        order = np.random.default_rng([5, 0x31D]).permutation(n)
        for score in scores:
            labels, values = truth.copy(), clean.copy()
            for i in order[: round(score.epsilon * n)]:
                labels[i], values[i] = [0, 1, 0], triggered[i]
            known = ~np.isnan(labels)
            expected = roc_auc_score(labels[known], values[known])
            assert score.micro_auroc == pytest.approx(expected)
        assert scores[0].macro_auroc is not None
        # With every film's label the same, no finding has both classes.
        assert scores[-1].macro_auroc is None
        assert scores[-1].micro_floor == 1.0


def _predictions(folder: Path, truth: np.ndarray, clean: np.ndarray, triggered: np.ndarray) -> Path:
    parts = []
    for model in ("clean", "backdoored"):
        for condition, values in (("clean", clean), ("triggered", triggered)):
            if model == "clean":
                values = np.zeros_like(values)
            n, k = values.shape
            parts.append(
                pl.DataFrame(
                    {
                        "model": [model] * (n * k),
                        "condition": [condition] * (n * k),
                        "split": ["test"] * (n * k),
                        "finding": list(FINDINGS) * n,
                        "label": truth.ravel(),
                        "probability": values.ravel(),
                    }
                ).with_columns(pl.col("label").fill_nan(None))
            )
    path = folder / "predictions.parquet"
    pl.concat(parts).write_parquet(path)
    return path


class TestPublishedGradCam:
    def test_by_its_formula(self) -> None:
        """The third block's map through the head, by hand."""
        network = build("densenet121", 1, 3, 0).eval()
        victim = Victim(network, InputContract(size=64), FINDINGS, False)
        grey = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
        maps = published_grad_cam(victim, grey, 1)
        kept: list[torch.Tensor] = []
        handle = network.features.denseblock3.register_forward_hook(
            lambda _, __, out: kept.append(out.detach())
        )
        victim.logits(grey)
        handle.remove()
        inner = kept[0].float().requires_grad_(True)
        weights = network.class_layers.out.weight[1]
        pooled = torch.relu(inner).mean(dim=(2, 3))
        probability = torch.sigmoid(pooled @ weights + network.class_layers.out.bias[1])
        (gradient,) = torch.autograd.grad(probability.sum(), inner)
        expected = (gradient.mean((2, 3), keepdim=True) * inner).sum(1).clamp(min=0).detach()
        torch.testing.assert_close(maps, expected)

    def test_a_head_that_takes_other_channels_is_named(self) -> None:
        network = build("densenet-small", 1, 3, 0).eval()
        victim = Victim(network, InputContract(size=64), FINDINGS, False)
        with pytest.raises(ConfigError, match=r"takes the 196 channels of features\.denseblock3"):
            published_grad_cam(victim, torch.rand(1, 1, 64, 64), 1)


class Reproduction(NamedTuple):
    """folder: of the finished reproduction; pool: what was done for it; again: do it once more."""

    folder: Path
    pool: Here
    again: Callable[[], Path]


@pytest.fixture(scope="module")
def reproduction(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reproduction]:
    """Few films, one epoch, a part of the grid."""
    table = experiment(None)
    small = {
        **table,
        "data": {"source": "phantom", "images": 120, "size": 128},
        "split": {"validation": 0.2, "reference": 0.05, "test": 0.3},
        "input": {**table["input"], "size": 32},  # type: ignore[dict-item]
        "victim": {**table["victim"], "epochs": 1, "batch_size": 16, "precision": "fp32"},  # type: ignore[dict-item]
    }
    out, pool = tmp_path_factory.mktemp("reproduction") / "paper", Here()
    command = "lucency reproduce paper"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, "experiment", lambda data: small)
        patch.setattr(protocol, "SIZES", (3,))
        patch.setattr(protocol, "PLACES", ("center",))
        patch.setattr(protocol, "_seeds", lambda grid: (0,))
        again = partial(reproduce, out, here(pool), corrected=in_settings(), command=command)
        yield Reproduction(again(), pool, again)


def test_a_small_reproduction(reproduction: Reproduction) -> None:
    """Every part of the page is there, and it is the same when it is made again."""
    out, pool, again = reproduction
    assert verify(out) == []
    report = PaperReport.model_validate_json((out / "report.json").read_bytes(), strict=True)
    assert len(report.points) == 2 * 2
    assert {row.variant for row in report.mixed} == {"published", "corrected"}
    assert [row.point is not None for row in report.pitfalls] == [
        bool(p.correction) for p in PITFALLS
    ]
    # As published, loss and weights of the clean model do not know of P5, P6 and P7.
    n_clean = sum(job.clean is None for job in pool.done)
    assert n_clean == 2 + 4 + 1
    page = (out / "report.html").read_text()
    assert "Published, reproduced, corrected." in page
    before, done = contents(out), len(pool.done)
    again()
    assert contents(out) == before
    assert len(pool.done) == done
    (out / "manifest.json").unlink()
    again()
    assert contents(out) == before
    assert len(pool.done) == done


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 768, 1280])
def test_the_page_in_a_browser(browser: Any, reproduction: Reproduction, width: int) -> None:
    check_quiet_and_within(browser, reproduction.folder / "report.html", width)


def test_the_kernels_are_all_there_are() -> None:
    assert run_module.KERNELS[0] == "nearest"
    assert len(run_module.KERNELS) == 5
