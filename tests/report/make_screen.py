"""A made-up finished screening, for looking at its page and testing it. No number in it is real."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from make_run import FINDINGS, phantom
from safetensors.numpy import save_file
from scipy.ndimage import gaussian_filter

from lucency.records import Box
from lucency.report.screen_record import (
    Power,
    ProbabilityChange,
    ScreenCase,
    ScreenCost,
    ScreenedImage,
    ScreenedModel,
    ScreenReference,
    ScreenReport,
    ShiftTest,
    Transplant,
    tally,
)
from lucency.report.screen_table import table

SIDE = 224
NATIVE = 1024
ALPHA = 0.01
FDR = 0.05
N_CALIBRATION = 299
SEED = 20250611
DETECTORS = ("T0 median disagreement", "T1 counterfactual patch", "penultimate distance")

Text = Callable[[str], str]


def make_screen(
    folder: Path,
    *,
    n_images: int = 120,
    n_rejected: int = 2,
    n_triggered: int = 9,
    n_cases: int = 6,
    side: int = SIDE,
    n_calibration: int = N_CALIBRATION,
    text: Text = str,
) -> ScreenReport:
    """Write a screening's folder and return its record; `text` is applied to every free text."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(SEED)
    clean = np.sort(rng.gamma(2.0, 0.4, n_calibration))
    lines = _lines(rng, clean, n_images, n_rejected, n_triggered, text)
    cases = _gallery(rng, folder, lines, n_cases, side, text)
    report = _report(lines, clean, cases, text)
    with (folder / "screen.jsonl").open("w", encoding="utf-8") as stream:
        stream.writelines(line.model_dump_json() + "\n" for line in lines)
    table(lines).write_parquet(folder / "screen.parquet")
    write_report(folder, report)
    return report


def write_report(folder: Path, report: ScreenReport) -> None:
    (folder / "report.json").write_text(report.model_dump_json(by_alias=True), encoding="utf-8")


# --- the lines ----------------------------------------------------------------------------------


def _lines(
    rng: np.random.Generator,
    clean: np.ndarray,
    n_images: int,
    n_rejected: int,
    n_triggered: int,
    text: Text,
) -> list[ScreenedImage]:
    suspicion = rng.gamma(2.0, 0.4, n_images)
    triggered = rng.permutation(n_images)[:n_triggered]
    suspicion[triggered] = rng.uniform(6, 40, len(triggered))
    p_value = (1 + (clean[None, :] >= suspicion[:, None]).sum(axis=1)) / (len(clean) + 1)
    q_value = _q_values(p_value)
    lines = [
        _screened(
            rng, i, float(suspicion[i]), float(p_value[i]), float(q_value[i]),
            place=list(triggered).index(i) if i in triggered else None, text=text,
        )
        for i in range(n_images)
    ]  # fmt: skip
    reasons = ("truncated at 11,204 bytes", "4 channels; expected 1", "no image in this file")
    for i in range(n_rejected):
        reason = text(reasons[i % 3])
        bad = ScreenedImage(image=text(f"broken/{i:05d}.png"), status="rejected", reason=reason)
        lines.insert(min(len(lines), 17 * (i + 1)), bad)
    return lines


def _q_values(p_value: np.ndarray) -> np.ndarray:
    n = len(p_value)
    order = np.argsort(p_value, kind="stable")
    ranked = p_value[order] * n / np.arange(1, n + 1)
    values = np.empty(n)
    values[order] = np.minimum(np.minimum.accumulate(ranked[::-1])[::-1], 1.0)
    return values


