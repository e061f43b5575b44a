"""T0 and T1 against slow implementations, written a second time from their descriptions."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lucency.detect.images.calibrate import Scale
from lucency.detect.images.counterfactual_patch import PatchTest
from lucency.detect.images.evidence import Evidence
from lucency.detect.images.median_disagreement import WIDTHS
from lucency.detect.images.regions import smooth
from lucency.detect.images.stages import Usual, disagreement_of, examine, look
from lucency.detect.images.whitening import Whitening
from lucency.victims.victim import Victim
from median_oracle import whole_window_median
from toy_victims import SIZE, Curved, Toy, films, stamped, victim

Box = tuple[int, int, int, int]


def _logits(of: Victim, image: np.ndarray) -> np.ndarray:
    """image (H, W) float in [0, 1] -> (K,)."""
    with torch.no_grad():
        grey = torch.from_numpy(image.astype(np.float32))[None, None]
        return of.logits(grey)[0].double().numpy()


def _median(image: np.ndarray, width: int) -> np.ndarray:
    return whole_window_median(image, width)


def _smooth(image: np.ndarray, scale: int) -> np.ndarray:
    """Without structures of `scale` pixels: a median, of the film at half size if it must be."""
    if scale <= 3:
        return _median(image, 5)
    if scale == 4:
        return _median(image, 7)
    n = len(image)
    half = np.array(
        [
            [image[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean() for x in range(n // 2)]
            for y in range(n // 2)
        ],
        np.float32,
    )
    small = _smooth(half, (scale + 1) // 2)
    # Bilinear, pixels as areas: output i lies at (i + 1/2) / 2 - 1/2 of the small film.
    at = np.clip((np.arange(n) + 0.5) / 2 - 0.5, 0, n // 2 - 1)
    rows = np.array([np.interp(at, np.arange(n // 2), row) for row in small])
    return np.array([np.interp(at, np.arange(n // 2), c) for c in rows.T], np.float32).T


class SlowPatchTest:
    """T1 for one film, with loops: propose, repair, confirm, take off the rival."""

    def __init__(self, of: Victim, image: np.ndarray, settings: PatchTest) -> None:
        self.of, self.settings = of, settings
        self.image = image.astype(np.float32) / 255
        self.clean = _logits(of, self.image)

    def examine(self, findings: np.ndarray) -> list[tuple[float, float, Box]]:
        """(effect less the rival's, effect, box) for each scale and finding in turn."""
        return [
            answer
            for scale in self.settings.scales
            for answer in self.judge(
                [b for k in findings for b in self.propose(self.gradient(k), scale)]
                + self.propose(self.gradient(findings[0], share=0.7), scale)
                + self.propose(np.ones((SIZE, SIZE)), scale),
                scale,
            )
        ]

    def gradient(self, finding: int, *, share: float = 1.0) -> np.ndarray:
        at = share * self.image + (1 - share) * _smooth(self.image, 5)
        image = torch.from_numpy(at)[None, None].requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.of.logits(image)[0, finding], image)
        return gradient[0, 0].numpy()

    def propose(self, gradient: np.ndarray, scale: int, count: int | None = None) -> list[Box]:
        share = gradient * (self.image - _smooth(self.image, scale))
        found: list[Box] = []
        for _ in range(count or self.settings.regions):
            best, at = -1.0, (0, 0)
            for y in range(SIZE - scale + 1):
                for x in range(SIZE - scale + 1):
                    near = any(abs(x - b[0]) <= scale and abs(y - b[1]) <= scale for b in found)
                    total = abs(share[y : y + scale, x : x + scale].sum(dtype=np.float64))
                    if not near and total > best:
                        best, at = total, (x, y)
            found.append((*at, scale, scale))
        return found

    def judge(self, boxes: list[Box], scale: int) -> list[tuple[float, float, Box]]:
        boxes = list(dict.fromkeys(boxes))
        fill = _smooth(self.image, scale)
        effects = [self.clean - self.repair([box], fill) for box in boxes]
        strongest = sorted(range(len(boxes)), key=lambda i: -np.abs(effects[i]).max())
        for i in strongest[: self.settings.confirm]:
            second = self.clean - self.repair([boxes[i]], self.ring(boxes[i]))
            for k in range(len(second)):
                first = effects[i][k]
                agree = first * second[k] > 0
                weaker = min(abs(first), abs(second[k])) if agree else 0.0
                effects[i][k] = np.sign(first) * weaker
        together = self.pair(effects, boxes, fill) if self.settings.pairs else self.clean * 0
        return [self.best(k, effects, boxes, together[k]) for k in range(len(self.clean))]

    def pair(self, effects: list[np.ndarray], boxes: list[Box], fill: np.ndarray) -> np.ndarray:
        order = sorted(range(len(boxes)), key=lambda i: -np.abs(effects[i]).max())
        first = boxes[order[0]]
        apart = [boxes[i] for i in order if not self.touch(boxes[i], first)]
        return self.clean - self.repair([first, *apart[:1]], fill)

    def best(
        self, k: int, effects: list[np.ndarray], boxes: list[Box], together: float
    ) -> tuple[float, float, Box]:
        at = max(range(len(boxes)), key=lambda i: abs(effects[i][k]))
        effect, rival = effects[at][k], 0.0
        for other, box in zip(effects, boxes, strict=True):
            if not self.touch(box, boxes[at]):
                rival = max(rival, other[k] * np.sign(effect))
        if together * effect > 0 and abs(together) > abs(effect):
            effect = together
        left = max(abs(effect) - self.settings.rival * rival, 0.0)
        return np.sign(effect) * left, effect, boxes[at]

    def touch(self, a: Box, b: Box) -> bool:
        grown = np.zeros((SIZE + 2, SIZE + 2), bool)
        grown[a[1] : a[1] + a[3] + 2, a[0] : a[0] + a[2] + 2] = True
        return bool(grown[b[1] + 1 : b[1] + 1 + b[3], b[0] + 1 : b[0] + 1 + b[2]].any())

    def repair(self, boxes: list[Box], fill: np.ndarray) -> np.ndarray:
        repaired = self.image.copy()
        for x, y, w, h in boxes:
            repaired[y : y + h, x : x + w] = fill[y : y + h, x : x + w]
        return _logits(self.of, repaired)

    def ring(self, box: Box) -> np.ndarray:
        x, y, w, h = box
        around = np.zeros((SIZE, SIZE), bool)
        around[max(y - 2, 0) : y + h + 2, max(x - 2, 0) : x + w + 2] = True
        around[y : y + h, x : x + w] = False
        return np.full((SIZE, SIZE), self.image[around].mean(), np.float32)


