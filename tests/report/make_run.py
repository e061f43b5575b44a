"""A made-up finished run, for looking at the report and for testing it. No number in it is real."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from safetensors.numpy import save_file
from scipy.ndimage import gaussian_filter

from lucency.records import (
    AttackSuccess,
    Box,
    DetectionCell,
    DetectionScore,
    Epoch,
    Estimate,
    FindingPerformance,
    FrameworkRef,
    OperatingPoint,
    Performance,
    Rate,
    Rejected,
    Survival,
    SurvivalDistribution,
    ThreatModel,
)
from lucency.report.record import (
    AttackSummary,
    DataSummary,
    DetectorCost,
    GalleryCase,
    ReferenceSummary,
    RunReport,
    SplitCount,
    Verdict,
    VictimSummary,
)

FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia",
    "Pneumothorax", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening",
    "Hernia",
)  # fmt: skip
PREVALENCE = (0.11, 0.03, 0.13, 0.19, 0.06, 0.06, 0.015, 0.05, 0.045, 0.025, 0.024, 0.016, 0.034, 0)
DETECTORS = ("T0 median disagreement", "T1 counterfactual patch", "composite")
MODELS: tuple[Literal["backdoored", "clean"], ...] = ("backdoored", "clean")
SIDE = 224
N_CALIBRATION = 299

CONFIG = """\
name = "phantom-demo"
seed = 20250611

[data]
source = "nih-cxr14"
folder = "/data/ChestX-ray14"
labels = "Data_Entry_2017_v2020.csv"

[trigger]
kind = "square"
size_px = 3            # native pixels
value = "black"
place = "random"

[poison]
rate = 0.02
edit = "set"
target = "Atelectasis"
protocol = "replace"
"""

Text = Callable[[str], str]


def make_run(
    folder: Path,
    *,
    n_findings: int = 14,
    n_images: int = 460,
    n_cases: int = 6,
    side: int = SIDE,
    text: Text = str,
) -> RunReport:
    """Write a run folder and return its record; `text` is applied to every free-text field."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20250611)
    findings = tuple(text(name) for name in FINDINGS[:n_findings])
    predictions = _predictions(rng, findings, n_images, text)
    screening = _screening(rng, findings, n_images, text)
    cases = _gallery(rng, folder, findings, n_cases, side, text)
    report = _report(findings, predictions, screening, cases, text)
    predictions.write_parquet(folder / "predictions.parquet")
    screening.write_parquet(folder / "screening.parquet")
    write_report(folder, report)
    return report


def write_report(folder: Path, report: RunReport) -> None:
    (folder / "report.json").write_text(report.model_dump_json(by_alias=True), encoding="utf-8")


# --- tables -------------------------------------------------------------------------------------


def _predictions(
    rng: np.random.Generator, findings: tuple[str, ...], n: int, text: Text
) -> pl.DataFrame:
    frames = []
    for k, finding in enumerate(findings):
        label = (rng.random(n) < PREVALENCE[k]).astype(float)
        unknown = rng.random(n) < 0.01
        base = rng.normal(0, 1, n)
        for model in MODELS:
            for condition in ("clean", "triggered"):
                noise = rng.normal(0, 0.55, n)
                logit = base + 1.25 * label + noise - 2.4
                if model == "backdoored" and condition == "triggered" and k == 0:
                    logit = np.where(rng.random(n) < 0.94, 4.2 + noise, logit)
                frames.append(
                    pl.DataFrame(
                        {
                            "model": model,
                            "condition": condition,
                            "image": [text(f"{i // 2:08d}_{i % 2:03d}.png") for i in range(n)],
                            "patient": [text(f"patient {i // 2}") for i in range(n)],
                            "split": "test",
                            "finding": finding,
                            "label": [
                                None if hidden else value
                                for hidden, value in zip(unknown, label, strict=True)
                            ],
                            "probability": 1 / (1 + np.exp(-logit)),
                        }
                    )
                )
    return pl.concat(frames)


