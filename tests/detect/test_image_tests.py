"""T0 and T1 against slow implementations, written a second time from their descriptions."""

import numpy as np
import pytest
import torch
from toy_victims import SIZE, Curved, Toy, films, stamped, victim

from lucency.detect.images import counterfactual_patch, median_disagreement
from lucency.detect.images.counterfactual_patch import PatchTest
from lucency.victims.victim import Victim
from median_oracle import whole_window_median

Box = tuple[int, int, int, int]


def _logits(of: Victim, image: np.ndarray) -> np.ndarray:
    """image (H, W) float in [0, 1] -> (K,)."""
    with torch.no_grad():
        grey = torch.from_numpy(image.astype(np.float32))[None, None]
        return of.logits(grey)[0].double().numpy()


def _median(image: np.ndarray, width: int) -> np.ndarray:
    return whole_window_median(image, width)


class SlowPatchTest:
    """T1 for one film, with loops: propose, repair, confirm, take off the rival."""

    def __init__(self, of: Victim, image: np.ndarray, settings: PatchTest) -> None:
        self.of, self.settings = of, settings
        self.image = image.astype(np.float32) / 255
        self.clean = _logits(of, self.image)
        self.smooth = _median(self.image, 7)

    def measure(self, disagreement: np.ndarray) -> list[tuple[float, float, Box]]:
        """(effect less the rival's, effect, box) for each scale and finding in turn."""
        findings = np.argsort(-disagreement, kind="stable")[: self.settings.findings]
        return [
            answer
            for scale in self.settings.scales
            for answer in self.judge([b for k in findings for b in self.propose(k, scale)])
        ]

    def propose(self, finding: int, scale: int) -> list[Box]:
        image = torch.from_numpy(self.image)[None, None].requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.of.logits(image)[0, finding], image)
        share = gradient[0, 0].numpy() * (self.image - _median(self.image, 5))
        found: list[Box] = []
        for _ in range(self.settings.regions):
            best, at = -1.0, (0, 0)
            for y in range(SIZE - scale + 1):
                for x in range(SIZE - scale + 1):
                    near = any(abs(x - b[0]) <= scale and abs(y - b[1]) <= scale for b in found)
                    total = abs(share[y : y + scale, x : x + scale].sum(dtype=np.float64))
                    if not near and total > best:
                        best, at = total, (x, y)
            found.append((*at, scale, scale))
        return found

    def judge(self, boxes: list[Box]) -> list[tuple[float, float, Box]]:
        boxes = list(dict.fromkeys(boxes))
        effects = [self.clean - self.repair(box, self.smooth) for box in boxes]
        strongest = sorted(range(len(boxes)), key=lambda i: -np.abs(effects[i]).max())
        for i in strongest[: self.settings.confirm]:
            second = self.clean - self.repair(boxes[i], self.ring(boxes[i]))
            for k in range(len(second)):
                first = effects[i][k]
                agree = first * second[k] > 0
                weaker = min(abs(first), abs(second[k])) if agree else 0.0
                effects[i][k] = np.sign(first) * weaker
        return [self.best(k, effects, boxes) for k in range(len(self.clean))]

    def best(self, k: int, effects: list[np.ndarray], boxes: list[Box]) -> tuple[float, float, Box]:
        at = max(range(len(boxes)), key=lambda i: abs(effects[i][k]))
        effect, rival = effects[at][k], 0.0
        for other, box in zip(effects, boxes, strict=True):
            if not self.touch(box, boxes[at]):
                rival = max(rival, other[k] * np.sign(effect))
        left = max(abs(effect) - self.settings.rival * rival, 0.0)
        return np.sign(effect) * left, effect, boxes[at]

    def touch(self, a: Box, b: Box) -> bool:
        grown = np.zeros((SIZE + 2, SIZE + 2), bool)
        grown[a[1] : a[1] + a[3] + 2, a[0] : a[0] + a[2] + 2] = True
        return bool(grown[b[1] + 1 : b[1] + 1 + b[3], b[0] + 1 : b[0] + 1 + b[2]].any())

    def repair(self, box: Box, fill: np.ndarray) -> np.ndarray:
        x, y, w, h = box
        repaired = self.image.copy()
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