def _suspects() -> np.ndarray:
    images = films(6, 0x51)
    return np.concatenate([images, stamped(images[:3], [(12, 9), (30, 21), (0, 38)])])


def _grey(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.astype(np.float32) / 255)[:, None]


def _usual(columns: int = 4 * len(WIDTHS)) -> Usual:
    alone = Whitening(np.zeros(4), np.ones(4), None, np.zeros(4), np.eye(4))
    scale = Scale(np.zeros(columns), np.ones(columns), np.ones(columns))
    return Usual(scale, alone, np.ones(4))


def _t0(of: Victim, images: np.ndarray) -> Evidence:
    return disagreement_of(of, images)


def _examined(of: Victim, images: np.ndarray, settings: PatchTest, ask: np.ndarray) -> Evidence:
    """T1 where the median is told to have moved the findings by `ask` (N, K)."""
    seen = look(of, images, _usual(), settings)
    told = replace(seen.disagreement, effects=np.tile(ask, len(WIDTHS)))
    return examine(of, images, replace(seen, disagreement=told), _usual(), settings)


def _in_turn(by_logit: np.ndarray, by_median: np.ndarray) -> list[int]:
    """Every finding once: the leader of one list, the leader of the other, and so on."""
    order: list[int] = []
    for first, second in zip(np.argsort(-by_logit), np.argsort(-by_median), strict=True):
        order += [int(k) for k in (first, second) if k not in order]
    return list(dict.fromkeys(order))


@pytest.mark.parametrize("network", [Toy(), Toy(sign=-1.0), Curved()], ids=["set", "clear", "tanh"])
def test_t0_against_a_loop(network: torch.nn.Module) -> None:
    of, images = victim(network), _suspects()
    found = _t0(of, images)
    for i, image in enumerate(images):
        grey = image.astype(np.float32) / 255
        clean = _logits(of, grey)
        for j, width in enumerate((3, 7)):
            smooth = _logits(of, _median(grey, width))
            columns = slice(4 * j, 4 * j + 4)
            np.testing.assert_allclose(found.effects[i, columns], clean - smooth, atol=2e-5)
            np.testing.assert_allclose(found.logits[i, columns], clean, atol=1e-5)
            np.testing.assert_allclose(found.repaired[i, columns], smooth, atol=1e-5)
    assert found.findings.tolist() == [0, 1, 2, 3] * 2
    assert found.boxes is None


@pytest.mark.parametrize("scale", [1, 3, 4, 5, 8, 10])
def test_the_smooth_film_against_a_loop(scale: int) -> None:
    for image in _suspects()[[0, 7]]:
        grey = image.astype(np.float32) / 255
        found = smooth(torch.from_numpy(grey)[None, None], scale)[0, 0].numpy()
        np.testing.assert_allclose(found, _smooth(grey, scale), atol=1e-6)


@pytest.mark.parametrize(("scale", "side"), [(1, 1), (3, 3), (4, 4), (5, 5), (8, 8)])
def test_the_smooth_film_keeps_nothing_of_a_patch(scale: int, side: int) -> None:
    """Wherever it lies: on a flat film, the patch is gone but for a trace at its corners."""
    for x, y in ((17, 20), (8, 3), (0, 0), (SIZE - side, 11)):
        film = torch.full((1, 1, SIZE, SIZE), 0.8)
        film[..., y : y + side, x : x + side] = 0.0
        assert (0.8 - smooth(film, scale)).max() < 0.3


