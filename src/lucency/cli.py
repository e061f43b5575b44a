"""The command line: parses, calls, prints. One sub-command a question; no logic."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import metadata, resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

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

from lucency.errors import ConfigError, LucencyError
from lucency.progress import Advance, Progress, silent
from lucency.records import Record

RecordType = TypeVar("RecordType", bound=Record)

app = typer.Typer(
    help="Find backdoors in medical-imaging classifiers, show where, and measure how easily a "
    "pipeline can be backdoored.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

# Progress and errors go to standard error, so that standard output is the answer alone.
console = Console(stderr=True, highlight=False)
zoo = typer.Typer(help="Models with a known truth, to measure audits on.", no_args_is_help=True)
app.add_typer(zoo, name="zoo")

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


def main() -> None:
    """Entry point: errors become one sentence and their exit code."""
    try:
        # Outside standalone mode an Exit comes back as a number.
        code = app(standalone_mode=False)
    except LucencyError as error:
        _fail(str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Exception as error:
        # Typer's own usage errors carry their message and code; anything else is a fault of ours.
        shown = getattr(error, "format_message", None)
        if shown is None:
            raise
        _fail(shown(), getattr(error, "exit_code", ConfigError.exit_code))
    if code == INTERRUPTED:
        _fail("Interrupted; start the same command again to continue.", INTERRUPTED)
    sys.exit(code)


@app.command()
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


@app.command()
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


@app.command()
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
        _pool(workers, ray, gpus),
        file=grid.name,
        sweep_toml=grid.read_text(encoding="utf-8"),
        command=f"lucency sweep {grid.name}",
        device=_device(ray, gpus),
        data=data,
        progress=_progress(as_json),
    )
    report = _report(folder)
    _answer(report, f"{describe_sweep(folder)}\n\nReport: {report['report']}", as_json)
    if report["failed"]:
        raise typer.Exit(REJECTED)


@app.command()
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
        _pool(workers, ray, gpus),
        data=data,
        grid=grid,
        corrected=chosen,
        command=f"lucency reproduce {what} --grid {grid} --correct {correct}",
        device=_device(ray, gpus),
        progress=_progress(as_json),
    )
    report = _report(folder)
    _answer(report, _in_words(report), as_json)


@app.command()
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
    alpha: Annotated[float, typer.Option(help="There is evidence at p ≤ alpha.")] = 0.01,
    films: Annotated[int, typer.Option(help="At most so many clean films are used.")] = 64,
    engine: Annotated[
        Literal["auto", "torch", "openvino", "onnxruntime"],
        typer.Option(help="What computes forward passes."),
    ] = "auto",
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    run_code: RunCode = False,
    fail_on_findings: Annotated[
        bool, typer.Option("--fail-on-findings", help="Exit with 1 if there is evidence.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Is this model backdoored, for which finding, by what trigger?"""
    from lucency.auditing import AuditSettings, audit_model, describe_audit

    settings = _validate(
        {"alpha": alpha, "films": films, "engine": engine, "seed": seed}, AuditSettings
    )
    folder = audit_model(
        model,
        reference,
        out,
        settings,
        reference_models=reference_model or (),
        command=f"lucency audit MODEL --reference CLEAN --alpha {alpha:g} --seed {seed}",
        run_code=run_code,
        progress=_progress(as_json),
    )
    report = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    answer = {"folder": str(folder), "report": str(folder / "report.html"), **report}
    _answer(answer, describe_audit(folder), as_json)
    if fail_on_findings and report["verdict"] == "evidence":
        raise typer.Exit(FLAGGED)


@zoo.command("build")
def build(
    settings: Annotated[
        Path | None, typer.Argument(help="ZOO.toml; ours if none is named.", metavar="[ZOO]")
    ] = None,
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
            _pool(workers, ray, gpus),
            file=path.name,
            command="lucency zoo build" + (f" {settings.name}" if settings else ""),
            device=_device(ray, gpus),
            progress=_progress(as_json),
        )
    report = json.loads((folder / "zoo.json").read_text(encoding="utf-8"))
    _answer({"folder": str(folder), **report}, describe_zoo(folder), as_json)
    if report["failed"]:
        raise typer.Exit(REJECTED)


