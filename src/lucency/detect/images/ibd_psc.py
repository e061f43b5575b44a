"""IBD-PSC (Hou et al., ICML 2024, arXiv 2405.09786): does a prediction survive larger weights?

The paper multiplies weight and bias of the batch normalisations (BN) of the last k layers by ω, in
n copies of the network with k, k + 1, …, k + n − 1 such layers. A clean image's prediction changes
from copy to copy; a triggered one's stays. The suspicion is the mean over the copies of the
probability of what the unscaled network predicts (parameter-oriented scaling consistency, PSC), and
k is the smallest for which a copy errs on more than ξ = 60 % of a labelled clean set.

Why it should work here, where BN stands *before* the convolution. BN with ω-fold weight and bias
gives ω-fold output, and ReLU, pooling and convolutions pass positive factors on. So the amplified
network would give the same logits ω^j-fold, and every ranking of films would stay, if nothing had
an offset. Three things have one. (a) The head: logits grow about its bias, not about 0. A rare
finding's operating point is far below logit 0, so amplification drives it to probability 0 *on
films that have it too*: with sigmoids the raw probability may fall exactly where softmax would
rise. (b) The running means: behind amplified layers, j deep, a BN's threshold on its input shrinks
ω^j-fold, so channels that fire rarely (a trigger's are such) now fire on clean films as well, and
the target's logit may rise on *every* film. (c) DenseNet's concatenation: late features grow, those
that bypass them do not. In (a) and (b) the raw probability of a copy says little about a film. What
remains in its order is how a film compares with clean films in the *same copy*.

So what differs here from the paper, besides (`PUBLISHED` has the paper's probabilities):

- A film has several predictions or none. *Predicted* is a finding above the clean quantile that
  stands for a specificity of 95 %, and, since a trigger may clear a finding, also one below the
  clean 5 % quantile. The most consistent predicted finding decides: an attack is on one.
- A logit is read in its copy about the same quantile of the clean films' logits there, in units of
  its distance from their median. Consistent is a finding that stays as far from the clean films in
  the copies as it is in the network: the mean of the differences, through a sigmoid. (A high value
  in the copies alone would only say that a finding was pronounced to begin with.)
- A film without a prediction gets what its nearest finding would, less 1, so that it ranks below.
- No labels: k is the smallest for which a copy no longer ranks clean films as the network does,
  agreement (macro AUROC of its logits for the network's own predictions) below 0.9. An error of
  60 %, of findings predicted at 95 % specificity, is 0.84 (binormal); there, clean and triggered
  films were harder to tell apart on phantoms. k is found by doubling and halving.
- Layers are counted in the order in which they compute, not in which they are named.

Cost: 1 + n = 6 forwards an image. Fitting: 1 + n, and about 2 log₂ of the number of layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.special import expit
from scipy.stats import rankdata

from lucency.detect.images.amplify import amplified_logits, batch_norms, plain_logits
from lucency.detect.images.reference import require_patients
from lucency.records import BoolArray, Float64Array, NetworkInputs
from lucency.victims.victim import Victim

NAME = "IBD-PSC"


@dataclass(frozen=True)
class IbdPscSettings:
    """factor: ω. copies: n. agreement: amplify the fewest layers with which a copy's clean ranking
    agrees less than this with the network's (1 = perfectly, 0.5 = by chance). specificity: the
    share of clean films that a finding's operating point calls negative. clears: also follow
    findings that are suspiciously absent. form: "kept" = whether a finding keeps its distance from
    the clean films of a copy; "probability" = the mean of its probabilities in the copies. largest:
    take the most consistent of the predicted findings, else their mean.
    """

    factor: float = 1.5
    copies: int = 5
    agreement: float = 0.9
    specificity: float = 0.95
    clears: bool = True
    form: Literal["kept", "probability"] = "kept"
    largest: bool = True


DEFAULT = IbdPscSettings()
PUBLISHED = IbdPscSettings(agreement=0.84, clears=False, form="probability", largest=False)


@dataclass(frozen=True)
class Reading:
    """Clean logits of one copy, or of the network itself, for each finding and direction (2 K,):
    set, then clear with the sign turned. at: the operating point. unit: its distance from the
    median."""

    at: Float64Array
    unit: Float64Array

    def excess(self, logits: Float64Array) -> Float64Array:
        """Logits (N, K) -> (N, 2 K): how far above the operating point; > 0 = predicted."""
        return (_both_directions(logits) - self.at) / self.unit


@dataclass(frozen=True)
class IbdPsc:
    """IBD-PSC for one victim: images (N, size, size) -> suspicion (N,) float64, larger = more
    suspicious; in [-1, 1], below 0 where nothing is predicted.

    layers: names of the BN layers, in the order in which they compute. start: k. usual: what clean
    films give in the network. copies: the same in each copy.
    """

    victim: Victim
    settings: IbdPscSettings
    layers: tuple[str, ...]
    start: int
    usual: Reading
    copies: tuple[Reading, ...]

    def __call__(self, images: NetworkInputs) -> Float64Array:
        original = self.usual.excess(plain_logits(self.victim, images))
        total = np.zeros_like(original)
        for i, reading in enumerate(self.copies):
            logits = self._copy_logits(images, self.start + i)
            if self.settings.form == "kept":
                total += reading.excess(logits) - original
            else:
                total += expit(_both_directions(logits))
        mean = total / len(self.copies)
        consistency = expit(mean) if self.settings.form == "kept" else mean
        asked = original.shape[1] if self.settings.clears else original.shape[1] // 2
        return _combine(original[:, :asked], consistency[:, :asked], largest=self.settings.largest)

    def _copy_logits(self, images: NetworkInputs, depth: int) -> Float64Array:
        return amplified_logits(self.victim, images, self.layers, depth, self.settings.factor)


def fit(
    victim: Victim, reference: NetworkInputs, seed: int, settings: IbdPscSettings = DEFAULT
) -> IbdPsc:
    """Choose the layers on the clean reference (n, size, size). Nothing is drawn: the seed is
    ignored. The victim's engine is not used, since its weights are not the network's.

    Raises DataError for fewer than 8 reference films, ModelError for a network without BN.
    """
    require_patients(len(reference))
    bare = replace(victim, engine=None)
    layers = batch_norms(bare, reference)
    logits = plain_logits(bare, reference)
    predicted = logits > np.quantile(logits, settings.specificity, axis=0)

    def agreement_of(depth: int) -> float:
        copied = amplified_logits(bare, reference, layers, depth, settings.factor)
        return agreement(copied, predicted)

    last = max(len(layers) - settings.copies + 1, 1)
    start = first_below(agreement_of, settings.agreement, last)
    depths = range(start, min(start + settings.copies, len(layers) + 1))
    copies = [amplified_logits(bare, reference, layers, d, settings.factor) for d in depths]
    read = [_read(copied, settings.specificity) for copied in (logits, *copies)]
    return IbdPsc(bare, settings, layers, start, read[0], tuple(read[1:]))


def agreement(copied: Float64Array, predicted: BoolArray) -> float:
    """Macro AUROC of a copy's logits (n, K) for what the network predicts (n, K): 1 = ranks clean
    films alike, 0.5 = by chance. Findings that are predicted on no film, or on all, are left out;
    1 if that leaves none."""
    positives, n = predicted.sum(axis=0), len(predicted)
    defined = (positives > 0) & (positives < n)
    if not defined.any():
        return 1.0
    ranks = (rankdata(copied, axis=0) * predicted).sum(axis=0)
    pairs = positives * (n - positives)
    above = ranks - positives * (positives + 1) / 2
    return float((above[defined] / pairs[defined]).mean())


def first_below(value_of: Callable[[int], float], level: float, last: int) -> int:
    """The smallest number from 1 to `last` whose value, falling, is below the level; `last` if none
    is. Doubled until it is passed, then halved in between, so that few values are asked for."""
    above, below = 0, 1
    while below < last and value_of(below) >= level:
        above, below = below, min(2 * below, last)
    while below - above > 1:
        middle = (above + below) // 2
        above, below = (middle, below) if value_of(middle) >= level else (above, middle)
    return below


def _both_directions(logits: Float64Array) -> Float64Array:
    """(N, 2 K): a trigger raises a logit, or it raises minus the logit."""
    return np.concatenate([logits, -logits], axis=1)


def _read(logits: Float64Array, specificity: float) -> Reading:
    both = _both_directions(logits)
    at = np.quantile(both, specificity, axis=0)
    return Reading(at, np.maximum(at - np.median(both, axis=0), 1e-6))


def _combine(excess: Float64Array, consistency: Float64Array, *, largest: bool) -> Float64Array:
    """excess (N, C) > 0: predicted. consistency (N, C) in [0, 1]. (N,): over what is predicted; 1
    less than the consistency of the nearest to it where nothing is."""
    predicted = excess > 0
    if largest:
        over = np.where(predicted, consistency, 0.0).max(axis=1)
    else:
        over = (consistency * predicted).sum(axis=1) / np.maximum(predicted.sum(axis=1), 1)
    nearest = np.take_along_axis(consistency, excess.argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.asarray(np.where(predicted.any(axis=1), over, nearest - 1.0))
