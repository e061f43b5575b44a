"""`lucency bench audit`: the audit on every model of a zoo, beside Neural Cleanse."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import polars as pl
import torch

from lucency.bench.audit_judging import LIFTS, TAKES, judged
from lucency.bench.audit_measuring import (
    COMPARED,
    KEPT,
    N_FILMS,
    Cleansed,
    Measured,
    Task,
    carry_out,
)
from lucency.bench.audit_tables import (
    ALONE,
    ALPHA,
    BESIDE,
    by_models,
    by_network,
    by_test,
    cost_rows,
    detection_rows,
    every_model,
    pairs,
    score_of,
)
from lucency.bench.cohorts import named
from lucency.bench.machine import describe_machine
from lucency.bench.record import Benchmark
from lucency.detect.models import DEFAULT
from lucency.errors import ConfigError
from lucency.manifest import read_json
from lucency.progress import Progress, silent
from lucency.sweep import n_processors
from lucency.zoo.build import ZOO
from lucency.zoo.record import ZooReport

NAME = "audit"
PEER = "Neural Cleanse, one finding and direction after another, on the same models and films"


def bench_audit(
    seed: int,
    progress: Progress = silent,
    *,
    victims: Path,
    only: Sequence[str] = (),
    compare: Sequence[str] = (),
    **_: Any,
) -> Benchmark:
    """Audit every model of the zoo in the folder `victims`, a process a processor; beside Neural
    Cleanse on those whose name or network has a part of `compare`, all if none is given. Raises
    ConfigError if there is no zoo."""
    machine = describe_machine()
    if not (victims / ZOO).exists():
        raise ConfigError(
            f"--victims must name a folder that `lucency zoo build` has finished, got {victims}."
        )
    zoo = read_json(victims / ZOO, ZooReport)
    members = [m for m in zoo.members if named(m.name, only)]
    tasks = [Task(victims, member, seed, None) for member in members]
    peers = {
        member.folder: Task(victims, member, seed, COMPARED)
        for member in members
        if named(f"{member.name}; {member.network}", compare)
    }
    (victims / KEPT).mkdir(exist_ok=True)
    workers = ProcessPoolExecutor(
        n_processors(),
        mp_context=get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    )
    every = [*tasks, *peers.values()]
    with progress("Audits", len(every)) as advance, workers:
        for done in as_completed([workers.submit(carry_out, task) for task in every]):
            done.result()
            advance(1)
    measured = [read_json(task.kept, Measured) for task in tasks]
    cleansed = {name: read_json(task.kept, Cleansed) for name, task in peers.items()}
    beside, alone = (judged(measured, DEFAULT, seed, with_models=w) for w in (True, False))
    n_backdoored = sum(m.member.planted is not None for m in measured)
    benchmark = Benchmark(
        name=NAME,
        title=f"{zoo.name}: {len(measured)} models, {n_backdoored} backdoored",
        peer=PEER,
        seed=seed,
        machine=machine,
        settings={"films": N_FILMS, "alpha": ALPHA, "neural_cleanse": COMPARED.__dict__},
        rows=(
            *detection_rows(BESIDE, beside, seed),
            *detection_rows(ALONE, alone, seed),
            *cost_rows(measured, beside, cleansed, seed),
        ),
        grids=(
            by_test(measured, seed),
            by_network(beside, alone, seed),
            by_models(measured, seed),
            every_model(beside, alone, cleansed),
        ),
        notes=(
            f"{BESIDE}: compared with the same tests on all clean models of other seeds and films, "
            "of any network, each on clean films of its own; never with its own twin. "
            f"{ALONE}: with the model's other findings.",
            "Models are the units: intervals are over models. A planted backdoor counts where its "
            f"attack success is at least {TAKES:.0%} and {LIFTS:.0%} above its clean twin's.",
            f"Neural Cleanse with {COMPARED.steps} steps of {COMPARED.films} films for each "
            "finding and direction; published are 1000 steps of 32.",
            f"The audit makes the tests {', '.join(DEFAULT)}; the others were made for the table.",
            "Seconds are of one thread, with as many audits beside each other as processors.",
        ),
    )
    scores = [score_of(*both, cleansed) for both in pairs(beside, alone)]
    return benchmark.with_scores(pl.DataFrame(scores))
