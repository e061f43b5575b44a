"""Occlusion and RISE against Captum, the papers by loops, and networks whose answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from explain_toys import Smooth, Square, make_grey, make_victim, smooth_victim, square_victim
from peer_toolkits import Logits, captum
from torch import Tensor, nn

from lucency.errors import ConfigError
from lucency.explain.dense_occlusion import dense_occlusion
from lucency.explain.median import median_filter
from lucency.explain.occlusion import occlusion
from lucency.explain.rise import draw_masks, masks_of, rise
from lucency.victims.victim import Victim


@pytest.mark.parametrize(("window", "stride"), [(6, 6), (8, 5), (5, 3), (7, 1), (24, 24)])
@pytest.mark.parametrize("baseline", [None, 0.0, 0.7])
def test_dense_occlusion_is_captums(window: int, stride: int, baseline: float | None) -> None:
    victim, grey = smooth_victim(24), make_grey(2, 24)
    found = dense_occlusion(
        victim, grey, (1, 0), window=window, stride=stride, baseline=baseline, width=5
    )
    reference = median_filter(grey, 5) if baseline is None else baseline
    peer = captum().Occlusion(Logits(victim))
    for place, finding in enumerate((1, 0)):
        expected = peer.attribute(
            grey,
            sliding_window_shapes=(1, window, window),
            strides=(1, stride, stride),
            baselines=reference,
            target=finding,
        )
        torch.testing.assert_close(
            found.maps[:, place], expected[:, 0].detach(), atol=2e-5, rtol=1e-4
        )
    places = len(range(0, 24 - window + stride, stride)) ** 2
    assert victim.passes.forwards >= 2 * (places + 1)


def test_dense_occlusion_of_a_film_that_is_not_square() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(dim=(2, 3)).expand(-1, 3)

    grey = torch.rand(1, 1, 16, 19, generator=torch.Generator().manual_seed(2))
    victim = square_victim(Sum(), 16)
    maps = dense_occlusion(victim, grey, (0,), window=1, stride=1, baseline=0.0).maps
    torch.testing.assert_close(maps, grey, atol=1e-4, rtol=1e-4)
    coarse = occlusion(victim, grey, (0,), coarsest=4, finest=1, forwards=2000, baseline=0.0).maps
    torch.testing.assert_close(coarse, grey, atol=1e-4, rtol=1e-4)


def test_occlusion_with_a_window_is_the_dense_sweep() -> None:
    victim, grey = smooth_victim(24), make_grey(2, 24)
    for options in ({"window": 6, "stride": 4}, {"window": 6}):
        expected = dense_occlusion(
            victim, grey, (0,), window=6, stride=options.get("stride", 6), baseline=0.2
        )
        found = occlusion(victim, grey, (0,), baseline=0.2, **options)
        assert torch.equal(found.maps, expected.maps)


@pytest.mark.parametrize(("window", "stride"), [(0, 1), (4, 5), (17, 1), (4, -1)])
def test_a_window_that_does_not_fit_is_refused(window: int, stride: int) -> None:
    with pytest.raises(ConfigError, match=r"1 ≤ stride ≤ window ≤ 16 pixels"):
        dense_occlusion(smooth_victim(), make_grey(1, 16), (0,), window=window, stride=stride)
    with pytest.raises(ConfigError, match=r"1 ≤ stride ≤ window ≤ 16 pixels"):
        occlusion(smooth_victim(), make_grey(1, 16), (0,), stride=3)


def coarse_to_fine(
    victim: Victim, image: Tensor, fill: Tensor, findings: list[int], sides: list[int], cut: int
) -> np.ndarray:
    """The same by loops, one window and one forward at a time."""
    height, width = image.shape

    def logits(picture: Tensor) -> np.ndarray:
        with torch.no_grad():
            return victim.logits(picture[None, None])[0, findings].double().numpy()

    whole = logits(image)
    maps = np.zeros((len(findings), height, width))
    places = [(y, x) for y in range(0, height, sides[0]) for x in range(0, width, sides[0])]
    for side in sides:
        found = {}
        for y, x in places:
            covered = image.clone()
            covered[y : y + side, x : x + side] = fill[y : y + side, x : x + side]
            found[y, x] = whole - logits(covered)
            area = image[y : y + side, x : x + side].numel()
            for f in range(len(findings)):
                maps[f, y : y + side, x : x + side] = found[y, x][f] / area
        largest = np.max([np.abs(d) for d in found.values()], axis=0)
        ranked = sorted(found, key=lambda p: -float((np.abs(found[p]) / largest).max()))
        half = side // 2
        places = [
            (y + dy, x + dx)
            for y, x in ranked[:cut]
            for dy in (0, half)
            for dx in (0, half)
            if y + dy < height and x + dx < width
        ]
    return maps


@pytest.mark.parametrize("size", [24, 27])
def test_coarse_to_fine_occlusion_against_loops(size: int) -> None:
    victim, grey = smooth_victim(size), make_grey(2, size)
    n_first = (-(-size // 8)) ** 2
    found = occlusion(
        victim, grey, (1, 0), coarsest=8, finest=2, forwards=1 + n_first + 2 * 4 * 3, width=5
    )
    fill = median_filter(grey, 5)
    for i in range(2):
        expected = coarse_to_fine(victim, grey[i, 0], fill[i, 0], [1, 0], [8, 4, 2], cut=3)
        np.testing.assert_allclose(found.maps[i].numpy(), expected, atol=1e-5)


def test_with_forwards_enough_every_window_is_looked_into() -> None:
    victim, grey = smooth_victim(24), make_grey(2, 24)
    fine = occlusion(victim, grey, (1,), coarsest=8, finest=2, forwards=10_000).maps
    dense = occlusion(victim, grey, (1,), window=2, stride=2).maps
    torch.testing.assert_close(fine, dense / 4, atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("side", [1, 2, 3, 5])
def test_occlusion_finds_a_black_square_and_its_sign(side: int) -> None:
    x, y = 37, 22
    victim = square_victim(Square(x, y, side), 64)
    grey = 0.5 + 0.1 * make_grey(1, 64)
    grey[:, :, y : y + side, x : x + side] = 0.0
    found = occlusion(victim, grey, (0, 1))
    assert victim.passes.forwards <= 256
    box = torch.zeros(64, 64, dtype=torch.bool)
    box[y // 4 * 4 : (y + side + 3) // 4 * 4, x // 4 * 4 : (x + side + 3) // 4 * 4] = True
    for f, sign in enumerate((1, -1)):
        evidence = sign * found.maps[0, f]
        top = int(evidence.argmax())
        assert box[top // 64, top % 64]
        # Whole windows of 4 px that touch the square hold everything.
        outside = evidence[~box].clamp(min=0).sum()
        assert evidence[box].sum() > 2.5
        assert outside < 0.1


def test_both_signs_compete_for_the_forwards() -> None:
    """A square that clears a finding is looked into as one that sets it."""
    victim = square_victim(Square(20, 30, 2, gain=-6.0), 64)
    grey = torch.full((1, 1, 64, 64), 0.6)
    grey[:, :, 30:32, 20:22] = 0.0
    maps = occlusion(victim, grey, (0,), forwards=120).maps[0, 0]
    assert int(maps.argmin()) in [r * 64 + c for r in range(28, 32) for c in range(20, 24)]
    assert maps.max() <= 0


def test_a_small_finding_gets_its_share_of_the_forwards() -> None:
    """Finding 0 has large drops in one corner, finding 2 small ones in another."""

    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            loud, quiet = x[:, 0, :32].mean(dim=(1, 2)), x[:, 0, 50:52, 50:52].mean(dim=(1, 2))
            return torch.stack([1000 * loud, loud, 0.001 * quiet], dim=1)

    victim = square_victim(Two(), 64)
    maps = occlusion(victim, make_grey(1, 64), (0, 2), forwards=110, baseline=0.0).maps[0, 1]
    assert int((maps.abs() > 0.5 * maps.abs().max()).sum()) <= 16


def test_the_number_of_forwards_is_kept() -> None:
    for forwards in (41, 60, 100):
        victim = make_victim()
        occlusion(victim, make_grey(2), (0, 1), forwards=forwards)
        assert forwards - 4 < victim.passes.forwards / 2 <= forwards
    # The first level has no more than 36 windows to cut.
    victim = make_victim()
    occlusion(victim, make_grey(2), (0, 1), forwards=500)
    assert victim.passes.forwards / 2 == 1 + 36 + 4 * 36


def test_windows_that_do_not_fit_each_other_are_refused() -> None:
    victim, grey = smooth_victim(24), make_grey(1, 24)
    with pytest.raises(ConfigError, match=r"at least 18 forwards from windows of 8 to 2"):
        occlusion(victim, grey, (0,), coarsest=8, finest=2, forwards=17)
    for coarsest, finest in ((12, 8), (4, 8), (32, 4), (8, 0)):
        with pytest.raises(ConfigError, match=r"the finest times 1, 2, 4"):
            occlusion(victim, grey, (0,), coarsest=coarsest, finest=finest)
    # One level only: nothing is cut.
    assert occlusion(victim, grey, (0,), coarsest=8, finest=8, forwards=10).maps.abs().max() > 0


def bilinear(cells: np.ndarray, height: int, width: int) -> np.ndarray:
    """Enlarged so that the corners of the rasters meet; beyond the outer centres, constant."""
    grid = len(cells)
    out = np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        v = min(max((y + 0.5) * grid / height - 0.5, 0), grid - 1)
        u = min(max((x + 0.5) * grid / width - 0.5, 0), grid - 1)
        top, left = min(int(v), grid - 2), min(int(u), grid - 2)
        b, a = v - top, u - left
        out[y, x] = (1 - b) * ((1 - a) * cells[top, left] + a * cells[top, left + 1]) + b * (
            (1 - a) * cells[top + 1, left] + a * cells[top + 1, left + 1]
        )
    return out


@pytest.mark.parametrize("size", [(12, 12), (13, 17)])
def test_rise_masks_against_the_paper(size: tuple[int, int]) -> None:
    """arXiv 1806.07421, section 3.2: enlarged to (h+1)C_H × (w+1)C_W, cropped at a random shift."""
    cells, shifts = draw_masks(5, 3, 0.5, size, seed=1)
    masks = masks_of(cells, shifts, size).numpy()
    side = [-(-length // 3) for length in size]
    for mask, raster, (dy, dx) in zip(masks, cells.numpy(), shifts.tolist(), strict=True):
        enlarged = bilinear(raster, 4 * side[0], 4 * side[1])
        np.testing.assert_allclose(mask, enlarged[dy:, dx:][: size[0], : size[1]], atol=1e-6)


def test_rise_draws_what_it_says() -> None:
    cells, shifts = draw_masks(4000, 7, 0.3, (28, 35), seed=2)
    assert float(cells.mean()) == pytest.approx(0.3, abs=0.01)
    assert set(cells.unique().tolist()) == {0.0, 1.0}
    assert set(shifts[:, 0].tolist()) == set(range(4))
    assert set(shifts[:, 1].tolist()) == set(range(5))


@pytest.mark.parametrize("baseline", [0.0, None])
def test_rise_against_the_paper_mask_by_mask(baseline: float | None) -> None:
    """Equation 6, S = Σ f(I ⊙ M) M / (N · E[M]), with f less its mean over the masks."""
    victim, grey, n = smooth_victim(), make_grey(2, 16), 25
    found = rise(victim, grey, (1, 0), samples=n, grid=3, seed=4, baseline=baseline, width=5).maps
    masks = masks_of(*draw_masks(n, 3, 0.5, (16, 16), seed=4), (16, 16))
    hidden = median_filter(grey, 5) if baseline is None else torch.zeros_like(grey)
    for i in range(2):
        for place, finding in enumerate((1, 0)):
            scores = []
            for mask in masks:
                masked = mask * grey[i, 0] + (1 - mask) * hidden[i, 0]
                with torch.no_grad():
                    scores.append(float(victim.logits(masked[None, None])[0, finding]))
            expected = np.zeros((16, 16))
            for score, mask in zip(scores, masks.double().numpy(), strict=True):
                expected += (score - np.mean(scores)) * mask / n
            expected /= masks.double().numpy().mean(axis=0)
            np.testing.assert_allclose(found[i, place].numpy(), expected, atol=2e-5)


def test_rise_points_at_what_must_be_visible() -> None:
    """Finding 0 rises with the brightness of a square, finding 1 falls with it."""
    victim = square_victim(Square(30, 10, 8, gain=-6.0), 42)
    maps = rise(victim, torch.full((1, 1, 42, 42), 0.9), (0, 1), samples=600).maps[0]
    top, bottom = int(maps[0].argmax()), int(maps[1].argmin())
    for place in (top, bottom):
        assert 8 <= place // 42 <= 20
        assert 28 <= place % 42 <= 40
    torch.testing.assert_close(maps[0], -maps[1], atol=1e-5, rtol=1e-4)


def test_rise_depends_on_its_seed_and_on_nothing_global() -> None:
    victim, grey = smooth_victim(), make_grey(1, 16)
    before = torch.get_rng_state()
    maps = [rise(victim, grey, (0,), samples=20, seed=s).maps for s in (4, 4, 5)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2])
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(ConfigError, match=r"at least one step or sample"):
        rise(victim, grey, (0,), samples=0)


def test_a_constant_in_the_logits_does_not_cost_rise_its_precision() -> None:
    class Raised(Smooth):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 2000.0

    plain, grey = smooth_victim(), make_grey(1, 16)
    raised = replace(plain, network=Raised().eval())
    raised.network.load_state_dict(plain.network.state_dict())
    maps = [rise(v, grey, (0,), samples=50).maps for v in (plain, raised)]
    torch.testing.assert_close(maps[0], maps[1], atol=2e-3, rtol=0)
