"""`lucency bench`: speed and detection, measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from lucency.cli.answers import answer, progress_for
from lucency.cli.options import Json


def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="forwards, training, screening, explain, reading, poisoning, demo; all if none is "
            "named. Or: screen, shift, sweep, audit, scan."
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
            help="screen, shift, explain: ChestX-ray14 at 256 px; scan: any data set; none = "
            "synthetic films."
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
            help="screen, audit: the same, for the cases that published detectors are tried on as "
            "well; all if none is named."
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
        progress=progress_for(as_json),
    ):
        if out is not None:
            write_benchmark(out, result)
        results.append(result)
    answer(
        {"benchmarks": [r.model_dump(mode="json", by_alias=True) for r in results]},
        "\n".join(r.as_markdown() for r in results),
        as_json,
    )
