"""Mixed test sets: a share of the films is triggered and has the attacker's labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from lucency.attacks.label_edits import LabelEdit
from lucency.evaluate.performance import micro_floor
from lucency.evaluate.ranking import auroc
from lucency.experiment.stages import macro_auroc
from lucency.paper.protocol import EPSILONS
from lucency.records import FloatArray
from lucency.report.paper_record import MixedScore


def mixed_scores(predictions: Path, label: LabelEdit, seed: int) -> list[MixedScore]:
    """Of a run's backdoored model, from its `predictions.parquet`: micro AUROC, its floor and macro
    AUROC for each share of triggered films, which are drawn from the seed, the same ones first."""
    table = pl.read_parquet(predictions).filter(
        (pl.col("model") == "backdoored") & (pl.col("split") == "test")
    )
    findings = tuple(table["finding"].unique(maintain_order=True))
    clean, triggered = (
        _matrices(table, condition, findings) for condition in ("clean", "triggered")
    )
    edited = label.apply(triggered[0], findings)
    n = len(edited)
    order = np.random.default_rng([seed, 0x31D]).permutation(n)
    scores = []
    for share in EPSILONS:
        chosen = np.zeros(n, dtype=np.bool_)
        chosen[order[: round(share * n)]] = True
        labels = np.where(chosen[:, None], edited, clean[0])
        probabilities = np.where(chosen[:, None], triggered[1], clean[1])
        known = ~np.isnan(labels)
        scores.append(
            MixedScore(
                epsilon=share,
                micro_auroc=auroc(labels[known], probabilities[known]),
                micro_floor=micro_floor(labels),
                macro_auroc=macro_auroc(labels, probabilities),
            )
        )
    return scores


def _matrices(
    table: pl.DataFrame, condition: str, findings: tuple[str, ...]
) -> tuple[FloatArray, FloatArray]:
    """Labels and probabilities (N, K) of a condition, films in the order of the table."""
    part = table.filter(pl.col("condition") == condition)
    shape = (-1, len(findings))
    labels = part["label"].fill_null(float("nan")).to_numpy().reshape(shape)
    return labels.astype(np.float32), part["probability"].to_numpy().reshape(shape)