@pytest.mark.parametrize(
    "settings",
    [
        PatchTest(scales=(1, 2, 3), findings=3, confirm=2, pairs=False),
        PatchTest(scales=(2, 3), findings=2, regions=3, confirm=1, rival=0.25),
    ],
    ids=["default", "other"],
)
@pytest.mark.parametrize("network", [Toy(), Toy(sign=-1.0), Curved()], ids=["set", "clear", "tanh"])
def test_t1_against_a_second_implementation(network: torch.nn.Module, settings: PatchTest) -> None:
    of, images = victim(network), _suspects()[4:8]
    ask = np.random.default_rng(2).random((len(images), 4))
    found = _examined(of, images, settings, ask)
    for i, image in enumerate(images):
        slow = SlowPatchTest(of, image, settings)
        expected = slow.examine(_in_turn(np.abs(slow.clean), ask[i])[: settings.findings])
        alone, effects, boxes = zip(*expected, strict=True)
        np.testing.assert_allclose(found.effects[i], alone, atol=5e-5)
        np.testing.assert_allclose(found.logits[i] - found.repaired[i], effects, atol=5e-5)
        moved = np.abs(alone) > 1e-3
        np.testing.assert_array_equal(found.boxes[i][moved], np.array(boxes)[moved])
    assert found.findings.tolist() == [0, 1, 2, 3] * len(settings.scales)


@pytest.mark.parametrize("network", [Toy(), Curved()], ids=["set", "tanh"])
def test_a_glance_against_a_second_implementation(network: torch.nn.Module) -> None:
    """One gradient, of the finding with the most unusual logit."""
    of, images = victim(network), _suspects()[4:8]
    settings = PatchTest(glance=(1, 2, 3))
    seen = look(of, images, _usual(), settings)
    for i, image in enumerate(images):
        slow = SlowPatchTest(of, image, settings)
        gradient = slow.gradient(int(np.abs(slow.clean).argmax()), share=0.7)
        for j, scale in enumerate(settings.glance):
            (box,) = slow.propose(gradient, scale, 1)
            moved = slow.clean - slow.repair([box], _smooth(slow.image, scale))
            columns = slice(4 * j, 4 * j + 4)
            np.testing.assert_allclose(seen.patches.effects[i, columns], moved, atol=5e-5)
            assert tuple(seen.patches.boxes[i, 4 * j]) == box


def test_boxes_lie_inside_the_film() -> None:
    boxes = _examined(victim(Curved()), _suspects(), PatchTest(), np.ones((9, 4))).boxes
    assert boxes is not None
    assert boxes[..., :2].min() >= 0
    assert (boxes[..., 0] + boxes[..., 2]).max() <= SIZE
    assert (boxes[..., 1] + boxes[..., 3]).max() <= SIZE


@pytest.mark.parametrize("repeat", [True, False], ids=["each counts", "one is enough"])
def test_t1_of_a_trigger_stamped_twice_keeps_half(repeat: bool) -> None:
    """Where each copy adds, repairing one leaves half; where one copy is enough, repairing one
    changes nothing, and only the pair shows."""
    of = victim(Toy(repeat=repeat))
    images = films(1, 8)
    once = stamped(images, [(10, 12)])
    twice = stamped(once, [(25, 28)])
    ask = np.array([[9.0, 0.0, 0.0, 0.0]])
    single, double = (
        np.abs(_examined(of, film, PatchTest(scales=(1, 3)), ask).effects[0, [0, 4]]).max()
        for film in (once, twice)
    )
    alone = np.abs(
        _examined(of, twice, PatchTest(scales=(1, 3), pairs=False), ask).effects[0, [0, 4]]
    ).max()
    assert double >= 0.45 * single
    assert alone <= 0.55 * single if repeat else alone <= 0.1 * single


def test_a_victim_without_gradients_is_tested_by_covering() -> None:
    blind = replace(victim(Toy()), differentiable=False)
    images = stamped(films(2, 3), [(10, 12), (25, 28)])
    seen = look(blind, images, _usual(), PatchTest())
    found = examine(blind, images, seen, _usual(), PatchTest())
    at = np.abs(found.effects).argmax(axis=1)
    for i, (x, y) in enumerate([(10, 12), (25, 28)]):
        bx, by, w, h = found.boxes[i, at[i]]
        assert bx <= x + 1 < bx + w
        assert by <= y + 1 < by + h
        assert abs(found.effects[i, at[i]]) > 3
    assert blind.passes.backwards == 0


def test_the_network_is_left_as_it_was() -> None:
    of = victim(Curved())
    of.network.train()
    _examined(of, films(2, 1), PatchTest(), np.ones((2, 4)))
    assert of.network.training
    assert all(p.requires_grad for p in of.network.parameters())
    assert all(p.grad is None for p in of.network.parameters())
