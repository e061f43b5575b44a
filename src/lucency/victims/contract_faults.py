"""What a wrong input contract looks like in numbers: pure functions, one fault each.

Each takes arrays and returns a sentence with the numbers seen, or None. Wrong ranges, identical
outputs and double sigmoids are what users of public X-ray models report most
(mlmed/torchxrayvision #37, #48, #89, #109). Thresholds are wide: a sound model says nothing.
"""

from __future__ import annotations

import numpy as np

from lucency.data.preprocess import InputContract
from lucency.records import FloatArray, NetworkInputs

SAME = 1e-5
"""Logits that differ by less, relative to the largest (at least 1), are equal but for rounding."""
SMALL_SPREAD = 0.05
"""Logits: trained networks move by ten times as much between two films."""
HALF = 0.5
SIGMOID_OF_ONE = 0.7310586
"""A sigmoid of a probability lies between sigmoid(0) and sigmoid(1)."""
FEW = 8
"""So few numbers may lie anywhere by chance."""


# --- the films and the scaling --------------------------------------------------------------------


def scaling_fault(contract: InputContract) -> str | None:
    """mean and std that cannot be meant for grey values in [0, 1]."""
    black, white = contract_range(contract)
    said = f"[input] mean = {list(contract.mean)} and std = {list(contract.std)}"
    if any(not 0 <= mean <= 1 for mean in contract.mean):
        return (
            f"{said}: a mean outside [0, 1] was expected nowhere, since films are scaled to [0, 1] "
            "first; were mean and std meant for 0 to 255? Divide them by 255."
        )
    if white - black < HALF:
        return (
            f"{said} leave only {white - black:.3g} between black and white; were they meant for "
            "0 to 255? Divide them by 255."
        )
    if max(abs(black), abs(white)) > 2000:
        return (
            f"{said} put films into [{black:g}, {white:g}]; networks expect about [-3, 3], [0, 1], "
            "[0, 255] or [-1024, 1024]."
        )
    return None


def contract_range(contract: InputContract) -> tuple[float, float]:
    """What black and white become, over all channels: the lowest and the highest."""
    n = contract.channels
    mean, std = (np.broadcast_to(v, n) for v in (contract.mean, contract.std))
    return float(((0 - mean) / std).min()), float(((1 - mean) / std).max())


def dark_films_fault(grey: FloatArray, images: NetworkInputs) -> str | None:
    """grey (N, H, W) in [0, 1] that fill only the bottom of the stored range."""
    mean, top = float(grey.mean()), float(grey.max())
    if mean >= 0.02 and top > 0.13:
        return None
    bits = 8 * images.dtype.itemsize
    cause = (
        "10- to 13-bit films in 16-bit files must be stretched to the full range first."
        if bits == 16
        else "were deeper films cut down to 8 bits without a window?"
    )
    return (
        f"The reference films use only the bottom of their {bits}-bit range (brightest pixel "
        f"{int(images.max())} of {np.iinfo(images.dtype).max}, mean grey {100 * mean:.1f} %); "
        + cause
    )


def flat_films_fault(grey: FloatArray) -> str | None:
    """Films that show next to nothing, beside the brightest pixel of all."""
    flat = int((grey.std(axis=(1, 2)) < 0.01 * max(float(grey.max()), 1e-6)).sum())
    if flat == 0:
        return None
    return f"{flat} of {len(grey)} reference films are of nearly one grey value; leave them out."


def saturated_films_fault(grey: FloatArray) -> str | None:
    """Films of black and white pixels alone."""
    share = float(((grey <= 0) | (grey >= 1)).mean())
    if share <= HALF:
        return None
    return (
        f"{100 * share:.0f} % of the reference films' pixels are pure black or pure white; "
        "were they windowed or thresholded before they were stored?"
    )


# --- the outputs ----------------------------------------------------------------------------------


def is_constant(logits: FloatArray) -> np.ndarray:
    """Which columns of (N, K) do not move between films; all of them if N < 2."""
    spread = np.ptp(logits, axis=0)
    return np.asarray(spread <= SAME * np.maximum(1, np.abs(logits).max(axis=0)))


def constant_finding_fault(logits: FloatArray, findings: tuple[str, ...]) -> str | None:
    """A finding whose output does not depend on the film, where others do."""
    still = is_constant(logits)
    if still.all() or not still.any():
        return None
    named = ", ".join(
        f"{name} ({value:.4g})"
        for name, value, dead in zip(findings, logits[0], still, strict=True)
        if dead
    )
    return (
        f"The logit of these findings is the same on all {len(logits)} reference films: {named}; "
        'an output that was not trained gets a blank name "" in findings.'
    )


def small_spread_fault(logits: FloatArray) -> str | None:
    """Outputs that move, but hardly."""
    spread = float(np.ptp(logits, axis=0).max())
    if len(logits) < 2 or is_constant(logits).all() or spread >= SMALL_SPREAD:
        return None
    return (
        f"No logit moves by more than {spread:.2g} between {len(logits)} reference films; check "
        "[input] mean and std, and whether these are the trained weights."
    )


def saturated_outputs_fault(logits: FloatArray) -> str | None:
    """Outputs so far from 0 that no change can be seen in them."""
    share = float((np.abs(logits) > 14).mean())
    if share <= HALF:
        return None
    return (
        f"{100 * share:.0f} % of the outputs are nearer than 1e-6 to probability 0 or 1 (largest "
        f"logit {np.abs(logits).max():.3g}); check [input] mean and std."
    )


def undeclared_probabilities_fault(outputs: FloatArray) -> str | None:
    """Declared as logits, but within [0, 1] throughout."""
    low, high = float(outputs.min()), float(outputs.max())
    if outputs.size < FEW or low < 0 or high > 1:
        return None
    return (
        f"All {outputs.size} outputs lie in [{low:.4g}, {high:.4g}], within [0, 1], but the card "
        'says outputs = "logits"; if the network ends in a sigmoid, set outputs = '
        '"probabilities".' + _double(low, high)
    )


def outside_probabilities_fault(outputs: FloatArray) -> str | None:
    """Declared as probabilities, but not in [0, 1]."""
    low, high = float(outputs.min()), float(outputs.max())
    if low >= -1e-6 and high <= 1 + 1e-6:
        return None
    return (
        f"outputs must lie in [0, 1] where the card says outputs = "
        f'"probabilities", got [{low:.4g}, {high:.4g}]; set outputs = "logits".'
    )


def double_sigmoid_fault(outputs: FloatArray) -> str | None:
    """Declared as probabilities, and all where a sigmoid of a probability would be."""
    low, high = float(outputs.min()), float(outputs.max())
    said = _double(low, high)
    if outputs.size < FEW or not said:
        return None
    return f"All {outputs.size} probabilities lie in [{low:.4g}, {high:.4g}].{said}"


def softmax_fault(outputs: FloatArray) -> str | None:
    """Declared as probabilities, and each film's add up to 1. outputs: all columns, (N, K')."""
    sums = outputs.sum(axis=1)
    if outputs.shape[1] < 2 or outputs.size < FEW or np.abs(sums - 1).max() > 1e-4:
        return None
    return (
        f"The {outputs.shape[1]} probabilities of each reference film add up to 1, as after a "
        "softmax; findings that exclude each other are read as if each had a sigmoid of its own."
    )


def _double(low: float, high: float) -> str:
    if low < HALF or high > SIGMOID_OF_ONE:
        return ""
    return (
        " That is within [0.5, 0.7311], where a sigmoid of a sigmoid lies: is a sigmoid applied "
        "twice?"
    )