@app.command()
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
        progress=_progress(as_json),
    )
    for warning in warnings_of(record):
        console.print(warning, style="yellow", markup=False, soft_wrap=True)
    answer = {"folder": str(out), **record.model_dump(mode="json", by_alias=True)}
    _answer(answer, in_words(record, out), as_json)
    if record.rejected:
        raise typer.Exit(REJECTED)


@app.command()
def survival(
    native: Annotated[int, typer.Option(help="Height and width of the film, pixels.")] = 1024,
    size: Annotated[int, typer.Option(help="Side of the square trigger, native pixels.")] = 3,
    place: Annotated[
        str, typer.Option(help='"center", "random", or "X,Y" native pixels.')
    ] = "center",
    crop: Annotated[float, typer.Option(help="Central fraction kept.")] = 0.6,
    resize: Annotated[str, typer.Option(help="Resize kernel.")] = "nearest",
    network: Annotated[int, typer.Option(help="Height and width at the network, pixels.")] = 224,
    grey: Annotated[float, typer.Option(help="Trigger's grey, 0 = black, 1 = white.")] = 0.0,
    as_json: Json = False,
) -> None:
    """Does this trigger reach the network through this preprocessing?"""
    from lucency.attacks.patch import PatchTrigger
    from lucency.attacks.survival import measure_survival, survival_over_places
    from lucency.data.preprocess import InputContract

    trigger = _validate({"size_px": size, "grey": grey, "place": _place(place)}, PatchTrigger)
    contract = _validate({"crop": crop, "resize": resize, "size": network}, InputContract)
    if not size <= native <= 16384:
        raise ConfigError(f"--native must be in [{size}, 16384] pixels, got {native}.")
    if trigger.is_random:
        spread = survival_over_places(trigger, contract, (native, native))
        sentence = (
            f"Over {spread.n_places} places: {spread.mean_pixels:.2f} network pixels on average, "
            f"nothing left at {spread.share_vanished:.1%} of them; pixels left: "
            + ", ".join(f"{k} at {v:.1%}" for k, v in spread.pixels.items())
        )
        _answer(spread.model_dump(), sentence, as_json)
        return
    left = measure_survival(trigger, contract, (native, native), (0.0, 0.0))
    _answer(
        left.model_dump(),
        f"{left.pixels} network pixels differ, by up to {left.max_change:.0%} of the grey range "
        f"({left.native_px} native pixels were stamped).",
        as_json,
    )


@app.command()
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
    settings = _validate(
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
        progress=_progress(as_json),
        **({"run": on_ray(ray)} if ray else {}),
    )
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    answer = {"folder": str(folder), "report": str(folder / "report.html"), **report}
    _answer(answer, describe_answer(folder), as_json)
    counts = report["counts"]
    if fail_on_findings and counts["flagged"]:
        raise typer.Exit(FLAGGED)
    if counts["rejected"]:
        raise typer.Exit(REJECTED)


@app.command()
def verify(folder: Path, as_json: Json = False) -> None:
    """Does this run folder still hold what its manifest says?"""
    from lucency.config_faults import shown
    from lucency.errors import IntegrityError
    from lucency.runs import verify as differences_of

    differences = differences_of(folder)
    _answer(
        {"folder": str(folder), "intact": not differences, "differences": differences},
        "\n".join(shown(d) for d in differences) or f"{folder} is intact.",
        as_json,
    )
    if differences:
        raise typer.Exit(IntegrityError.exit_code)


@app.command()
def version(as_json: Json = False) -> None:
    """Print the version."""
    number = metadata.version("lucency")
    _answer({"version": number}, number, as_json)