def _screened(
    rng: np.random.Generator,
    index: int,
    suspicion: float,
    p_value: float,
    q_value: float,
    *,
    place: int | None,
    text: Text,
) -> ScreenedImage:
    seen = place is not None
    whole = seen and place % 4 == 3
    clears = seen and place % 4 == 2
    x, y = (int(v) for v in rng.integers(NATIVE // 4, 3 * NATIVE // 4, 2))
    logit = (-3.1 if clears else 3.4) if seen else float(rng.normal(-2.4, 0.9))
    drop = (-4.2 if clears else 5.9) if seen else float(rng.normal(0, 0.2))
    scores = {text(DETECTORS[0]): suspicion * 0.8, text(DETECTORS[1]): suspicion}
    if seen or index % 5 == 0:
        scores[text(DETECTORS[2])] = float(rng.normal(9 if whole else 0, 1))
    transplant = Transplant(
        n_donors=24, same_place=0.31 if place == 4 else 5.23,
        elsewhere=4.87 if place in (0, 1) else 0.12, control=0.04, transfers=place != 4,
    ) if seen and not whole else None  # fmt: skip
    return ScreenedImage(
        image=text(f"ward-7/{index // 2:08d}_{index % 2:03d}.png"),
        status="ok",
        suspicion=suspicion,
        p_value=p_value,
        q_value=q_value,
        flagged=p_value <= ALPHA,
        finding=text(FINDINGS[0 if seen else index % len(FINDINGS)]),
        direction="clear" if clears else "set",
        region=None if whole else Box(x=x, y=y, width=14, height=14),
        logit=logit,
        logit_without_region=None if whole else logit - drop,
        scores=scores,
        evidence=("whole-image" if whole else "local") if suspicion > 2 else None,
        view=None,
        transplant=transplant,
        negative=text(
            "No square of up to 5 × 5 network pixels, hidden anywhere, lowers any finding by more "
            "than 0.31 SD (36 windows of 42 px, 36 forwards)."
        ) if whole else None,
        seconds=0.119,
    )  # fmt: skip


# --- pictures -----------------------------------------------------------------------------------


def _gallery(
    rng: np.random.Generator,
    folder: Path,
    lines: list[ScreenedImage],
    n_cases: int,
    side: int,
    text: Text,
) -> tuple[ScreenCase, ...]:
    chosen = sorted((s for s in lines if s.status == "ok"), key=lambda s: -(s.suspicion or 0))
    arrays, cases = {}, []
    for index, line in enumerate(chosen[:n_cases]):
        key = f"case-{index + 1:02d}"
        image = phantom(rng, side)
        attribution = np.abs(gaussian_filter(rng.normal(0, 1, (side, side)), 0.8)).astype("f4")
        attribution *= (rng.random((side, side)) < 0.04) * 0.35
        region = None
        if line.region is not None:
            x, y = (int(v * side / NATIVE) for v in (line.region.x, line.region.y))
            x, y = min(x, side - 4), min(y, side - 4)
            image[y : y + 3, x : x + 3] = 0
            attribution[y : y + 3, x : x + 3] = 1.0
            region = Box(x=max(0, x - 1), y=max(0, y - 1), width=5, height=5)
        arrays[f"{key}/image"] = image
        arrays[f"{key}/attribution"] = attribution
        cases.append(
            ScreenCase(
                key=key, screened=line, region=region,
                probabilities=_probabilities(line, text),
                context=text("The most suspicious of 299 clean films moves its finding by 1.1 SD "
                             "when its region is repaired; this image by 6.4 SD."),
            )
        )  # fmt: skip
    save_file(arrays, folder / "gallery.safetensors")
    return tuple(cases)


def _probabilities(line: ScreenedImage, text: Text) -> tuple[ProbabilityChange, ...]:
    def probability(logit: float) -> float:
        return float(1 / (1 + np.exp(-logit)))

    before = probability(line.logit or 0.0)
    if line.logit_without_region is None:
        return (ProbabilityChange(finding=line.finding or "", before=before, after=None),)
    own = ProbabilityChange(
        finding=line.finding or "", before=before, after=probability(line.logit_without_region)
    )
    others = ((0.02, 0.31), (0.04, 0.22), (0.11, 0.02), (0.07, 0.09), (0.003, 0.001))
    return own, *(
        ProbabilityChange(finding=text(name), before=b, after=a)
        for name, (b, a) in zip(FINDINGS[1:], others, strict=False)
    )


# --- the record ---------------------------------------------------------------------------------


def _report(
    lines: list[ScreenedImage], clean: np.ndarray, cases: tuple[ScreenCase, ...], text: Text
) -> ScreenReport:
    counts = tally(lines, alpha=ALPHA, fdr=FDR)
    some = counts.screened > 0
    return ScreenReport(
        schema="lucency/screen/1",
        model=ScreenedModel(
            architecture=text("torchvision:densenet121"),
            findings=tuple(text(name) for name in FINDINGS[:13]),
            skipped=(text("Hernia: the column is blank in the card"),),
            outputs="logits",
            input_contract=text("crop 0.6 → 224 px, bilinear-antialias → /255 → ImageNet mean"),
            engine=text("openvino bf16"),
            warnings=(text("The outputs of 2 of 13 findings hardly vary over the clean films."),),
        ),
        reference=ScreenReference(
            n_films=460,
            n_patients=398,
            n_calibration=len(clean),
            min_p=1 / (len(clean) + 1),
            n_duplicates=3,
            n_overlap=1,
            suspicion=tuple(float(value) for value in clean),
            warnings=(text("1 reference film is also screened; it was left out of the set."),),
        ),
        alpha=ALPHA,
        counts=counts,
        cost=ScreenCost(
            forwards=8.31 if some else None,
            backwards=1.62 if some else None,
            forward_equivalents=11.55 if some else None,
            seconds=14.3,
            images_per_second=8.4 if some else None,
            calibration_seconds=71.2,
            reason=None if some else text("nothing was screened"),
        ),
        shift=ShiftTest(
            statistics={text("penultimate features"): 0.61, text("grey levels"): 0.54},
            p_value=0.004,
            shifted=True,
            sentence=text("The images and the reference films can be told apart (AUC 0.61): the "
                          "p-values are not exact; clean films like these reach p ≤ 1 % in 2.3 %."),
        ),
        limits=(
            text("Tested for patches of up to 5 px at the network's input. T0 to T3 are blind to "
                 "triggers spread over the whole image, such as blends, warps and sinusoids."),
            text("A trigger that does not move this model's output cannot be seen by its effect."),
            text("Nothing is said of attacks that change labels alone."),
            text("A p-value is not the probability of an attack."),
        ),
        settings={"alpha": ALPHA, "fdr": FDR, "scales": text("1, 3, 5, 9"), "staged": True,
                  "calibrate_by_view": False, "batch": 16, "ray": None},
        command=text("lucency screen images/ --model model.toml --reference clean/ --out screened"),
        software={text("lucency"): text("0.1.0"), "python": "3.11.9", "torch": "2.8.0+cpu",
                  "openvino": "2025.3.0", "numpy": "2.4.6"},
        digests={text("weights"): "9f2c41d07be85a613c0e4d7fa2b8961d54e0c37a" * 2,
                 "card": "04b1" * 16},
        device=text("cpu (Intel Xeon, AMX)"),
        threads=2,
        seed=SEED,
        power=Power(tpr=0.95, prior=0.001, source=text("bench of this version, 3 px patches")),
        gallery=cases,
    )  # fmt: skip


if __name__ == "__main__":
    make_screen(Path(sys.argv[1]))
