"""Options that several commands share, and what their exit codes mean."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RunCode = Annotated[
    bool,
    typer.Option("--run-code", help="Let the model's card call a function of your own."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
DataPath = Annotated[Path | None, typer.Option(help="Where the data are, in place of [data] path.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder that holds the run folders.")]
RayAddress = Annotated[str | None, typer.Option(help="Address of a Ray cluster, or 'local'.")]
Workers = Annotated[
    int | None,
    typer.Option(min=1, max=1024, help="Processes, of one thread each; all processors."),
]
Gpus = Annotated[
    float, typer.Option(min=0, max=8, help="With --ray: share of a GPU that each run has.")
]
FLAGGED = 1
REJECTED = 3
INTERRUPTED = 130
