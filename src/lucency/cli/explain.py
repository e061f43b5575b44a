"""`lucency explain`: where did the model look?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucency.cli.answers import answer, console, progress_for
from lucency.cli.options import REJECTED, Json, RunCode


def explain(
    images: Annotated[list[Path], typer.Argument(help="PNG or JPEG files.")],
    model: Annotated[Path, typer.Option(help="Folder with a model.toml, or the card itself.")],
    finding: Annotated[list[str], typer.Option(help="F, or F,F2,…, or all.")],
    method: Annotated[
        list[str] | None, typer.Option(help="M, or M,M2,…, or all; gradient-median if left out.")
    ] = None,
    layer: Annotated[
        str | None, typer.Option(help="The module to look at, for methods that look at one.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for pictures, maps and explain.json.")
    ] = Path("explained"),
    run_code: RunCode = False,
    as_json: Json = False,
) -> None:
    """Where did the model look? Pictures and raw maps of findings, by one or more methods."""
    from lucency.explaining import explain_files
    from lucency.explaining.words import in_words, warnings_of

    record = explain_files(
        images,
        model,
        out,
        findings=finding,
        methods=method or ("gradient-median",),
        layer=layer,
        run_code=run_code,
        progress=progress_for(as_json),
    )
    for warning in warnings_of(record):
        console.print(warning, style="yellow", markup=False, soft_wrap=True)
    found = {"folder": str(out), **record.model_dump(mode="json", by_alias=True)}
    answer(found, in_words(record, out), as_json)
    if record.rejected:
        raise typer.Exit(REJECTED)