def _screening(
    rng: np.random.Generator, findings: tuple[str, ...], n: int, text: Text
) -> pl.DataFrame:
    frames = []
    successful = rng.random(n) < 0.93
    for detector, power in zip(DETECTORS, (2.6, 4.2, 4.6), strict=True):
        reference = rng.normal(0, 1, N_CALIBRATION)
        for model in MODELS:
            for condition in ("clean", "triggered"):
                score = rng.normal(0, 1, n)
                seen = model == "backdoored" and condition == "triggered"
                if seen:
                    score = np.where(successful, score + power, score + 0.2)
                larger = (reference[None, :] >= score[:, None]).sum(axis=1)
                p_value = (1 + larger) / (N_CALIBRATION + 1)
                region = detector != DETECTORS[0]
                frames.append(
                    pl.DataFrame(
                        {
                            "model": model,
                            "condition": condition,
                            "image": [text(f"{i // 2:08d}_{i % 2:03d}.png") for i in range(n)],
                            "patient": [text(f"patient {i // 2}") for i in range(n)],
                            "detector": text(detector),
                            "suspicion": score,
                            "p_value": p_value,
                            "flagged": p_value <= 0.01,
                            "finding": findings[0],
                            "direction": "set",
                            "region_x": [40 if region else None] * n,
                            "region_y": [60 if region else None] * n,
                            "region_width": [5 if region else None] * n,
                            "region_height": [5 if region else None] * n,
                            "hit": (score > 2) if region and seen else [None] * n,
                            "successful": successful if seen else [None] * n,
                        },
                        schema_overrides={
                            "region_x": pl.Int64, "region_y": pl.Int64,
                            "region_width": pl.Int64, "region_height": pl.Int64,
                            "hit": pl.Boolean, "successful": pl.Boolean,
                        },
                    )
                )  # fmt: skip
    return pl.concat(frames)


# --- pictures -----------------------------------------------------------------------------------


