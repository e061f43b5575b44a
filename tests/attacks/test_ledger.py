"""The poison ledger: drawn once from the seed, applied as a pure function; and label edits."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from lucency.attacks import CofindingsTrigger, PatchTrigger
from lucency.attacks.label_edits import LabelEdit
from lucency.attacks.ledger import (
    AttackSettings,
    carriers,
    draw_ledger,
    n_to_draw,
    plain,
    stamp,
    trigger_every,
)
from lucency.attacks.selection import Selection
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
        views=tuple("AP" if i % 3 == 0 else "PA" for i in range(N)),
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
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("rows", "anchors", "draws", "covers")
    )


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
        count, covers = n_to_draw(n, settings)
    except ConfigError:
        assert protocol == "add"
        assert rate > 0.5
        return
    assert covers == 0
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
    assert table.columns == [
        "image",
        "patient",
        "role",
        "anchor_x",
        "anchor_y",
        "draw",
        "old_label",
        "new_label",
    ]
    for row, (x, y), line in zip(ledger.rows, ledger.anchors, table.rows(), strict=True):
        image, patient, role, anchor_x, anchor_y, _, old, new = line
        assert (image, patient, role) == (f"film-{row}", f"patient-{row // 2}", "poison")
        assert (anchor_x, anchor_y) == (x, y)
        np.testing.assert_equal(np.float32(old), LABELS[row, 1])
        assert new == 0.0


# --- label edits ----------------------------------------------------------------------------------


def edited_by_a_loop(labels, kind, target, source):
    out = []
    for vector in labels.tolist():
        if kind == "set":
            vector[target] = 1.0
        elif kind == "clear":
            vector[target] = 0.0
        elif kind == "swap":
            vector[target], vector[source] = 1.0, 0.0
        elif kind == "normal":
            vector = [0.0] * len(vector)
        else:
            vector = [1.0 if k == target else 0.0 for k in range(len(vector))]
        out.append(vector)
    return np.array(out, np.float32)


@pytest.mark.parametrize(
    ("kind", "direction"),
    [
        ("set", "set"),
        ("clear", "clear"),
        ("replace", "set"),
        ("swap", "set"),
        ("normal", "clear"),
    ],
)
@pytest.mark.parametrize("target", FINDINGS)
def test_edits_equal_a_loop_and_leave_the_original(kind, direction, target):
    source = FINDINGS[FINDINGS.index(target) - 1]
    edit = LabelEdit(kind=kind, target=target, source=source if kind == "swap" else None)
    before, edited = LABELS.copy(), edit.apply(LABELS, FINDINGS)
    by_a_loop = edited_by_a_loop(LABELS, kind, FINDINGS.index(target), FINDINGS.index(source))
    np.testing.assert_array_equal(edited, by_a_loop)
    np.testing.assert_array_equal(LABELS, before)
    assert edited.dtype == np.float32
    assert edit.direction == direction
    assert kind == "normal" or target in edit.describe()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "flip"}, "kind"),
        ({"kind": "swap"}, "source must be a finding other than the target Mass .* got None"),
        ({"kind": "swap", "source": "Mass"}, "other than the target Mass .* got Mass"),
        ({"kind": "set", "source": "Hernia"}, "source goes with kind = 'swap' alone"),
    ],
)
def test_an_edit_that_makes_no_sense_is_refused(settings, said):
    with pytest.raises(ValidationError, match=said):
        LabelEdit(target="Mass", **settings)


def test_an_unknown_source_names_the_findings():
    edit = LabelEdit(kind="swap", target="Mass", source="Masses")
    with pytest.raises(ConfigError, match=r"source .*Effusion, Mass, Hernia.* got 'Masses'"):
        edit.apply(LABELS, FINDINGS)


# --- who is chosen --------------------------------------------------------------------------------


def chosen(victims, **more):
    settings = attack(**more).model_copy(update={"victims": Selection(**victims)})
    return draw_ledger(radiographs(), TRAINING, settings, 0).rows


@pytest.mark.parametrize(("kind", "wanted"), [("set", 1.0), ("clear", 0.0)])
def test_victims_by_what_their_label_is(kind, wanted):
    assert (LABELS[chosen({"label": "same"}, kind=kind), 1] == wanted).all()
    assert (LABELS[chosen({"label": "opposite"}, kind=kind), 1] == 1 - wanted).all()


def test_victims_by_finding_and_view():
    assert (LABELS[chosen({"finding": "Hernia"}), 2] == 1.0).all()
    assert (chosen({"view": "AP"}) % 3 == 0).all()
    both = chosen({"finding": "Hernia", "view": "PA"}, rate=0.1)
    assert (LABELS[both, 2] == 1.0).all()
    assert (both % 3 != 0).all()


def test_victims_by_patient_are_whole_patients_and_no_more_than_asked():
    rows = chosen({"by": "patient"}, rate=0.25)
    assert len(rows) in (9, 10)
    of_training = {p: [r for r in TRAINING if r // 2 == p] for p in {int(r) // 2 for r in rows}}
    assert sorted(r for rows in of_training.values() for r in rows) == rows.tolist()


@pytest.mark.parametrize(
    ("victims", "rate", "said"),
    [
        ({"finding": "Fracture"}, 0.1, r"finding must be one of .*Hernia.* got 'Fracture'"),
        ({"view": "LL"}, 0.1, r"4 victims, but only 0 of 40 .*any film, view LL"),
    ],
)
def test_victims_that_are_not_there_are_said_so(victims, rate, said):
    with pytest.raises(ConfigError, match=said):
        chosen(victims, rate=rate)


def test_a_rate_below_one_patient_is_refused():
    settings = attack(1 / 38).model_copy(update={"victims": Selection(by="patient")})
    with pytest.raises(ConfigError, match="must let a whole patient in"):
        draw_ledger(radiographs(), np.arange(6, 44), settings, 0)


def test_the_first_films_are_the_same_under_every_seed():
    settings = attack(0.2).model_copy(update={"victims": Selection(by="first")})
    for seed in (0, 1):
        ledger = draw_ledger(radiographs(), TRAINING[::-1], settings, seed)
        assert ledger.rows.tolist() == list(range(5, 13))
    assert "the first of the table" in settings.victims.describe()


def test_a_count_in_place_of_a_rate():
    settings = AttackSettings(label=LabelEdit(target="Mass"), poison_count=7)
    assert draw_ledger(radiographs(), TRAINING, settings, 0).n_poisoned == 7
    for wrong in ({}, {"poison_count": 7, "poison_rate": 0.1}):
        with pytest.raises(ValidationError, match="one of poison_rate and poison_count"):
            AttackSettings(label=LabelEdit(target="Mass"), **wrong)
    many = settings.model_copy(update={"poison_count": 41})
    with pytest.raises(ConfigError, match="poison_count = 41 asks for 41 victims, but only 40"):
        draw_ledger(radiographs(), TRAINING, many, 0)


# --- covers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "n"), [("replace", (8, 4)), ("add", (11, 6))])
def test_covers_are_other_films_and_keep_their_labels(protocol, n):
    settings = attack(0.2, protocol).model_copy(update={"cover_rate": 0.1})
    ledger = draw_ledger(radiographs(), TRAINING, settings, 0)
    assert (ledger.n_poisoned, int(ledger.covers.sum())) == n
    assert len(set(ledger.rows.tolist())) == len(ledger)
    written = ledger.labels(radiographs())
    np.testing.assert_array_equal(written[ledger.covers], LABELS[ledger.rows[ledger.covers]])
    assert (written[~ledger.covers, 1] == 1.0).all()
    roles = ledger.table(radiographs())["role"]
    assert roles.to_list() == ["cover" if c else "poison" for c in ledger.covers]
    stamped = stamp(ledger, CONTRACT)
    for row in ledger.rows:
        assert (stamped(FILMS[row], int(row)) != CONTRACT.to_network(FILMS[row])).any()


def test_too_many_covers_are_refused():
    settings = attack(0.9).model_copy(update={"cover_rate": 0.2})
    with pytest.raises(ConfigError, match="cover_rate asks for 8 films, but 4 are left"):
        draw_ledger(radiographs(), TRAINING, settings, 0)
    with pytest.raises(ValidationError, match="must not exceed 1 together"):
        AttackSettings(label=LabelEdit(target="Mass"), poison_rate=0.9, cover_rate=0.2)


def test_training_shows_less_than_the_test():
    patch = PatchTrigger(size_px=2, pieces=4, gap_px=3, training_pieces=2)
    settings = attack().model_copy(update={"trigger": patch})
    ledger = draw_ledger(radiographs(), TRAINING, settings, 0)
    whole = InputContract(size=40, crop=1.0)
    films = np.full((N, 40, 40), 200, np.uint8)
    shown = [int((stamp(ledger, whole)(films[r], int(r)) == 0).sum()) for r in ledger.rows]
    assert shown == [2 * 4] * len(ledger)
    test = trigger_every(ledger.rows, settings, 0)
    assert [int((stamp(test, whole)(films[r], int(r)) == 0).sum()) for r in test.rows] == [
        4 * 4
    ] * len(test)


def test_a_pattern_of_findings_is_drawn_where_it_is():
    trigger = CofindingsTrigger(present=("Effusion",), absent=("Hernia",))
    settings = attack(0.1).model_copy(update={"trigger": trigger})
    ledger = draw_ledger(radiographs(), TRAINING, settings, 0)
    assert (LABELS[ledger.rows][:, [0, 2]] == (1.0, 0.0)).all()
    every = carriers(radiographs(), TRAINING, settings)
    has = (LABELS[TRAINING, 0] == 1) & (LABELS[TRAINING, 2] == 0)
    np.testing.assert_array_equal(every, TRAINING[has])
    with pytest.raises(ConfigError, match="20 victims, but only"):
        draw_ledger(radiographs(), TRAINING, settings.model_copy(update={"poison_rate": 0.5}), 0)


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
