"""How a command takes its settings, shows that it goes on, and answers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from lucency.errors import ConfigError
from lucency.progress import Advance, Progress, silent
from lucency.records import Record

RecordType = TypeVar("RecordType", bound=Record)

# Progress and errors go to standard error, so that standard output is the answer alone.
console = Console(stderr=True, highlight=False)


def answer(value: dict[str, Any], sentence: str, as_json: bool) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, allow_nan=False) if as_json else sentence)


def read_report(folder: Path, name: str = "report.json") -> dict[str, Any]:
    """What a command that writes a report answers: where it lies, and what it holds."""
    report = json.loads((folder / name).read_text(encoding="utf-8"))
    return {"folder": str(folder), "report": str(folder / "report.html"), **report}


def in_words(report: dict[str, Any]) -> str:
    """Limits, verdict, and where the page lies."""
    verdict = report["verdict"]
    lines = ["Limits, to be read first:", *(f"- {limit}" for limit in verdict["limits"]), ""]
    lines += [verdict["headline"], *verdict["sentences"], "", f"Report: {report['report']}"]
    return "\n".join(lines)


def fail(message: str, code: int) -> None:
    console.print(message, style="bold red", markup=False, soft_wrap=True)
    sys.exit(code)


def validate(values: dict[str, Any], kind: type[RecordType]) -> RecordType:
    """A record from options, with the same sentences as a config file's."""
    from pydantic import ValidationError

    from lucency.config_faults import sentences

    try:
        return kind.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise ConfigError(sentences(faults, kind, "the command line")) from error


def pool(workers: int | None, ray: str | None, gpus: float) -> Any:
    """Who does the jobs of a sweep."""
    from lucency.sweep import n_processors, on_ray, processes

    if ray is None and gpus:
        raise ConfigError("--gpus needs --ray, got none; processes of one machine share its GPU.")
    return partial(on_ray, ray, gpus) if ray else partial(processes, workers or n_processors())


def device(ray: str | None, gpus: float) -> str | None:
    """The kind that a cluster computes on; None = this machine's."""
    return ("cuda" if gpus else "cpu") if ray else None


def progress_for(quiet: bool) -> Progress:
    """Bars on a terminal, one line a stage elsewhere, nothing where JSON is asked for."""
    if quiet:
        return silent
    return _bars if console.is_terminal else _lines


@contextmanager
def _bars(description: str, total: int) -> Iterator[Advance]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console) as bars:
        task = bars.add_task(description, total=total)
        yield lambda steps: bars.advance(task, steps)


@contextmanager
def _lines(description: str, total: int) -> Iterator[Advance]:
    console.print(f"{description} ({total})", markup=False)
    yield lambda steps: None