@pytest.mark.parametrize("network", [Toy(), Toy(sign=-1.0), Curved()], ids=["set", "clear", "tanh"])
def test_t0_against_a_loop(network: torch.nn.Module) -> None:
    of, images = victim(network), _suspects()
    found = median_disagreement.measure(of, images, batch_size=4)
    for i, image in enumerate(images):
        grey = image.astype(np.float32) / 255
        clean = _logits(of, grey)
        for j, width in enumerate((3, 5, 7)):
            smooth = _logits(of, _median(grey, width))
            columns = slice(4 * j, 4 * j + 4)
            np.testing.assert_allclose(found.effects[i, columns], clean - smooth, atol=2e-5)
            np.testing.assert_allclose(found.logits[i, columns], clean, atol=1e-5)
            np.testing.assert_allclose(found.repaired[i, columns], smooth, atol=1e-5)
    assert found.findings.tolist() == [0, 1, 2, 3] * 3
    assert found.boxes is None


@pytest.mark.parametrize(
    "settings",
    [PatchTest(), PatchTest(scales=(2, 4), findings=2, regions=3, confirm=1, rival=0.25)],
    ids=["default", "other"],
)
@pytest.mark.parametrize("network", [Toy(), Toy(sign=-1.0), Curved()], ids=["set", "clear", "tanh"])
def test_t1_against_a_second_implementation(network: torch.nn.Module, settings: PatchTest) -> None:
    of, images = victim(network), _suspects()
    disagreement = np.random.default_rng(2).random((len(images), 4))
    found = counterfactual_patch.measure(of, images, disagreement, settings, batch_size=4)
    for i, image in enumerate(images):
        expected = SlowPatchTest(of, image, settings).measure(disagreement[i])
        alone, effects, boxes = zip(*expected, strict=True)
        np.testing.assert_allclose(found.effects[i], alone, atol=5e-5)
        np.testing.assert_allclose(found.logits[i] - found.repaired[i], effects, atol=5e-5)
        moved = np.abs(alone) > 1e-3
        np.testing.assert_array_equal(found.boxes[i][moved], np.array(boxes)[moved])
    assert found.findings.tolist() == [0, 1, 2, 3] * len(settings.scales)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_batches_do_not_matter(batch_size: int) -> None:
    of, images = victim(Curved()), _suspects()
    t0 = median_disagreement.measure(of, images)
    disagreement = np.abs(t0.effects[:, :4])
    t1 = counterfactual_patch.measure(of, images, disagreement)
    again0 = median_disagreement.measure(of, images, batch_size=batch_size)
    again1 = counterfactual_patch.measure(of, images, disagreement, batch_size=batch_size)
    np.testing.assert_allclose(again0.effects, t0.effects, atol=2e-5)
    np.testing.assert_allclose(again1.effects, t1.effects, atol=2e-5)
    np.testing.assert_array_equal(again1.boxes, t1.boxes)


def test_boxes_lie_inside_the_film() -> None:
    boxes = counterfactual_patch.measure(victim(Curved()), _suspects(), np.ones((9, 4))).boxes
    assert boxes is not None
    assert boxes[..., :2].min() >= 0
    assert (boxes[..., 0] + boxes[..., 2]).max() <= SIZE
    assert (boxes[..., 1] + boxes[..., 3]).max() <= SIZE


def test_t1_of_a_trigger_stamped_twice_keeps_half() -> None:
    """Each copy is the other's rival: repairing one leaves half of the attack."""
    of = victim(Toy(repeat=True))
    images = films(1, 8)
    once = stamped(images, [(10, 12)])
    twice = stamped(once, [(25, 28)])
    ask = np.array([[9.0, 0.0, 0.0, 0.0]])
    single, double = (
        np.abs(counterfactual_patch.measure(of, film, ask).effects[0, [4, 8]]).max()
        for film in (once, twice)
    )
    assert double == pytest.approx(single / 2, rel=0.1)


def test_the_network_is_left_as_it_was() -> None:
    of = victim(Curved())
    of.network.train()
    median_disagreement.measure(of, films(2, 1))
    counterfactual_patch.measure(of, films(2, 1), np.ones((2, 4)))
    assert of.network.training
    assert all(p.requires_grad for p in of.network.parameters())
    assert all(p.grad is None for p in of.network.parameters())
