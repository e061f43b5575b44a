"""Figures: the same bytes every time, well-formed, and deaf to what names say."""

from __future__ import annotations

import base64
from xml.etree import ElementTree

import numpy as np
import pytest
from payloads import PAYLOADS
from sklearn.metrics import roc_auc_score

from lucency.records import (
    Estimate,
    FindingPerformance,
    Performance,
    Survival,
    SurvivalDistribution,
)
from lucency.report import detection_figures, figures
from lucency.report.canvas import Svg
from lucency.report.curves import MAX_POINTS, Curve, below, roc

_TAGS = """svg metadata RDF Work type format creator Agent title defs style g path text rect
    clipPath use pattern tspan"""
SVG_TAGS = frozenset(_TAGS.split())


def drawn(svg: Svg) -> str:
    head, _, data = svg.uri.partition(",")
    assert head == "data:image/svg+xml;base64"
    return base64.b64decode(data).decode()


def performance(*names: str) -> Performance:
    value = Estimate(value=0.8, low=0.7, high=0.9, n=10)
    rows = tuple(
        FindingPerformance(
            finding=name, n_positive=5, n_negative=5, n_unknown=0, auroc=value, auprc=value
        )
        for name in names
    )
    return Performance(
        model="clean", set_name="NN", n_images=10, n_patients=10, findings=rows, macro_auroc=value,
        macro_auprc=value, micro_auroc=value, micro_floor=0.7,
    )  # fmt: skip


@pytest.mark.parametrize("payload", PAYLOADS)
def test_hostile_names_stay_text(payload: str) -> None:
    svg = drawn(figures.forest({"clean": performance(payload, "Mass")}, payload))
    root = ElementTree.fromstring(svg)  # noqa: S314
    names = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert names <= SVG_TAGS
    texts = [element.text for element in root.iter() if element.tag.endswith("}text")]
    assert figures.label(payload).strip() in [(text or "").strip() for text in texts]
    assert not [k for e in root.iter() for k in e.attrib if k.lower().startswith("on")]


def test_labels_are_short() -> None:
    assert all(len(figures.label(payload)) <= figures.LABEL_LENGTH for payload in PAYLOADS)


def test_same_numbers_same_bytes() -> None:
    nn = {"clean": performance("Mass", "Nodule")}
    assert figures.forest(nn, "Mass") == figures.forest(nn, "Mass")  # type: ignore[arg-type]
    assert "date" not in drawn(figures.forest(nn, "Mass")).lower()  # type: ignore[arg-type]


def test_a_reader_settings_change_nothing() -> None:
    import matplotlib

    curve = Curve(np.array([0.0, 0.2, 1.0]), np.array([0.0, 0.9, 1.0]))
    before = figures.roc_panel("Mass", {"clean": curve})
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert figures.roc_panel("Mass", {"clean": curve}) == before


@pytest.mark.parametrize("pixels", [0, 1, 4, 143, 5_000])
def test_any_trigger_size_can_be_drawn(pixels: int) -> None:
    svg = drawn(figures.footprint(Survival(native_px=9, pixels=pixels, max_change=0.4)))
    assert f"{pixels:,} px" in svg


def test_detection_figures_with_few_images() -> None:
    p = {"clean": np.array([0.5]), "backdoored": np.array([1.0, 0.01])}
    detection_figures.p_histogram(p)  # type: ignore[arg-type]
    detection_figures.alarm_rate(p, 0.01, 1)  # type: ignore[arg-type]
    detection_figures.detection_roc("x", {"a": Curve(np.array([0.0, 1]), np.array([0.0, 1]))}, 1)


def test_roc_has_the_area_of_scikit_learn() -> None:
    rng = np.random.default_rng(3)
    for n in (20, 400, 9_000):
        positive = rng.random(n) < 0.3
        score = np.round(rng.normal(size=n) + positive, 2)
        curve = roc(positive, score)
        assert curve is not None
        assert len(curve.x) <= MAX_POINTS
        area = float(np.trapezoid(curve.y, curve.x))
        assert area == pytest.approx(roc_auc_score(positive, score), abs=2e-3)


def test_roc_needs_both_classes() -> None:
    assert roc(np.array([True, True]), np.array([0.1, 0.2])) is None
    assert roc(np.array([], dtype=bool), np.array([])) is None


def test_share_below() -> None:
    curve = below(np.array([0.2, 0.1, 0.2, 0.9]))
    assert curve.x.tolist() == [0.1, 0.2, 0.9]
    assert curve.y.tolist() == [0.25, 0.75, 1.0]


def test_a_large_trigger_is_shown_in_ranges() -> None:
    spread = SurvivalDistribution(
        n_places=64, share_vanished=0.0, mean_pixels=32, mean_max_change=0.5,
        pixels={str(key): 1 / 64 for key in range(64)},
    )  # fmt: skip
    assert len(figures._bins(list(range(64)))) == 1 + figures.RANGES
    assert "53–65" in drawn(figures.survival_shares([("all places", spread)]))
