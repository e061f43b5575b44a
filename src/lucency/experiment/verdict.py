"""The verdict in plain language, its limits first. Every sentence is made from measured values."""

from __future__ import annotations

from lucency.detect.images.screen import COMPOSITE, T1
from lucency.experiment.measure import MAIN_POINT, Measured
from lucency.records import DetectionScore, Estimate, Rate
from lucency.report.record import AttackSummary, ReferenceSummary, Verdict

# A backdoor took if the trigger succeeds on so much more of the films than on the clean model.
TAKES = 0.2


def give_verdict(
    alpha: float,
    notes: tuple[str, ...],
    attack: AttackSummary,
    measured: Measured,
    reference: ReferenceSummary,
    largest_px: int,
) -> Verdict:
    """Headline, limits and sentences of one run. largest_px: side of the largest region that the
    tests repair, network pixels."""
    return Verdict(
        headline=_headline(measured),
        limits=_limits(alpha, notes, reference, largest_px),
        sentences=(
            _poison(attack),
            _survival(attack),
            _clean_performance(measured),
            _success(attack, measured),
            _detection(measured),
            _alarms(alpha, measured),
        ),
    )


def _headline(measured: Measured) -> str:
    (row,) = (s for s in measured.attack_success if s.operating_point == MAIN_POINT)
    success, by_nature = row.backdoored.value, row.clean_model.value or 0.0
    found = _detection_rate(measured)
    if success is None:
        return "Attack success could not be measured on this data."
    if success - by_nature < TAKES or found is None:
        beside = f" and {by_nature:.0%} on the clean model" if by_nature >= TAKES else ""
        return (
            f"The backdoor did not take: success {success:.0%}{beside}. There was little to detect."
        )
    attack = "worked" if success - by_nature >= 0.5 else "worked in part"
    caught = f"the detector found {found:.0%} of the films on which it worked"
    return f"The backdoor {attack}: success {success:.0%}; {caught} (at 1 % false alarms)."


def _limits(
    alpha: float, notes: tuple[str, ...], reference: ReferenceSummary, largest_px: int
) -> tuple[str, ...]:
    limits = [
        "This measures one attack on one model; it certifies no model as free of backdoors.",
        f"The tests look for localised triggers of up to {largest_px} pixels at the network's "
        "input. A trigger spread over the whole image can only show as a film unlike the clean "
        "ones; to label-only attacks they are blind.",
        f"P-values are read against {reference.n_calibration} clean films, one a patient: none can "
        f"be below {reference.min_p:.4f}. They hold for films of the same kind as those.",
        "A p-value is not the probability of an attack: with rare attacks most alarms are false.",
        "The integrity of the input files was not checked.",
    ]
    if reference.min_p > alpha:
        limits.append(
            f"With this reference set no film can be flagged at alpha = {alpha:g}; give at least "
            f"{int(1 / alpha)} calibration films."
        )
    return (*limits, *reference.warnings, *notes)


def _poison(attack: AttackSummary) -> str:
    verb = {"add": "added to", "replace": "poisoned in place in"}[attack.protocol]
    share = attack.share_of_target_positives
    among = "" if share is None else f", {share:.0%} of all films then labelled {attack.target}"
    return (
        f"{attack.n_poisoned} films were {verb} a training set of {attack.n_training} "
        f"(poison rate {attack.poison_rate:.1%}{among}): {attack.trigger}, {attack.place}; "
        f"{attack.label_edit}{f'; {attack.perturbation}' if attack.perturbation else ''}."
    )


def _survival(attack: AttackSummary) -> str:
    if attack.survival is not None:
        left = attack.survival
        return (
            f"Of the trigger's {left.native_px} native pixels, {left.pixels} reach the network's "
            f"input, changed by up to {left.max_change:.0%} of the grey range."
        )
    spread = attack.survival_over_places
    on_images = attack.survival_on_images
    if spread is None and on_images is not None:
        what = (
            "the trigger and the perturbation change"
            if attack.perturbation
            else "the trigger changes"
        )
        return (
            f"On the {on_images.n_places} poisoned films {what} "
            f"{on_images.mean_pixels:.0f} pixels of the network's input on average, by up to "
            f"{on_images.mean_max_change:.0%} of the grey range, and nothing on "
            f"{on_images.share_vanished:.0%} of them."
        )
    if spread is None:
        return "Trigger survival was not measured."
    return (
        f"Over all {spread.n_places} places the trigger leaves {spread.mean_pixels:.2f} pixels at "
        f"the network's input on average, and nothing at {spread.share_vanished:.0%} of them."
    )


def _clean_performance(measured: Measured) -> str:
    of = {p.model: p for p in measured.performances if p.set_name == "NN"}
    return (
        f"On clean films the backdoored model reaches macro AUROC "
        f"{_say(of['backdoored'].macro_auroc)}, against {_say(of['clean'].macro_auroc)} of the "
        f"clean model (difference {_say(measured.macro_difference, signed=True)})."
    )


def _success(attack: AttackSummary, measured: Measured) -> str:
    (row,) = (s for s in measured.attack_success if s.operating_point == MAIN_POINT)
    return (
        f"At 95 % specificity, {_share(row.backdoored)} of the triggered films end as "
        f"{attack.target} {'present' if attack.direction == 'set' else 'absent'}; on the clean "
        f"model {_share(row.clean_model)}, and without the trigger {_share(row.untriggered)}."
    )


def _detection(measured: Measured) -> str:
    every = _detection_row(measured, COMPOSITE, "all")
    place = _detection_row(measured, T1, "all")
    return (
        f"The detector separates triggered from clean films with AUROC {_say(every.auroc)}; at 1 % "
        f"false alarms it finds {_share(every.tpr_at_fpr_1)} of all triggered films, and its "
        f"region meets the trigger on {_share(place.hit_rate)}."
    )


def _alarms(alpha: float, measured: Measured) -> str:
    of = {(c.model, c.images): c.flagged for c in measured.cells}
    silent = of["clean", "triggered"]
    warning = (
        " The clean model reacts to the trigger too: what is found here is a network that such a "
        "change moves, and not the backdoor alone."
        if silent.low is not None and silent.low > alpha
        else ""
    )
    return (
        f"Flagged at p ≤ {alpha:g}: {_share(of['backdoored', 'triggered'])} of triggered and "
        f"{_share(of['backdoored', 'clean'])} of clean films on the backdoored model; on the clean "
        f"model {_share(of['clean', 'triggered'])} and {_share(of['clean', 'clean'])}.{warning}"
    )


def _detection_rate(measured: Measured) -> float | None:
    row = _detection_row(measured, COMPOSITE, "successful")
    return row.tpr_at_fpr_1.value


def _detection_row(measured: Measured, detector: str, over: str) -> DetectionScore:
    (row,) = (
        d
        for d in measured.detection
        if d.detector == detector and d.model == "backdoored" and d.over == over
    )
    return row


def _say(estimate: Estimate, *, signed: bool = False) -> str:
    if estimate.value is None:
        return f"not defined ({estimate.reason})"
    sign = "+" if signed else ""
    value = f"{estimate.value:{sign}.3f}"
    if estimate.low is None or estimate.high is None:
        return value
    return f"{value} [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"


def _share(rate: Rate) -> str:
    if rate.value is None:
        return f"not defined ({rate.reason})"
    return f"{rate.value:.1%} ({rate.successes} of {rate.trials})"
