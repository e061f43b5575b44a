"""`lucency demo`, `lucency run`: one experiment."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from lucency.cli.answers import answer, in_words, progress_for, read_report
from lucency.cli.options import REJECTED, DataPath, Json, Out


def demo(
    out: Out = Path("runs"),
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 7,
    as_json: Json = False,
) -> None:
    """Poison, train, attack, explain, detect and report on synthetic films; about two minutes."""
    from lucency.config import load_toml
    from lucency.experiment import ExperimentSettings

    with resources.as_file(resources.files("lucency") / "demo.toml") as path:
        settings = load_toml(path, ExperimentSettings)
        text = path.read_text(encoding="utf-8")
    settings = settings.model_copy(update={"seed": seed})
    _run(settings, text, out, as_json, command=f"lucency demo --seed {seed}")


def run(
    experiment: Annotated[Path, typer.Argument(help="EXPERIMENT.toml")],
    data: DataPath = None,
    out: Out = Path("runs"),
    as_json: Json = False,
) -> None:
    """Carry out one experiment, from a training set to a report. Continues where it was killed."""
    from lucency.config import load_toml
    from lucency.experiment import ExperimentSettings
    from lucency.experiment.settings import with_data

    settings = load_toml(experiment, ExperimentSettings)
    text = experiment.read_text(encoding="utf-8")
    if data is not None:
        settings = with_data(settings, data, experiment.name)
    _run(settings, text, out, as_json, command=f"lucency run {experiment.name}")


def _run(settings: Any, text: str, out: Path, as_json: bool, command: str) -> None:
    from lucency.experiment import run as run_experiment

    folder = run_experiment(
        settings, out, config_toml=text, command=command, progress=progress_for(as_json)
    )
    report = read_report(folder)
    words, rejected = in_words(report), len(report["data"]["rejected"])
    if rejected:
        words += f"\n{rejected} files could not be used; the report names them."
    answer(report, words, as_json)
    if rejected:
        raise typer.Exit(REJECTED)
