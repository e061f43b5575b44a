"""`lucency screen`: has an image been triggered?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucency.cli.answers import answer, progress_for, read_report, validate
from lucency.cli.options import FLAGGED, REJECTED, Json, RayAddress, RunCode


def screen(
    images: Annotated[list[Path], typer.Argument(help="Image files, and folders of them.")],
    model: Annotated[Path, typer.Option(help="Folder with model.toml and weights.")],
    reference: Annotated[
        Path, typer.Option(help="Folder of clean images of the same kind; labels.csv if there.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the answer.")],
    alpha: Annotated[float, typer.Option(help="Flag an image if p is at most this.")] = 0.01,
    fdr: Annotated[float, typer.Option(help="False discovery rate over the batch.")] = 0.1,
    examine: Annotated[
        str, typer.Option(help='Whole test of "unusual" images, or of "all" at 4 × the passes.')
    ] = "unusual",
    calibrate: Annotated[
        str, typer.Option(help='"reference", or "suspects": their own clean majority.')
    ] = "reference",
    covering: Annotated[
        str, typer.Option(help='Covering scan of "never", "flagged" or "all" images.')
    ] = "never",
    engine: Annotated[
        str, typer.Option(help='"auto", "torch", "openvino" or "onnxruntime".')
    ] = "auto",
    ray: RayAddress = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
    hide_names: Annotated[
        bool, typer.Option("--hide-names", help="Number the images in place of their names.")
    ] = False,
    fail_on_findings: Annotated[
        bool, typer.Option("--fail-on-findings", help="Exit with 1 if an image is flagged.")
    ] = False,
    run_code: RunCode = False,
    as_json: Json = False,
) -> None:
    """Has an image been triggered, and where? Continues where it was killed."""
    from lucency.screening import ScreenSettings, describe_answer, on_ray, screen_images

    options = {
        "alpha": alpha,
        "fdr": fdr,
        "examine": examine,
        "calibrate": calibrate,
        "covering": covering,
    }
    settings = validate(
        {**options, "engine": engine, "seed": seed, "hide_names": hide_names}, ScreenSettings
    )
    folder = screen_images(
        images,
        model,
        reference,
        out,
        settings,
        command=f"lucency screen … --alpha {alpha:g} --examine {examine} --calibrate {calibrate} "
        f"--seed {seed}",
        run_code=run_code,
        progress=progress_for(as_json),
        **({"run": on_ray(ray)} if ray else {}),
    )
    report = read_report(folder)
    answer(report, describe_answer(folder), as_json)
    counts = report["counts"]
    if fail_on_findings and counts["flagged"]:
        raise typer.Exit(FLAGGED)
    if counts["rejected"]:
        raise typer.Exit(REJECTED)
