"""The poison ledger: drawn once from the seed, applied as a pure function; and label edits."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lucency.attacks import PatchTrigger
from lucency.attacks.label_edits import LabelEdit
from lucency.attacks.ledger import (
    AttackSettings,
    draw_ledger,
    n_poisoned,
    plain,
    stamp,
    trigger_every,
)
from lucency.data.arrays import ArrayImages
from lucency.data.preprocess import InputContract
from lucency.errors import ConfigError
from lucency.records import Radiographs

FINDINGS = ("Effusion", "Mass", "Hernia")
N = 60
LABELS = np.random.default_rng(3).choice([0.0, 1.0, np.nan], (N, 3)).astype(np.float32)
FILMS = np.random.default_rng(4).integers(1, 255, (N, 40, 50)).astype(np.uint8)
TRAINING = np.arange(5, 45)
CONTRACT = InputContract(size=40, crop=0.8)


def radiographs():
    return Radiographs(
        name="made up",
        findings=FINDINGS,
        image_ids=tuple(f"film-{i}" for i in range(N)),
        patient_ids=tuple(f"patient-{i // 2}" for i in range(N)),
        labels=LABELS,
        splits=(None,) * N,
        views=(None,) * N,
        images=ArrayImages(FILMS),
    )


def attack(rate=0.2, protocol="replace", kind="set", **trigger):
    return AttackSettings(
        trigger=PatchTrigger(**({"place": "random", "size_px": 4} | trigger)),
        label=LabelEdit(kind=kind, target="Mass"),
        protocol=protocol,
        poison_rate=rate,
    )


def same(a, b):
    return np.array_equal(a.rows, b.rows) and np.array_equal(a.anchors, b.anchors)


@pytest.mark.parametrize("protocol", ["add", "replace"])
def test_the_seed_and_nothing_else_decides(protocol):
    draws = [draw_ledger(radiographs(), TRAINING, attack(protocol=protocol), s) for s in (7, 7, 8)]
    assert same(draws[0], draws[1])
    assert not np.array_equal(draws[0].rows, draws[2].rows)
    assert not np.array_equal(draws[0].anchors, draws[2].anchors)


@pytest.mark.parametrize("seed", range(5))
def test_victims_are_training_rows_once_each_in_order(seed):
    ledger = draw_ledger(radiographs(), TRAINING, attack(), seed)
    assert len(ledger) == len(set(ledger.rows.tolist())) == 8
    assert set(ledger.rows) <= set(TRAINING)
    assert ledger.rows.tolist() == sorted(ledger.rows)
    assert ledger.anchors.shape == (8, 2)
    assert ((ledger.anchors >= 0) & (ledger.anchors < 1)).all()


def test_no_row_is_favoured():
    hits = np.zeros(N)
    for seed in range(300):
        hits[draw_ledger(radiographs(), TRAINING, attack(), seed).rows] += 1
    assert hits[:5].sum() == hits[45:].sum() == 0
    assert hits[5:45].min() > 30  # 60 expected, deviation 7
    assert hits[5:45].max() < 90


@given(n=st.integers(1, 5000), rate=st.floats(0, 1), protocol=st.sampled_from(["add", "replace"]))
@hypothesis_settings(max_examples=200, deadline=None)
def test_the_rate_holds_after_poisoning(n, rate, protocol):
    settings = attack(rate, protocol)
    try:
        count = n_poisoned(n, settings)
    except ConfigError:
        assert protocol == "add"
        assert rate > 0.5
        return
    total = n + count if protocol == "add" else n
    assert 0 <= count <= n
    # Half an image either way; with "add" it counts in the whole, too.
    assert abs(count / total - rate) <= 0.5 / total + 1e-12


@pytest.mark.parametrize(
    ("rate", "protocol", "said"),
    [(1, "add", "below 1 with protocol = 'add'"), (0.6, "add", r"at most 0.5 .* got 0.6")],
)
def test_a_rate_that_copies_cannot_reach_is_refused(rate, protocol, said):
    with pytest.raises(ConfigError, match=said):
        draw_ledger(radiographs(), TRAINING, attack(rate, protocol), 0)


@pytest.mark.parametrize("rate", [5, -0.1, 1.01, float("nan")])
def test_a_rate_that_is_no_fraction_is_refused(rate):
    with pytest.raises(ValidationError, match="poison_rate"):
        attack(rate)


@pytest.mark.parametrize(("rate", "protocol", "count"), [(1, "replace", 40), (0.5, "add", 40)])
def test_every_row_may_be_poisoned(rate, protocol, count):
    ledger = draw_ledger(radiographs(), TRAINING, attack(rate, protocol), 0)
    assert ledger.rows.tolist() == TRAINING.tolist()
    assert len(ledger) == count


def test_an_unknown_target_names_the_findings():
    settings = attack().model_copy(update={"label": LabelEdit(target="Masses")})
    with pytest.raises(ConfigError, match=r"Effusion, Mass, Hernia.* got 'Masses'"):
        draw_ledger(radiographs(), TRAINING, settings, 0)


def test_the_settings_survive_json():
    settings = attack(0.25, "add", "clear", place=(3, 4))
    assert AttackSettings.model_validate_json(settings.model_dump_json()) == settings


def test_the_table_has_a_row_a_poisoned_image():
    ledger = draw_ledger(radiographs(), TRAINING, attack(kind="clear"), 0)
    table = ledger.table(radiographs())
    assert table.columns == ["image", "patient", "anchor_x", "anchor_y", "old_label", "new_label"]
    for row, (x, y), line in zip(ledger.rows, ledger.anchors, table.rows(), strict=True):
        image, patient, anchor_x, anchor_y, old, new = line
        assert (image, patient) == (f"film-{row}", f"patient-{row // 2}")
        assert (anchor_x, anchor_y) == (x, y)
        np.testing.assert_equal(np.float32(old), LABELS[row, 1])
        assert new == 0.0


# --- label edits ----------------------------------------------------------------------------------


def edited_by_a_loop(labels, kind, target):
    out = []
    for vector in labels.tolist():
        if kind == "set":
            vector[target] = 1.0
        elif kind == "clear":
            vector[target] = 0.0
        else:
            vector = [1.0 if k == target else 0.0 for k in range(len(vector))]
        out.append(vector)
    return np.array(out, np.float32)


@pytest.mark.parametrize(
    ("kind", "direction"), [("set", "set"), ("clear", "clear"), ("replace", "set")]
)
@pytest.mark.parametrize("target", FINDINGS)
def test_edits_equal_a_loop_and_leave_the_original(kind, direction, target):
    edit, before = LabelEdit(kind=kind, target=target), LABELS.copy()
    edited = edit.apply(LABELS, FINDINGS)
    np.testing.assert_array_equal(edited, edited_by_a_loop(LABELS, kind, FINDINGS.index(target)))
    np.testing.assert_array_equal(LABELS, before)
    assert edited.dtype == np.float32
    assert edit.direction == direction
    assert target in edit.describe()


def test_an_unknown_edit_is_refused():
    with pytest.raises(ValidationError, match="kind"):
        LabelEdit(kind="swap", target="Mass")


# --- applying the ledger --------------------------------------------------------------------------


def test_stamp_is_the_trigger_then_the_contract_and_only_on_victims():
    ledger = draw_ledger(radiographs(), TRAINING, attack(), 0)
    stamped, clean = stamp(ledger, CONTRACT), plain(CONTRACT)
    anchors = {int(r): tuple(a) for r, a in zip(ledger.rows, ledger.anchors, strict=True)}
    for row in range(N):
        film = FILMS[row]
        if row in anchors:
            box = ledger.settings.trigger.box(CONTRACT.window(film.shape), film.shape, anchors[row])
            assert stamped.place(film.shape, row) == box
            film = ledger.settings.trigger.apply(film, box)
        np.testing.assert_array_equal(stamped(FILMS[row], row), CONTRACT.to_network(film))
        np.testing.assert_array_equal(clean(FILMS[row], row), CONTRACT.to_network(FILMS[row]))


def test_stamp_and_plain_can_be_sent_to_a_worker():
    for transform in (
        stamp(draw_ledger(radiographs(), TRAINING, attack(), 0), CONTRACT),
        plain(CONTRACT),
    ):
        copy = pickle.loads(pickle.dumps(transform))  # noqa: S301 - our own bytes
        row = int(TRAINING[0])
        np.testing.assert_array_equal(copy(FILMS[row], row), transform(FILMS[row], row))


def test_the_test_side_triggers_every_row():
    rows = np.arange(50, 60)
    ledger = trigger_every(rows, attack(), 1)
    assert ledger.rows.tolist() == rows.tolist()
    assert same(ledger, trigger_every(rows, attack(), 1))
    assert not same(ledger, trigger_every(rows, attack(), 2))
    stamped = stamp(ledger, CONTRACT)
    assert all((stamped(FILMS[r], r) != CONTRACT.to_network(FILMS[r])).any() for r in rows)
