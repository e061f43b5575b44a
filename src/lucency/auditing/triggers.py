"""The triggers that an audit found: what they do to clean films, and their pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit

from lucency.data.preprocess import full_scale
from lucency.detect.models.audit import Audit
from lucency.detect.models.evidence import Recovered
from lucency.detect.models.shortcut import in_words, natural
from lucency.detect.models.subject import DIRECTIONS, SIGNS, Subject
from lucency.evaluate.rates import rate
from lucency.records import Float64Array, Image, Rate
from lucency.report.audit_record import FoundTrigger
from lucency.victims.victim import to_grey

N_TRIGGERS = 6
"""Kept with pictures, the most suspicious findings'."""
N_FILMS = 8
"""That a trigger is shown on."""
LARGEST, SMALLEST, AROUND = 448, 48, 6
"""Pixels of a picture of a film as stored, and of how many sides of the trigger it is made."""

Pictures = dict[str, np.ndarray]


@dataclass(frozen=True)
class Shown:
    """A trigger and its pictures: `{key}/before`, `{key}/after` (8, size, size) uint8, and
    `{key}/native`, a film as stored with the trigger, (h, w) uint8."""

    trigger: FoundTrigger
    pictures: Pictures


def show_trigger(
    subject: Subject, audit: Audit, direction: int, finding: int, key: str, film: Image
) -> Shown | None:
    """film: one clean film as stored, to show the trigger at its own resolution. None where no test
    finds triggers."""
    recovered = audit.trigger(direction, finding)
    if recovered is None:
        return None
    evidence, found = recovered
    changed = found.put(subject.films)
    rows = np.arange(len(subject.films))
    moved = subject.moved(changed, rows)[:, direction, finding]
    suited = subject.suitable(DIRECTIONS[direction])[:, finding] > 0
    sign, bound = SIGNS[direction], subject.bounds[direction, finding]
    before = subject.logits[:, finding]
    after = before + sign * moved * subject.spread[finding]
    chosen = np.flatnonzero(suited)[:N_FILMS]
    contract = subject.victim.contract
    shape = (film.shape[0], film.shape[1])
    trigger = FoundTrigger(
        test=evidence.test,
        what=found.words,
        mask_px=float((changed != subject.films).float().sum(dim=(1, 2, 3)).mean()),
        location=found.box,
        native=None if found.box is None else contract.to_native_box(found.box, shape),
        moved=float(moved[suited].mean()),
        obeyed=_passed(sign * (after - bound)[suited]),
        before=_passed(sign * (before - bound)[suited]),
        probabilities=tuple((float(expit(before[i])), float(expit(after[i]))) for i in chosen),
        shortcut=_shortcut(subject, found, finding),
        key=key,
    )
    at = torch.from_numpy(chosen)
    pictures = {
        f"{key}/before": _grey(subject.films[at]),
        f"{key}/after": _grey(changed[at]),
        f"{key}/native": _native(subject, found, film),
    }
    return Shown(trigger, pictures)


def _shortcut(subject: Subject, found: Recovered, finding: int) -> str | None:
    seen = natural(subject, found, finding)
    if seen is None or not seen.is_shortcut:
        return None
    return in_words(seen, subject.victim.findings[finding])


def _passed(beyond: Float64Array) -> Rate:
    """Of films (n,), each another patient's: how many are beyond the bound."""
    patients = [str(i) for i in range(len(beyond))]
    return rate(beyond > 0, patients, np.random.default_rng(0))


def _grey(films: torch.Tensor) -> np.ndarray:
    """(n, 1, H, W) in [0, 1] -> (n, H, W) uint8."""
    scaled: np.ndarray = np.rint(255 * films[:, 0].cpu().numpy()).astype(np.uint8)
    return scaled


def _native(subject: Subject, found: Recovered, film: Image) -> np.ndarray:
    """The film as stored with what the trigger changes at the network, each network pixel's change
    on all the pixels that it stands for: what is around the trigger, or every few pixels of all."""
    contract = subject.victim.contract
    grey = to_grey(contract.to_network(film)[None], subject.films.device)
    change = (found.put(grey) - grey)[0, 0].cpu().numpy()
    shape = (film.shape[0], film.shape[1])
    window = contract.window(shape)
    rows = np.arange(window.height) * contract.size // window.height
    columns = np.arange(window.width) * contract.size // window.width
    shown = film.astype(np.float32) / full_scale(film.dtype)
    inside = shown[window.y : window.y + window.height, window.x : window.x + window.width]
    inside += change[rows[:, None], columns]
    stored: np.ndarray = np.rint(255 * shown.clip(0, 1)).astype(np.uint8)
    if found.box is None:
        step = -(-max(shape) // LARGEST)
        return stored[::step, ::step]
    box = contract.to_native_box(found.box, shape)
    side = min(max(AROUND * max(box.width, box.height), SMALLEST), *shape)
    y, x = (
        min(max(at + length // 2 - side // 2, 0), whole - side)
        for at, length, whole in ((box.y, box.height, shape[0]), (box.x, box.width, shape[1]))
    )
    return stored[y : y + side, x : x + side]
