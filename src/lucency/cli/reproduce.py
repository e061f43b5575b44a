"""`lucency reproduce`: the published experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lucency.cli.answers import answer, device, in_words, pool, progress_for, read_report
from lucency.cli.options import Gpus, Json, RayAddress, Workers
from lucency.errors import ConfigError


def reproduce(
    what: Annotated[Literal["paper"], typer.Argument(help="paper")],
    data: Annotated[
        Path | None,
        typer.Option(help="ChestX-ray14 as NIH distributes it; none = synthetic films."),
    ] = None,
    grid: Annotated[
        Literal["small", "published"], typer.Option(help="A part of the published grid, or all.")
    ] = "small",
    correct: Annotated[
        str, typer.Option(help="Pitfalls that the corrected variant corrects: P1,P3,… or all.")
    ] = "all",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for sweeps, tables and report.")
    ] = Path("reproduction"),
    workers: Workers = None,
    ray: RayAddress = None,
    gpus: Gpus = 0.0,
    as_json: Json = False,
) -> None:
    """Repeat the published experiment, with its pitfalls and without. Continues where it was
    killed."""
    from lucency.paper import in_settings
    from lucency.paper import reproduce as run_reproduction

    known = in_settings()
    chosen = known if correct == "all" else tuple(p.strip() for p in correct.split(","))
    for pitfall in chosen:
        if pitfall not in known:
            raise ConfigError(
                f"--correct must be of {', '.join(known)}, or all, got {pitfall!r}; the others lie "
                "in how the experiment is read, and the page shows both."
            )
    folder = run_reproduction(
        out,
        pool(workers, ray, gpus),
        data=data,
        grid=grid,
        corrected=chosen,
        command=f"lucency reproduce {what} --grid {grid} --correct {correct}",
        device=device(ray, gpus),
        progress=progress_for(as_json),
    )
    report = read_report(folder)
    answer(report, in_words(report), as_json)
