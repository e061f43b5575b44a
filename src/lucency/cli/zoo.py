"""`lucency zoo`: models with a known truth."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from lucency.cli.answers import answer, device, pool, progress_for
from lucency.cli.options import REJECTED, DataPath, Gpus, Json, RayAddress, Workers


def build(
    settings: Annotated[
        Path | None, typer.Argument(help="ZOO.toml; ours if none is named.", metavar="[ZOO]")
    ] = None,
    data: DataPath = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the models.")] = Path("zoo"),
    workers: Workers = None,
    ray: RayAddress = None,
    gpus: Gpus = 0.0,
    as_json: Json = False,
) -> None:
    """Train clean and backdoored models, from a seed each. Continues where it was killed."""
    from lucency.config import load_toml
    from lucency.zoo import ZooSettings, build_zoo, describe_zoo

    with resources.as_file(resources.files("lucency") / "zoo" / "zoo.toml") as ours:
        path = settings or ours
        folder = build_zoo(
            load_toml(path, ZooSettings),
            path.absolute().parent,
            out,
            pool(workers, ray, gpus),
            file=path.name,
            command="lucency zoo build" + (f" {settings.name}" if settings else ""),
            device=device(ray, gpus),
            data=data,
            progress=progress_for(as_json),
        )
    report = json.loads((folder / "zoo.json").read_text(encoding="utf-8"))
    answer({"folder": str(folder), **report}, describe_zoo(folder), as_json)
    if report["failed"]:
        raise typer.Exit(REJECTED)
