"""Explanations: attributions of all findings against other toolkits called per finding, and how
well the maps point at known triggers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lucency.bench import peers
from lucency.bench.cohorts import cohorts_of, title
from lucency.bench.contests import FINDINGS, LAST, Contest, ExplainingSize, contests
from lucency.bench.films import phantom_inputs
from lucency.bench.localisation_table import as_grids
from lucency.bench.localising import bench_localisation
from lucency.bench.machine import describe_machine
from lucency.bench.peers import Peer
from lucency.bench.record import Benchmark, Row, at_least, at_most, row, spread
from lucency.bench.timing import Seconds, interleave, ratios
from lucency.bench.triggered import TriggeredFilms
from lucency.bench.victims import Cohort, prepare
from lucency.data.preprocess import InputContract
from lucency.progress import Advance, Progress, silent
from lucency.victims.architectures import build, channels_last
from lucency.victims.victim import Victim, default_device, has_fast_bf16, to_grey

NAME = "explain"
PEER = (
    "Captum and pytorch-grad-cam, called once a finding on the same network in float32 and the "
    "default layout, as their users do; for RISE, the paper's loop"
)
SHARED = at_least(14.0)
GRADIENT = at_least(1.5)
FAST = at_least(3.5)
SAME = at_most(1e-4)
COMPARED = 4
"""Images whose maps are compared."""


FULL = ExplainingSize()


def bench_explaining(
    seed: int,
    progress: Progress = silent,
    size: ExplainingSize = FULL,
    cases: Iterable[TriggeredFilms] = (),
) -> Benchmark:
    """Time every method, compare its maps, then score maps on `cases` with known triggers.

    Bars: 14 × where one pass gives all findings, 1.5 × for gradients in float32 with maps within
    1e-4 of their largest value, 3.5 × in bfloat16.
    """
    machine = describe_machine()
    contract = InputContract(size=size.size)
    films, _ = phantom_inputs(size.images, contract, seed)
    victim = _random_victim(size, contract, seed)
    grey = to_grey(films, victim.device)
    fought = contests(victim, size)
    aligned = contests(victim, size, torch.channels_last)
    rows: list[Row] = []
    n_jobs = sum(2 + _in_bf16(contest, victim) for contest in fought)
    with progress("Benchmark: explain", n_jobs * (size.repeats + 1)) as advance:
        for contest, twin in zip(fought, aligned, strict=True):
            rows += _fight(contest, twin.peer, victim, grey, size, advance)
    found = bench_localisation(cases, seed=seed, size=size.localisation, progress=progress)
    benchmark = Benchmark(
        name=NAME,
        title=f"{len(FINDINGS)} findings of {size.images} images, {size.architecture}, "
        f"{size.size} px",
        peer=PEER,
        seed=seed,
        machine=machine,
        settings=size.model_dump(mode="json"),
        rows=(*rows, *found.rows),
        grids=as_grids(found.table),
        notes=(*_notes(size), *found.notes),
    )
    return benchmark if found.scores.is_empty() else benchmark.with_scores(found.scores)


def bench_explaining_on_victims(
    seed: int,
    progress: Progress = silent,
    *,
    victims: Path,
    data: Path | None = None,
    only: Sequence[str] = (),
    size: ExplainingSize = FULL,
    sizes: Sequence[int] = (128,),
) -> Benchmark:
    """The same, with maps scored on the test films of every backdoored network whose trigger has a
    place; see `bench_screen` for victims, data and only."""
    cases = triggered_films(cohorts_of(data, sizes, only), victims, progress)
    return bench_explaining(seed, progress, size, cases)


def triggered_films(
    cohorts: Iterable[Cohort], victims: Path, progress: Progress = silent
) -> Iterator[TriggeredFilms]:
    """Of each case with a patch: the films on which the trigger works, if there are any. Elsewhere
    there is nothing for a map to find."""
    for cohort in cohorts:
        for backdoored in prepare(cohort, victims, progress):
            case, works = backdoored.case, backdoored.works(backdoored.victim)
            if case.size_px == 0 or not works.any():
                continue
            patients = backdoored.films.patients(backdoored.films.split("test"))
            yield TriggeredFilms(
                title(cohort, case),
                backdoored.victim,
                backdoored.triggered[works],
                tuple(box for box, on in zip(backdoored.boxes, works, strict=True) if on),
                backdoored.finding,
                case.label.direction,
                tuple(name for name, on in zip(patients, works, strict=True) if on),
            )


def _fight(
    contest: Contest,
    aligned: Peer,
    victim: Victim,
    grey: Tensor,
    size: ExplainingSize,
    advance: Advance,
) -> list[Row]:
    ours, theirs = grey[: contest.load.images], grey[: contest.load.peer_images]
    everything, some = range(len(FINDINGS)), range(contest.load.peer_findings)
    jobs: dict[str, Callable[[], object]] = {
        "ours": lambda: _done(contest.ours(victim, ours, everything).maps),
        "peer": lambda: _in_batches(contest.peer, theirs, some, size.batch),
    }
    if _in_bf16(contest, victim):
        fast = replace(victim, bf16=True)
        jobs["bf16"] = lambda: _done(contest.ours(fast, ours, everything).maps)
    seconds = interleave(jobs, size.repeats, advance)
    scale = size.images / contest.load.images
    peer_scale = size.images / contest.load.peer_images * len(FINDINGS) / contest.load.peer_findings
    taken = {name: _scaled(s, scale) for name, s in seconds.items()}
    taken["peer"] = _scaled(seconds["peer"], peer_scale)
    name, peer = contest.name, contest.peer_name
    bar = GRADIENT if contest.is_gradient else SHARED
    rows = [
        spread(f"{name}: ours", taken["ours"], "s"),
        spread(f"{name}: {peer}", taken["peer"], "s"),
        spread(f"{name}: {peer} ÷ ours", ratios(taken["peer"], taken["ours"]), "×", bar=bar),
        *_differences(contest, aligned, victim, grey, size),
    ]
    if contest.is_gradient:
        title = f"{name}: {peer} ÷ ours in bf16"
        if "bf16" in taken:
            rows.append(spread(title, ratios(taken["peer"], taken["bf16"]), "×", bar=FAST))
        else:
            rows.append(row(title, None, bar=FAST, reason="this device emulates bf16"))
    return rows


def _in_bf16(contest: Contest, victim: Victim) -> bool:
    return contest.is_gradient and has_fast_bf16(victim.device)


def _differences(
    contest: Contest, aligned: Peer, victim: Victim, grey: Tensor, size: ExplainingSize
) -> list[Row]:
    """Against the peer in our layout, where the same mathematics gives the same map, and against
    the one that was timed."""
    title = f"{contest.name}: largest difference of the maps, of their largest value"
    if contest.differs is not None:
        return [row(title, None, reason=contest.differs)]
    load = contest.load
    some = range(load.peer_findings)
    images = grey[: min(load.images, load.peer_images, COMPARED)]
    maps = contest.ours(victim, images, some).maps.cpu()
    if contest.drawn:
        maps = peers.as_toolkit(maps, size.size)
    return [
        row(title, largest_difference(maps, aligned(images, some)), bar=SAME),
        row(
            f"{title}, peer in the default layout",
            largest_difference(maps, contest.peer(images, some)),
        ),
    ]


def largest_difference(maps: Tensor, peer: Tensor) -> float:
    """max |difference| / max |peer| of each map, and of these the largest; (N, F, h, w) both."""
    gap = (maps - peer).abs().amax(dim=(2, 3))
    largest = peer.abs().amax(dim=(2, 3)).clamp(min=torch.finfo(torch.float32).tiny)
    return float((gap / largest).max())


def _notes(size: ExplainingSize) -> tuple[str, ...]:
    return (
        f"Clean phantom films, random weights, batches of {size.batch} for the peers; ours chooses "
        "its own. Ratios are taken within a repeat, after one round that does not count.",
        f"Seconds are for {size.images} images and {len(FINDINGS)} findings. Integrated gradients "
        f"and SmoothGrad were timed on {size.path_images} images; occlusion and RISE on "
        f"{size.sweep_images}, and their peers on {size.peer_sweep_images} and "
        f"{size.peer_sweep_findings} findings; all scaled.",
        f"Maps are compared on {COMPARED} images at most, with the peer's network in our layout "
        "(channels last): the default layout rounds otherwise, and where a value lies within "
        "rounding of a ReLU's corner or of another in a max pooling, the gradient jumps. Both "
        "layouts are that far from float64, so the difference between them, printed beside, "
        "speaks of float32 and of no method.",
        "pytorch-grad-cam gives maps enlarged and scaled to [0, 1]: ours are compared after the "
        "same. Its peer for cam is Grad-CAM at the last map, which is the same map for a mean and "
        "a linear layer. At features.norm5 it would keep a map that a later in-place ReLU changes, "
        f"so both look at {LAST}.",
    )


def _in_batches(peer: Peer, grey: Tensor, findings: range, batch: int) -> None:
    for part in torch.split(grey, batch):
        _done(peer(part, findings))


def _done(maps: Tensor) -> None:
    """Wait until an accelerator has finished."""
    maps.cpu()


def _scaled(seconds: Seconds, factor: float) -> Seconds:
    return tuple(factor * s for s in seconds)


def _random_victim(size: ExplainingSize, contract: InputContract, seed: int) -> Victim:
    network = build(size.architecture, contract.channels, len(FINDINGS), seed)
    network = channels_last(network).to(default_device()).eval()
    return Victim(network, contract, FINDINGS)
