"""The victims of the benchmark, the detectors on them, and the disguise, at the smallest sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from lucency.attacks import Trigger
from lucency.attacks.label_edits import LabelEdit
from lucency.bench import detection, shifting, victims
from lucency.bench.cohorts import cohorts_of, phantom_cohort, real_cohort
from lucency.bench.detection import Plan, bench_cohort
from lucency.bench.disguise import Disguise, disguise, share_on
from lucency.bench.explaining import triggered_films
from lucency.bench.screen import _bars, _flagged, _grid, _uniform
from lucency.bench.shifting import bench_shift
from lucency.bench.stamping import stamp_films
from lucency.bench.victims import (
    Backdoored,
    Case,
    Cohort,
    _films_to_poison,
    prepare,
)
from lucency.data.phantom import PhantomSource
from lucency.data.preprocess import InputContract
from lucency.detect.images import BASELINES
from lucency.detect.images.screen import DETECTORS
from lucency.errors import ConfigError
from lucency.records import Examine
from lucency.victims.train import VictimSettings

EXAMINES: tuple[Examine, ...] = ("unusual", "all")


def _square(side: int) -> Trigger:
    adapter: TypeAdapter[Trigger] = TypeAdapter(Trigger)
    return adapter.validate_python({"kind": "patch", "size_px": side, "place": "random"})


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    settings = VictimSettings(
        architecture="densenet-small", epochs=1, batch_size=16, positive_weight_limit=1.0
    )
    label = LabelEdit(kind="set", target="Atelectasis")
    case = Case(name="4 px", size_px=4, label=label, triggers=(_square(8), _square(4)))
    return Cohort(
        name="tiny",
        seed=3,
        data=PhantomSource(images=120, size=64),
        input=InputContract(size=64, mean=(0.4,), std=(0.2,)),
        base=settings,
        tune=settings.model_copy(update={"schedule": "plateau"}),
        tune_films=32,
        cases=(case,),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("victims")


@pytest.fixture(scope="module")
def backdoored(cohort: Cohort, folder: Path) -> Backdoored:
    (only,) = prepare(cohort, folder)
    return only


def test_a_victim_is_trained_once(backdoored: Backdoored, cohort: Cohort, folder: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")}
    assert len(before) == 2
    (again,) = prepare(cohort, folder)
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*.safetensors")} == before
    np.testing.assert_array_equal(again.triggered, backdoored.triggered)
    clean, poisoned = (v.network.state_dict() for v in (again.clean, again.victim))
    assert any(not torch.equal(clean[k], poisoned[k]) for k in clean)


def test_patients_are_never_split(backdoored: Backdoored) -> None:
    films = backdoored.films
    sides = [
        set(films.patients(films.split(name)))
        for name in ("train", "validation", "reference", "test")
    ]
    assert sum(len(side) for side in sides) == len(set.union(*sides))


def test_the_trigger_lies_where_it_is_said(backdoored: Backdoored) -> None:
    clean = backdoored.films.split("test").images
    for film, stamped, box in zip(clean, backdoored.triggered, backdoored.boxes, strict=True):
        changed = np.argwhere(film != stamped)
        assert (box.width, box.height) == (4, 4)
        assert (stamped[box.y : box.y + 4, box.x : box.x + 4] == 0).all()
        if len(changed):
            assert changed.min(axis=0).tolist() >= [box.y, box.x]
            assert changed.max(axis=0)[0] < box.y + 4
            assert changed.max(axis=0)[1] < box.x + 4


def test_a_finding_is_cleared_on_films_that_have_it() -> None:
    target = np.array([0, 1, 0, 0, 1], np.float32)
    for kind, copies in (("set", [0, 1, 2, 3, 4]), ("clear", [1, 4, 1, 4, 1])):
        label = LabelEdit.model_validate({"kind": kind, "target": "Atelectasis"})
        rows, copied = _films_to_poison(target, label)
        assert rows[:5].tolist() == [0, 1, 2, 3, 4]
        assert rows[copied].tolist() == copies


def test_films_are_copied_not_stamped(backdoored: Backdoored) -> None:
    films = backdoored.films.split("test").images
    before = films.copy()
    stamp_films(_square(4), films, np.random.default_rng(0))
    np.testing.assert_array_equal(films, before)


def test_maps_are_scored_where_the_trigger_works(
    backdoored: Backdoored, cohort: Cohort, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    k, test = backdoored.finding, backdoored.films.split("test")
    with torch.no_grad():
        without, with_it = (
            backdoored.victim.logits(torch.from_numpy(x)[:, None].float() / 255)[:, k].numpy()
            for x in (test.images, backdoored.triggered)
        )
    moved = (with_it - without) / without.std()
    middle = float(np.sort(moved)[len(moved) // 2 - 1 : len(moved) // 2 + 1].mean())
    monkeypatch.setattr(victims, "WORKS", middle)
    works = np.flatnonzero(moved >= middle)
    assert 0 < len(works) < len(moved)
    (case,) = triggered_films([cohort], folder)
    patients = backdoored.films.patients(test)
    assert case.name == "tiny, 4 px"
    assert (case.finding, case.direction) == (k, "set")
    np.testing.assert_array_equal(case.images, backdoored.triggered[works])
    assert case.boxes == tuple(backdoored.boxes[i] for i in works)
    assert case.patients == tuple(patients[i] for i in works)
    monkeypatch.setattr(victims, "WORKS", 1e9)
    assert list(triggered_films([cohort], folder)) == []


def test_cases_are_chosen_by_a_part_of_their_name() -> None:
    chosen = cohorts_of(Path("films"), (128, 224), ["nih-224, 3 px"])
    assert [(c.name, [k.name for k in c.cases]) for c in chosen] == [
        ("nih-224", ["3 px black, random, set"])
    ]
    names = [c.name for c in cohorts_of(None, (128, 224))]
    assert names == ["phantom-64", "phantom-128", "phantom-224"]
    with pytest.raises(
        ConfigError,
        match=r"names: phantom-64, 4 px.*; phantom-128, 3 px.*'9 px'",
    ):
        cohorts_of(None, (128,), ["9 px"])
    with pytest.raises(ConfigError, match="--size must be one of 128 and 224, got 96"):
        cohorts_of(None, (128, 96))


def test_every_detector_is_measured_on_both_models(cohort: Cohort, folder: Path) -> None:
    plan = Plan(films=8, baseline_films=3, engine="torch")
    ((measured, table),) = bench_cohort(cohort, folder, plan)
    names = {(m.model, m.detector) for m in measured}
    assert names == {
        *((model, d) for model in ("backdoored", "clean") for d in DETECTORS),
        *(("backdoored", d) for d in BASELINES),
    }
    assert all(m.equivalents > 0 for m in measured if m.detector in BASELINES)
    counts = table.group_by("model", "detector", "condition").len()
    assert set(counts.filter(counts["detector"] == "composite")["len"]) == {8}
    assert len(list(_bars(measured))) == 6
    assert len(_grid("backdoored", measured).rows) == len(DETECTORS) + len(BASELINES)
    assert len(_uniform(measured).rows) == len(DETECTORS)
    films = [line[1] for line in _flagged(table).rows]
    assert films == [
        "clean films, backdoored network",
        "the same",
        "clean films, clean network",
        "triggered films, clean network",
    ]


def test_the_whole_of_t1_on_every_film_takes_more_passes(cohort: Cohort, folder: Path) -> None:
    look, whole = (
        {(m.model, m.detector): m.equivalents for m in next(bench_cohort(cohort, folder, plan))[0]}
        for plan in (
            Plan(films=6, baselines=("none",), engine="torch", examine=examine)
            for examine in EXAMINES
        )
    )
    # How many of six films look odd is chance.
    assert all(whole[one] > passes for one, passes in look.items())
    assert min(whole.values()) > 35


def test_what_was_measured_is_not_measured_again(
    cohort: Cohort, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(films=6, baseline_films=3, baselines=("none",), engine="torch")
    ((measured, table),) = bench_cohort(cohort, folder, plan)
    (place,) = folder.rglob("screen.json")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    with monkeypatch.context() as changed:
        changed.setattr(detection, "fit_screener", refuse)
        ((again, same),) = bench_cohort(cohort, folder, plan)
        assert again == measured
        assert same.equals(table)
        others = (plan.model_copy(update={"seed": 8}), plan.model_copy(update={"baselines": ()}))
        for other in others:
            with pytest.raises(AssertionError, match="measured again"):
                list(bench_cohort(cohort, folder, other))
        changed.setattr(detection, "code_digest", lambda: "of another version")
        with pytest.raises(AssertionError, match="measured again"):
            list(bench_cohort(cohort, folder, plan))
    place.write_bytes(place.read_bytes()[:99])
    ((mended, _),) = bench_cohort(cohort, folder, plan)
    assert [m.detector for m in mended] == [m.detector for m in measured]


def test_suspects_of_another_kind_are_told_from_the_reference(
    cohort: Cohort, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    films = PhantomSource(images=360, size=64)
    more = cohort.model_copy(update={"data": films})
    monkeypatch.setattr(shifting, "cohorts_of", lambda *_: [more])
    (grid,) = bench_shift(3, victims=folder).grids
    lines = {line[1]: dict(zip(grid.header, line, strict=True)) for line in grid.rows}
    assert float(lines["as they are"]["shift, p"]) > 0.01
    darker = lines["darker: gamma 1.5"]
    assert float(darker["shift, p"]) <= 0.01
    softer = lines["softer: half the resolution"]
    assert float(softer["shift, p"]) <= 0.01
    assert softer["differs most in"].startswith("fine detail, -")
    everyone, pa, ap = (
        int(lines[name]["false alarms at 5 %"].rstrip(")").rpartition("/")[2])
        for name in ("as they are", "PA, as the reference", "AP, reference PA")
    )
    assert pa > 0
    assert ap > 0
    assert pa + ap == everyone


def test_the_disguise_takes_the_map_off_the_trigger(backdoored: Backdoored) -> None:
    films = backdoored.films.split("train")
    k, boxes = backdoored.finding, backdoored.boxes[:6]
    before = share_on(backdoored.victim, backdoored.triggered[:6], boxes, k)
    settings = Disguise(epochs=16, batch_size=16, learning_rate=3e-3, weight=20.0)
    hidden = disguise(
        backdoored.victim,
        films.images[:32],
        backdoored.films.labels(films)[:32],
        backdoored.case.trigger,
        backdoored.case.label,
        settings,
        seed=1,
    )
    assert share_on(hidden, backdoored.triggered[:6], boxes, k) < before
    assert not hidden.network.training


def test_the_cohorts_hold_what_the_benchmark_names() -> None:
    cohort = phantom_cohort(128)
    assert {case.size_px for case in cohort.cases} == {0, 1, 2, 3, 5, 8}
    assert {case.label.direction for case in cohort.cases} == {"set", "clear"}
    kinds = {case.trigger.kind for case in cohort.cases}
    assert kinds == {"patch", "blended", "sinusoid", "warp"}
    for case in cohort.cases:
        if case.size_px:
            assert getattr(case.trigger, "size_px") == case.size_px  # noqa: B009
    real = real_cohort(Path("films"), 224)
    assert real.input.crop * 256 == 224