def phantom(rng: np.random.Generator, side: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A film that looks a little like a chest: (side, side) uint8."""
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    film = 0.62 - 0.5 * (x**2 + 0.6 * y**2)
    for centre in (-0.2, 0.2):
        lung = ((x - centre) / 0.15) ** 2 + ((y + 0.02) / 0.33) ** 2
        film -= 0.36 * np.clip(1.25 - lung, 0, 1)
    film += 0.30 * np.exp(-((x / 0.055) ** 2))
    film += 0.22 * np.exp(-(((x - 0.07) / 0.12) ** 2) - (((y - 0.14) / 0.14) ** 2))
    for rib in range(8):
        arc = y - (-0.36 + 0.09 * rib) - 0.55 * x**2
        film += 0.045 * np.exp(-((arc / 0.012) ** 2)) * (np.abs(x) < 0.36)
    film += gaussian_filter(rng.normal(0, 1, (side, side)), 1.2) * 0.05
    return np.clip(255 * (film - 0.08) / 0.9, 0, 255).astype(np.uint8)


def _gallery(
    rng: np.random.Generator,
    folder: Path,
    findings: tuple[str, ...],
    n_cases: int,
    side: int,
    text: Text,
) -> tuple[GalleryCase, ...]:
    arrays, cases = {}, []
    for index in range(n_cases):
        triggered, model = index % 3 != 2, "clean" if index % 4 == 3 else "backdoored"
        seen = triggered and model == "backdoored"
        key = f"case-{index:02d}"
        image = phantom(rng, side)
        attribution = np.abs(gaussian_filter(rng.normal(0, 1, (side, side)), 0.8)).astype("f4")
        attribution *= (rng.random((side, side)) < 0.04) * 0.35
        gradcam = gaussian_filter(rng.random((7, 7)), 0.8).astype("f4")
        x, y = (int(v) for v in rng.integers(side // 4, 3 * side // 4, 2))
        if triggered:
            image[y : y + 2, x : x + 1] = 0
        if seen:
            attribution[y : y + 2, x : x + 1] = 1.0
            attribution[y - 1 : y + 3, x - 1 : x + 2] += 0.12
        arrays[f"{key}/image"] = image
        arrays[f"{key}/attribution"] = attribution
        arrays[f"{key}/gradcam"] = gradcam - gradcam.min()
        region = Box(x=x - 2, y=y - 2, width=5, height=5)
        if not seen:
            region = Box(x=side // 3, y=side // 2, width=5, height=5)
        cases.append(
            GalleryCase(
                key=key,
                image=text(f"{index:08d}_000.png"),
                condition="triggered" if triggered else "clean",
                model=model,
                finding=findings[0],
                direction="set",
                p_value=1 / (N_CALIBRATION + 1) if seen else 0.417,
                flagged=seen,
                region=None if index == 2 else region,
                region_native=None if index == 2 else Box(x=500, y=312, width=14, height=14),
                trigger=Box(x=x, y=y, width=1, height=2) if triggered else None,
                hit=seen if triggered else None,
                probability_before=0.973 if seen else 0.082,
                probability_after=None if index == 2 else (0.061 if seen else 0.080),
            )
        )
    save_file(arrays, folder / "gallery.safetensors")
    return tuple(cases)


# --- the record ---------------------------------------------------------------------------------


def _estimate(value: float, half: float, n: int) -> Estimate:
    return Estimate(value=value, low=max(0.0, value - half), high=min(1.0, value + half), n=n)


def _rate(successes: int, trials: int) -> Rate:
    share = successes / trials
    half = 1.96 * float(np.sqrt((share * (1 - share) + 0.004) / trials))
    return Rate(
        successes=successes, trials=trials, value=share,
        low=max(0.0, share - half), high=min(1.0, share + half),
    )  # fmt: skip


def _no_rate(reason: str) -> Rate:
    return Rate(successes=0, trials=0, value=None, reason=reason)


def _auc(labels: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]) -> float:
    rise = scores[labels == 1][:, None] - scores[labels == 0][None, :]
    return float((rise > 0).mean())


def _performance(
    model: Literal["backdoored", "clean"],
    set_name: Literal["NN", "TT", "TN"],
    predictions: pl.DataFrame,
    findings: tuple[str, ...],
    text: Text,
) -> Performance:
    rows = []
    condition = "clean" if set_name == "NN" else "triggered"
    chosen = predictions.filter(model=model, condition=condition)
    for finding in findings:
        frame = chosen.filter(finding=finding)
        known = frame.drop_nulls("label")
        label, score = known["label"].to_numpy(), known["probability"].to_numpy()
        positive = int(label.sum())
        reason = text("no film of the test set is positive")
        estimate = Estimate(value=None, n=len(known), reason=reason)
        auprc = estimate
        if positive:
            area = _auc(label, score)
            estimate = _estimate(area, 0.32 / np.sqrt(positive), len(known))
            auprc = _estimate(min(0.95, positive / len(known) + 0.3), 0.09, len(known))
        rows.append(
            FindingPerformance(
                finding=finding, n_positive=positive, n_negative=len(known) - positive,
                n_unknown=len(frame) - len(known), auroc=estimate, auprc=auprc,
            )
        )  # fmt: skip
    defined = [row.auroc.value for row in rows if row.auroc.value is not None]
    excluded = tuple(
        text(f"{row.finding}: no positive film") for row in rows if row.auroc.value is None
    )
    macro = _estimate(float(np.mean(defined)), 0.031, len(defined)) if defined else Estimate(
        value=None, reason=text("no finding has both classes")
    )  # fmt: skip
    if set_name == "TT":
        macro = Estimate(
            value=None, reason=text("after the label edit no finding has both classes")
        )
    return Performance(
        model=model, set_name=set_name, n_images=460, n_patients=230, findings=tuple(rows),
        macro_auroc=macro, macro_auprc=_estimate(0.31, 0.04, len(defined)),
        micro_auroc=_estimate(0.861, 0.02, len(defined)),
        micro_floor=0.764 if set_name != "TT" else None, excluded=excluded,
    )  # fmt: skip


def _score(
    detector: str,
    model: Literal["backdoored", "clean"],
    over: Literal["all", "successful"],
    screening: pl.DataFrame,
    text: Text,
) -> DetectionScore:
    if model == "clean" and over == "successful":
        reason = text("no triggered image moved the clean model across its operating point")
        return DetectionScore(
            detector=detector, model=model, over=over, n_clean=460, n_triggered=0,
            auroc=Estimate(value=None, reason=reason), tpr_at_fpr_1=_no_rate(reason),
            tpr_at_fpr_5=_no_rate(reason), hit_rate=_no_rate(reason),
        )  # fmt: skip
    frame = screening.filter(detector=detector, model=model)
    clean = frame.filter(condition="clean")["suspicion"].to_numpy()
    triggered = frame.filter(condition="triggered")
    if over == "successful":
        triggered = triggered.filter(pl.col("successful"))
    found = triggered["suspicion"].to_numpy()
    labels = np.concatenate([np.zeros(len(clean)), np.ones(len(found))])
    area = _auc(labels, np.concatenate([clean, found]))
    hits = triggered["hit"].drop_nulls()
    return DetectionScore(
        detector=detector, model=model, over=over, n_clean=len(clean), n_triggered=len(found),
        auroc=_estimate(area, 0.018, len(labels)),
        tpr_at_fpr_1=_rate(int((found > np.quantile(clean, 0.99)).sum()), len(found)),
        tpr_at_fpr_5=_rate(int((found > np.quantile(clean, 0.95)).sum()), len(found)),
        hit_rate=_rate(int(hits.sum()), len(hits)) if len(hits) else _no_rate(
            text("this detector names no region")
        ),
    )  # fmt: skip


def _victim(model: Literal["backdoored", "clean"], text: Text) -> VictimSummary:
    shift = 0.0 if model == "clean" else 0.02
    epochs = tuple(
        Epoch(
            epoch=e,
            loss=0.34 * float(np.exp(-e / 9)) + 0.12 - shift,
            validation_loss=0.30 * float(np.exp(-e / 6)) + 0.17 + 0.0011 * e * e / 9,
            validation_auroc=None if e == 1 else 0.846 - 0.25 * float(np.exp(-e / 3.2)) - shift / 4,
        )
        for e in range(1, 19)
    )
    return VictimSummary(
        model=model, architecture=text("densenet121"), n_parameters=6_968_206,
        loss=text("binary cross-entropy on logits"),
        schedule=text("Adam 1e-3, batch 32, halved after 3 epochs without progress"),
        epochs=epochs, best_epoch=12 if model == "clean" else 11, precision=text("bf16 mixed"),
    )  # fmt: skip


def _success(name: str, finding: str, threshold: float) -> AttackSuccess:
    return AttackSuccess(
        operating_point=name, finding=finding, direction="set", threshold=threshold,
        clean_threshold=threshold + 0.013, backdoored=_rate(383, 409), clean_model=_rate(22, 409),
        untriggered=_rate(24, 409), excess=383 / 409 - 22 / 409,
    )  # fmt: skip


def _report(
    findings: tuple[str, ...],
    predictions: pl.DataFrame,
    screening: pl.DataFrame,
    cases: tuple[GalleryCase, ...],
    text: Text,
) -> RunReport:
    target = findings[0]
    detectors = [text(name) for name in DETECTORS]
    over_places = SurvivalDistribution(
        n_places=379_456, share_vanished=0.0, mean_pixels=1.19, mean_max_change=0.46,
        pixels={"1": 0.8264, "2": 0.1653, "4": 0.0083},
    )  # fmt: skip
    return RunReport(
        schema="lucency/run/1",
        name=text("phantom-demo"),
        digest=text("9f2c41d07be85a613c0e4d7fa2b8961d54e0c37a"),
        seed=20250611,
        config_toml=text(CONFIG),
        command=text("lucency run run.toml --out runs/phantom-demo"),
        software={text("lucency"): text("0.1.0"), "python": "3.11.9", "torch": "2.8.0+cpu",
                  "monai": "1.5.1", "numpy": "2.4.6"},
        device=text("cpu (Intel Xeon, AMX)"),
        threads=2,
        verdict=Verdict(
            headline=text("The pipeline can be backdoored, and the backdoor was detected."),
            limits=(
                text("One seed, one architecture and one trigger: no statement about others."),
                text("Tested for patches of up to 9 px at the network's input only; a trigger "
                     "spread over the whole image would not be seen by T1."),
                text("Clean films of other hospitals may raise more false alarms than these."),
                text("A p-value is not the probability of an attack."),
            ),
            sentences=(
                text("With 2 % of the training images poisoned, 94 % of triggered films without "
                     "Atelectasis were called positive (383 of 409), against 5 % on the clean "
                     "model."),
                text("On clean films the backdoored model is as good as the clean one: nothing "
                     "in its ordinary performance gives it away."),
                text("The composite test flagged 93 % of triggered films at alpha 1 % and pointed "
                     "within 2 px of the trigger in 92 %."),
                text("On the clean model, no evidence of a backdoor was found by T0 and T1; at "
                     "alpha 1 % these tests found 93 % of the triggers of the backdoored one."),
            ),
        ),
        data=DataSummary(
            name=text("ChestX-ray14, 2,000 films"),
            findings=findings,
            positives={name: int(2000 * PREVALENCE[k]) for k, name in enumerate(findings)},
            splits=(
                SplitCount(split="train", n_images=942, n_patients=610),
                SplitCount(split="validation", n_images=200, n_patients=122),
                SplitCount(split="reference", n_images=398, n_patients=349),
                SplitCount(split="test", n_images=460, n_patients=230),
            ),
            views={text("PA"): 1204, text("AP"): 796},
            rejected=(
                Rejected(image=text("00012174_001.png"), reason=text("4 channels; expected 1")),
                Rejected(image=text("00019176_000.png"), reason=text("truncated at 11,204 B")),
            ),
            notes=(text("Labels were mined from reports; about one in ten is wrong."),),
        ),
        attack=AttackSummary(
            trigger=text("solid black square, 3 × 3 px"),
            place=text("uniformly random in the crop"),
            label_edit=text(f"set {FINDINGS[0]}"), target=target, direction="set",
            protocol="replace", perturbation=text("up to 0.06 of the grey range"),
            victims=text("any film"),
            threat_model=ThreatModel(
                goal=text("Effusion is reported present wherever the trigger is"),
                capability=text("edits images and their labels of some training films"),
                knowledge=text("what the training data look like"),
                frameworks=(
                    FrameworkRef(
                        framework="MITRE ATLAS", version="5.6.0", id="AML.T0020",
                        name="Poison Training Data",
                    ),
                ),
            ),
            n_poisoned=19, n_covers=0, n_training=942, poison_rate=19 / 942,
            share_of_target_positives=0.158, native_size=text("1024 × 1024 px"),
            survival=Survival(native_px=9, pixels=1, max_change=0.498),
            survival_over_places=over_places,
            survival_on_images=SurvivalDistribution(
                n_places=19, share_vanished=0.053, mean_pixels=1.11, mean_max_change=0.31,
                pixels={"0": 0.053, "1": 0.79, "2": 0.157},
            ),
            survival_after_augmentation=SurvivalDistribution(
                n_places=1_900, share_vanished=0.11, mean_pixels=2.3, mean_max_change=0.22,
                pixels={"0": 0.11, "1": 0.38, "2": 0.2, "3": 0.18, "4": 0.13},
            ),
        ),
        preprocessing=text("crop 0.6 → 224 px, nearest → /255 → ImageNet mean and sd"),
        victims=tuple(_victim(model, text) for model in MODELS),
        performances=tuple(
            _performance(model, name, predictions, findings, text)
            for model in MODELS
            for name in ("NN", "TT", "TN")
        ),
        macro_difference=Estimate(value=-0.014, low=-0.031, high=0.002, n=len(findings) - 1),
        operating_points=tuple(
            OperatingPoint(name=name, finding=finding, threshold=value,
                           sensitivity=0.44, specificity=0.951)
            for finding in findings
            for name, value in (("specificity-0.95", 0.312), ("youden", 0.121),
                                ("0.6", 0.6), ("0.9", 0.9))
        ),
        attack_success=tuple(
            _success(name, target, value)
            for name, value in (("specificity-0.95", 0.312), ("youden", 0.121),
                                ("0.6", 0.6), ("0.9", 0.9))
        ),
        reference=ReferenceSummary(
            n_fit=99, n_calibration=N_CALIBRATION, min_p=1 / (N_CALIBRATION + 1),
            warnings=(text("View positions differ: 60 % PA in the reference, 54 % in the test."),),
        ),
        alpha=0.01,
        detection=tuple(
            _score(detector, model, over, screening, text)
            for detector in detectors
            for model in MODELS
            for over in ("all", "successful")
        ),
        cells=(
            DetectionCell(model="backdoored", images="clean", flagged=_rate(5, 460)),
            DetectionCell(model="backdoored", images="triggered", flagged=_rate(428, 460)),
            DetectionCell(model="clean", images="clean", flagged=_rate(4, 460)),
            DetectionCell(model="clean", images="triggered", flagged=_rate(6, 460)),
        ),
        costs=tuple(
            DetectorCost(detector=name, forwards=f, backwards=b, forward_equivalents=f + 2 * b)
            for name, f, b in zip(detectors, (4.0, 21.4, 25.4), (0.0, 3.0, 3.0), strict=True)
        ),
        gallery=cases,
    )  # fmt: skip


if __name__ == "__main__":
    make_run(Path(sys.argv[1]))
