"""`lucency scan`: was this training set poisoned?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucency.cli.answers import answer, progress_for, read_report, validate
from lucency.cli.options import FLAGGED, REJECTED, Json


def scan(
    dataset: Annotated[
        Path,
        typer.Argument(help="Folder with a labels.csv, ChestX-ray14, or a MedMNIST .npz file."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the answer.")] = Path(
        "scanned"
    ),
    alpha: Annotated[float, typer.Option(help="Share of false discoveries.")] = 0.01,
    unexplained: Annotated[
        bool,
        typer.Option("--unexplained", help="Flag films with a mark that nothing explains, too."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    fail_on_findings: Annotated[
        bool, typer.Option("--fail-on-findings", help="Exit with 1 if a film is flagged.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Was this training set poisoned, and by which films?"""
    from lucency.data.sources import source_at
    from lucency.scanning import ScanSettings, describe_scan, scan_data

    settings = validate({"alpha": alpha, "unexplained": unexplained, "seed": seed}, ScanSettings)
    folder = scan_data(
        source_at(dataset),
        out,
        settings,
        command=f"lucency scan DATASET --alpha {alpha:g} --seed {seed}"
        + " --unexplained" * unexplained,
        progress=progress_for(as_json),
    )
    report = read_report(folder, "scan.json")
    answer(report, describe_scan(folder), as_json)
    if fail_on_findings and report["n_flagged"]:
        raise typer.Exit(FLAGGED)
    if report["rejected"]:
        raise typer.Exit(REJECTED)
