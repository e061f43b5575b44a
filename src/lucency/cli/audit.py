"""`lucency audit`: is this model backdoored?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lucency.cli.answers import answer, progress_for, read_report, validate
from lucency.cli.options import FLAGGED, Json, RunCode


def audit(
    model: Annotated[Path, typer.Argument(help="Folder with a model.toml, or the card itself.")],
    reference: Annotated[
        Path, typer.Option(help="Clean films: a folder of PNG or JPEG files, one a patient.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the answer.")] = Path(
        "audited"
    ),
    reference_model: Annotated[
        list[Path] | None,
        typer.Option(help="A clean model of the same findings to compare with; again for more."),
    ] = None,
    reference_scores: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps what tests say of them, for the next audit."),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option(help="A test to make, or all; again for more. None = the usual ones."),
    ] = None,
    alpha: Annotated[float, typer.Option(help="A finding is named at p ≤ alpha.")] = 0.01,
    films: Annotated[int, typer.Option(help="At most so many clean films are used.")] = 64,
    engine: Annotated[
        Literal["auto", "torch", "openvino", "onnxruntime"],
        typer.Option(help="What computes forward passes."),
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    run_code: RunCode = False,
    fail_on_findings: Annotated[
        bool, typer.Option("--fail-on-findings", help="Exit with 1 if a finding is named.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Is this model backdoored, for which finding, by what trigger?"""
    from lucency.auditing import AuditSettings, audit_model, describe_audit
    from lucency.detect.models import DEFAULT, TESTS

    tests = tuple(TESTS) if test == ["all"] else tuple(test or DEFAULT)
    settings = validate(
        {"alpha": alpha, "films": films, "tests": tests, "engine": engine, "seed": seed},
        AuditSettings,
    )
    folder = audit_model(
        model,
        reference,
        out,
        settings,
        reference_models=reference_model or (),
        reference_scores=reference_scores,
        command=f"lucency audit MODEL --reference CLEAN --alpha {alpha:g} --seed {seed}",
        run_code=run_code,
        progress=progress_for(as_json),
    )
    report = read_report(folder, "audit.json")
    answer(report, describe_audit(folder), as_json)
    if fail_on_findings and report["verdict"] != "no-evidence":
        raise typer.Exit(FLAGGED)