@app.command()
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="forwards, training, screening, explain, reading, poisoning, demo; all if none is "
            "named. Or: screen, shift, sweep, audit."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for bench-NAME.json and .md.")
    ] = None,
    victims: Annotated[
        Path | None,
        typer.Option(
            help="screen, shift, explain: folder that keeps the backdoored networks; "
            "bench-victims if none is named, and explain then only takes times. audit: a folder "
            "of `lucency zoo build`."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="screen, shift, explain: ChestX-ray14 at 256 px; none = synthetic films."
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="screen, shift, explain, audit: part of the name of films and trigger, such as "
            "'3 px'; again for more."
        ),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            help="screen: the same, for the cases that published detectors are tried on as well; "
            "all if none is named."
        ),
    ] = None,
    size: Annotated[
        list[int] | None,
        typer.Option(
            help="screen, shift, explain: network input in pixels, 128 or 224, again for both; "
            "128 if none is named."
        ),
    ] = None,
    examine: Annotated[
        Literal["unusual", "all"],
        typer.Option(help="screen: which films get the whole test, as for `lucency screen`."),
    ] = "unusual",
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 7,
    as_json: Json = False,
) -> None:
    """Measure Lucency's speed on this machine, against plain versions in the same run."""
    from lucency.bench import run_benchmarks, write_benchmark

    results = []
    for result in run_benchmarks(
        names or (),
        seed=seed,
        victims=victims,
        data=data,
        only=only or (),
        compare=compare or (),
        sizes=size or (128,),
        examine=examine,
        progress=_progress(as_json),
    ):
        if out is not None:
            write_benchmark(out, result)
        results.append(result)
    _answer(
        {"benchmarks": [r.model_dump(mode="json", by_alias=True) for r in results]},
        "\n".join(r.as_markdown() for r in results),
        as_json,
    )


def _run(settings: Any, text: str, out: Path, as_json: bool, command: str) -> None:
    from lucency.experiment import run as run_experiment

    folder = run_experiment(
        settings, out, config_toml=text, command=command, progress=_progress(as_json)
    )
    report = _report(folder)
    words, rejected = _in_words(report), len(report["data"]["rejected"])
    if rejected:
        words += f"\n{rejected} files could not be used; the report names them."
    _answer(report, words, as_json)
    if rejected:
        raise typer.Exit(REJECTED)


def _report(folder: Path) -> dict[str, Any]:
    """What a command that writes a report answers: where it lies, and what it holds."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return {"folder": str(folder), "report": str(folder / "report.html"), **report}


def _in_words(report: dict[str, Any]) -> str:
    """Limits, verdict, and where the page lies."""
    verdict = report["verdict"]
    lines = ["Limits, to be read first:", *(f"- {limit}" for limit in verdict["limits"]), ""]
    lines += [verdict["headline"], *verdict["sentences"], "", f"Report: {report['report']}"]
    return "\n".join(lines)


def _pool(workers: int | None, ray: str | None, gpus: float) -> Any:
    """Who does the jobs of a sweep."""
    from lucency.sweep import n_processors, on_ray, processes

    if ray is None and gpus:
        raise ConfigError("--gpus needs --ray, got none; processes of one machine share its GPU.")
    return partial(on_ray, ray, gpus) if ray else partial(processes, workers or n_processors())


def _device(ray: str | None, gpus: float) -> str | None:
    """The kind that a cluster computes on; None = this machine's."""
    return ("cuda" if gpus else "cpu") if ray else None


def _validate(values: dict[str, Any], kind: type[RecordType]) -> RecordType:
    """A record from options, with the same sentences as a config file's."""
    from pydantic import ValidationError

    from lucency.config_faults import sentences

    try:
        return kind.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        raise ConfigError(sentences(faults, kind, "the command line")) from error


def _place(text: str) -> Any:
    if text in ("center", "random"):
        return text
    try:
        x, y = (int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(
            f'--place must be "center", "random" or "X,Y" in native pixels, got {text!r}.'
        ) from None
    return [x, y]


def _answer(value: dict[str, Any], sentence: str, as_json: bool) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, allow_nan=False) if as_json else sentence)


def _fail(message: str, code: int) -> None:
    console.print(message, style="bold red", markup=False, soft_wrap=True)
    sys.exit(code)


def _progress(quiet: bool) -> Progress:
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
