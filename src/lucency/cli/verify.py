"""`lucency verify`: is a run folder intact?"""

from __future__ import annotations

from pathlib import Path

import typer

from lucency.cli.answers import answer
from lucency.cli.options import Json


def verify(folder: Path, as_json: Json = False) -> None:
    """Does this run folder still hold what its manifest says?"""
    from lucency.config_faults import shown
    from lucency.errors import IntegrityError
    from lucency.runs import verify as differences_of

    differences = differences_of(folder)
    answer(
        {"folder": str(folder), "intact": not differences, "differences": differences},
        "\n".join(shown(d) for d in differences) or f"{folder} is intact.",
        as_json,
    )
    if differences:
        raise typer.Exit(IntegrityError.exit_code)
