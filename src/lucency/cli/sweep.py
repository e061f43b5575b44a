"""`lucency sweep`: a grid of experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucency.cli.answers import answer, device, pool, progress_for, read_report
from lucency.cli.options import REJECTED, DataPath, Gpus, Json, RayAddress, Workers


def sweep(
    grid: Annotated[Path, typer.Argument(help="SWEEP.toml", metavar="SWEEP")],
    data: DataPath = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for runs, tables and report.")
    ] = Path("sweep"),
    workers: Workers = None,
    ray: RayAddress = None,
    gpus: Gpus = 0.0,
    as_json: Json = False,
) -> None:
    """Carry out a grid of experiments: how much poison does it take? Continues where it was
    killed."""
    from lucency.config import load_toml
    from lucency.sweep import SweepSettings, describe_sweep
    from lucency.sweep import sweep as run_sweep

    settings = load_toml(grid, SweepSettings)
    folder = run_sweep(
        settings,
        grid.absolute().parent,
        out,
        pool(workers, ray, gpus),
        file=grid.name,
        sweep_toml=grid.read_text(encoding="utf-8"),
        command=f"lucency sweep {grid.name}",
        device=device(ray, gpus),
        data=data,
        progress=progress_for(as_json),
    )
    report = read_report(folder)
    answer(report, f"{describe_sweep(folder)}\n\nReport: {report['report']}", as_json)
    if report["failed"]:
        raise typer.Exit(REJECTED)
