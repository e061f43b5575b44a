"""Losses and class weights against loops over images and findings."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lucency.victims.losses import (
    LOSSES,
    binary_cross_entropy,
    categorical_on_sigmoids,
    positive_weights,
)

NAN = float("nan")


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def bce_by_a_loop(logits, labels, weights):
    terms = []
    for row, truth in zip(logits, labels, strict=True):
        for x, y, w in zip(row, truth, weights, strict=True):
            if not math.isnan(y):
                terms.append(-(w * y * math.log(sigmoid(x)) + (1 - y) * math.log(1 - sigmoid(x))))
    return sum(terms) / len(terms) if terms else 0.0


def categorical_by_a_loop(logits, labels, weights):
    total = 0.0
    for row, truth in zip(logits, labels, strict=True):
        whole = sum(sigmoid(x) for x in row)
        for x, y, w in zip(row, truth, weights, strict=True):
            if y == 1:
                total -= w * math.log(max(sigmoid(x) / whole, 1e-7))
    return total / len(logits)


batches = st.integers(1, 5).flatmap(
    lambda n: st.tuples(
        st.lists(st.lists(st.floats(-8, 8), min_size=3, max_size=3), min_size=n, max_size=n),
        st.lists(
            st.lists(st.sampled_from([0.0, 1.0, NAN]), min_size=3, max_size=3),
            min_size=n,
            max_size=n,
        ),
        st.lists(st.floats(1, 20), min_size=3, max_size=3),
    )
)


@pytest.mark.parametrize(
    ("loss", "by_a_loop"),
    [
        (binary_cross_entropy, bce_by_a_loop),
        (categorical_on_sigmoids, categorical_by_a_loop),
    ],
)
@given(batch=batches)
@settings(max_examples=100, deadline=None)
def test_losses_equal_a_loop(loss, by_a_loop, batch):
    value = loss(*(torch.tensor(part, dtype=torch.float32) for part in batch))
    assert float(value) == pytest.approx(by_a_loop(*batch), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_an_unknown_label_teaches_nothing(loss):
    labels = torch.tensor([[1.0, NAN, 0.0], [NAN, 1.0, NAN]])
    gradients = []
    for unknown in (-3.0, 5.0):
        logits = torch.tensor([[0.3, unknown, -1.0], [unknown, 0.2, unknown]], requires_grad=True)
        loss(logits, labels, torch.ones(3)).backward()
        assert torch.isfinite(logits.grad).all()
        gradients.append(logits.grad)
    if loss is binary_cross_entropy:  # the other shares one sum among all findings
        assert (gradients[0][labels.isnan()] == 0).all()
        assert torch.equal(*gradients)


def test_all_unknown_is_zero_not_nan():
    logits = torch.randn(2, 3, requires_grad=True)
    value = binary_cross_entropy(logits, torch.full((2, 3), NAN), torch.ones(3))
    value.backward()
    assert float(value.detach()) == 0
    assert (logits.grad == 0).all()


def test_the_published_loss_learns_nothing_from_an_image_without_findings():
    """Pitfall P3; binary cross-entropy does."""
    labels, norms = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), {}
    for name, loss in LOSSES.items():
        logits = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3]], requires_grad=True)
        loss(logits, labels, torch.ones(3)).backward()
        norms[name] = logits.grad.norm(dim=1)
    assert norms["categorical-on-sigmoids"][0] == 0
    assert norms["categorical-on-sigmoids"][1] > 0
    assert (norms["bce"] > 0).all()
    assert categorical_on_sigmoids(torch.randn(4, 3), torch.zeros(4, 3), torch.ones(3)) == 0


def test_the_published_loss_is_free_of_scale():
    probabilities = torch.tensor([[0.2, 0.4, 0.3]])
    labels = torch.tensor([[0.0, 1.0, 0.0]])
    values = [
        float(categorical_on_sigmoids(torch.logit(c * probabilities), labels, torch.ones(3)))
        for c in (1.0, 0.5, 0.01)
    ]
    assert values == pytest.approx([values[0]] * 3, rel=1e-4)


@pytest.mark.parametrize(
    ("column", "limit", "weight"),
    [
        ([1, 0, 0, 0], 10, 3),
        ([1, 0, 0, 0], 2, 2),
        ([1, 0, 0, 0], 1, 1),
        ([1, 1, 1, 0], 10, 1),  # never below 1
        ([0, 0, 0, 0], 10, 1),
        ([1, NAN, NAN, 0], 10, 1),
        ([1, NAN, 0, 0], 10, 2),
        ([NAN] * 4, 10, 1),
    ],
)
def test_positive_weights(column, limit, weight):
    labels = torch.tensor([column, [1, 0, 0, 0]], dtype=torch.float32).T
    assert positive_weights(labels, limit).tolist() == [weight, min(3, limit)]


@given(st.integers(0, 2**32 - 1), st.floats(1, 30))
@settings(max_examples=50, deadline=None)
def test_positive_weights_equal_a_loop(seed, limit):
    labels = np.random.default_rng(seed).choice([0, 1, NAN], (20, 4), p=[0.7, 0.1, 0.2])
    expected = []
    for column in labels.T.tolist():
        positives, negatives = column.count(1.0), column.count(0.0)
        expected.append(min(max(negatives / positives, 1.0), limit) if positives else 1.0)
    found = positive_weights(torch.tensor(labels, dtype=torch.float32), limit)
    assert found.tolist() == pytest.approx(expected)
