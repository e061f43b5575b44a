"""`lucency audit`: from a model and clean films to a folder with the answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from safetensors.numpy import save_file

from lucency.auditing.references import kept
from lucency.auditing.settings import AuditSettings
from lucency.auditing.triggers import N_TRIGGERS, Pictures, show_trigger
from lucency.auditing.words import give_verdict, kind_of
from lucency.data.guard import FileImages
from lucency.data.inputs import as_stored
from lucency.detect.images.reference import one_film_a_patient
from lucency.detect.models import TESTS
from lucency.detect.models.audit import LEAST_MODELS, Audit, audit, scores_of
from lucency.detect.models.subject import DIRECTIONS, LEAST, Subject, subject
from lucency.errors import DataError, ModelError
from lucency.manifest import CHECKPOINT, versions
from lucency.progress import Progress, silent
from lucency.records import Decoded, Image
from lucency.report.audit_page import render_audit
from lucency.report.audit_record import AuditedFinding, AuditNull, AuditReport, AuditTest
from lucency.runs import RunFolder, digest, read_manifest, write_json, write_text, write_via
from lucency.screening.answer import describe_model
from lucency.screening.films import FilmList, list_films
from lucency.screening.run import IDENTITY, Reference, listing, model_digests, read_reference
from lucency.victims.card import load_victim
from lucency.victims.contract_check import check_victim
from lucency.victims.engine import engine_name, with_engine
from lucency.victims.victim import Victim

ONE_REJECTED = "One clean film could not be read."
FEW = 32
"""Clean films below which a search is told to be weak."""


@dataclass(frozen=True)
class Loaded:
    """A model, the clean films as it sees them, and what was noticed."""

    subject: Subject
    reference: Reference
    warnings: tuple[str, ...]


def audit_model(
    model: Path,
    reference: Path,
    out: Path,
    settings: AuditSettings,
    *,
    reference_models: Sequence[Path] = (),
    reference_scores: Path | None = None,
    command: str = "",
    run_code: bool = False,
    progress: Progress = silent,
) -> Path:
    """Audit a model on clean films, write everything into `out`, and return it.

    reference: clean films, a folder or a file. reference_models: clean models of the same findings
    to compare with, at least three. reference_scores: a folder that keeps what the tests say of
    them, for other audits beside the same models; None = until the audit is finished. run_code:
    whether a card may name code that is then called.

    If one model has no gradients, none is asked for any. A finished audit of the same model, films
    and settings is left as it is; one that was killed does not ask a reference model the same test
    again. Raises LucencyError for a model or films that cannot be used, and a folder that cannot be
    written.
    """
    clean = list_films([reference])
    victim, *others = _load_victims((model, *reference_models), settings, run_code)
    identity = _identity(clean, (model, *reference_models), settings, engine_name(victim))
    with RunFolder.at(out) as folder:
        if folder.finished() and read_manifest(out).extra.get("identity") == identity:
            return folder.folder
        folder.clear(keep=[CHECKPOINT])
        started = time.perf_counter()
        main = _load(victim, clean, settings, progress)
        tests = {name: TESTS[name] for name in settings.tests}
        scores = [
            kept(
                scores_of(_load(other, clean, settings, progress).subject, TESTS, settings.seed),
                reference_scores or folder.checkpoint,
                _identity_of_scores(clean, path, settings, other),
            )
            for path, other in zip(reference_models, others, strict=True)
        ]
        found = audit(main.subject, tests, references=scores, seed=settings.seed, progress=progress)
        findings, pictures = _findings(main, found)
        write_via(folder.path("triggers.safetensors"), lambda path: save_file(pictures, path))
        write_via(folder.path("scores.parquet"), _table(victim, found).write_parquet)
        null = AuditNull(
            n_models=len(others) if len(others) >= LEAST_MODELS else 0,
            comparisons=found.null.standardised.size,
            critical=found.null.critical_at(settings.alpha),
        )
        p_value = found.null.p_value
        report = AuditReport(
            verdict=kind_of(p_value, settings.alpha, null),
            p_value=p_value,
            alpha=settings.alpha,
            statistic=found.null.statistic,
            words=give_verdict(findings, p_value, settings.alpha, null),
            warnings=_warnings(main, others),
            model=describe_model(model, victim, main.warnings),
            n_films=len(main.subject.films),
            n_patients=(len(main.subject.films) if main.reference.is_attributed else None),
            rejected=main.reference.rejected,
            null=null,
            findings=findings,
            tests=_tests(victim, found),
            forwards=victim.passes.forwards,
            backwards=victim.passes.backwards,
            seconds=time.perf_counter() - started,
            settings=settings.model_dump(mode="json"),
            command=command,
            software=versions(),
            digests=model_digests(model),
            device=str(victim.device),
            threads=torch.get_num_threads(),
            seed=settings.seed,
        )
        write_json(folder.path("audit.json"), report)
        write_text(folder.path("report.html"), render_audit(folder.folder))
        folder.finish(
            config=settings,
            seed=settings.seed,
            device=report.device,
            threads=report.threads,
            timings={"audit": report.seconds},
            extra={"identity": identity},
        )
        return folder.folder


def _load_victims(paths: Sequence[Path], settings: AuditSettings, run_code: bool) -> list[Victim]:
    """The audited model and those it is compared with. Raises ModelError for other findings."""
    victims = [with_engine(load_victim(path, run_code=run_code), settings.engine) for path in paths]
    wanted = victims[0].findings
    for path, victim in zip(paths, victims, strict=True):
        if victim.findings != wanted:
            raise ModelError(
                f"A reference model must have the findings of the audited one, {len(wanted)} in "
                f"the same order, got {len(victim.findings)} in {path.name}; leave it out."
            )
    # A search with gradients finds more than one without: scores of the two are not alike.
    blind = not all(victim.differentiable for victim in victims)
    return [replace(victim, differentiable=False) if blind else victim for victim in victims]


def _load(victim: Victim, clean: FilmList, settings: AuditSettings, progress: Progress) -> Loaded:
    """The films as this model sees them, one a patient. Raises DataError for too few."""
    chosen = one_film_a_patient(clean.owners(), settings.seed)
    n = settings.films
    reference = read_reference(clean.take(chosen[:n]), victim, progress)
    while len(reference.batch.rows) < settings.films and n < len(chosen):
        # Some could not be read: look at more, never at a whole archive.
        n *= 2
        reference = read_reference(clean.take(chosen[:n]), victim, progress)
    films = reference.batch.images[: settings.films]
    if len(films) < LEAST:
        raise DataError(
            f"Clean films of at least {LEAST} patients were expected, got {len(films)}; give more."
        )
    warnings = check_victim(victim, films)
    return Loaded(subject(victim, films), reference, warnings)


def _findings(main: Loaded, found: Audit) -> tuple[tuple[AuditedFinding, ...], Pictures]:
    """Every finding in both directions, the most suspicious first, and the pictures of some."""
    null, names = found.null, main.subject.victim.findings
    suspicion = null.standardised.max(axis=2)
    order = np.argsort(-suspicion.ravel(), kind="stable")
    film = _film(main)
    pictures: Pictures = {}
    every = []
    for place, item in enumerate(order):
        direction, finding = divmod(int(item), len(names))
        trigger = None
        if place < N_TRIGGERS:
            key = f"trigger-{place + 1}"
            seen = show_trigger(main.subject, found, direction, finding, key, film)
            if seen is not None:
                trigger = seen.trigger
                pictures |= seen.pictures
        evidence, budget = found.best(direction, finding)
        every.append(
            AuditedFinding(
                finding=names[finding],
                direction=DIRECTIONS[direction],
                suspicion=float(suspicion[direction, finding]),
                p_value=float(null.p_values[direction, finding]),
                test=evidence.test,
                budget=evidence.budgets[budget],
                trigger=trigger,
            )
        )
    return tuple(every), {name: np.ascontiguousarray(value) for name, value in pictures.items()}


def _film(main: Loaded) -> Image:
    """The first clean film as stored."""
    row = int(main.reference.batch.rows[0])
    with FileImages(main.reference.films.paths) as files:
        (read,) = files.read([row], as_stored)
    if not isinstance(read, Decoded):
        raise DataError(f"A reference film that was read before must be readable: {read[1]}")
    return read.image


def _tests(victim: Victim, found: Audit) -> tuple[AuditTest, ...]:
    made = []
    for each in found.made:
        where = np.unravel_index(each.null.standardised.argmax(), each.null.standardised.shape)
        direction, finding, budget = (int(i) for i in where)
        made.append(
            AuditTest(
                name=each.evidence.test,
                needs=each.evidence.needs,
                statistic=each.null.statistic,
                p_value=each.null.p_value,
                finding=victim.findings[finding],
                direction=DIRECTIONS[direction],
                budget=each.evidence.budgets[budget],
                forwards=each.passes.forwards,
                backwards=each.passes.backwards,
                seconds=each.seconds,
            )
        )
    skipped = (
        AuditTest(name=name, needs="", reason=reason) for name, reason in found.skipped.items()
    )
    return (*made, *skipped)


def _table(victim: Victim, found: Audit) -> pl.DataFrame:
    """A row a test, budget, direction and finding."""
    rows, at = [], 0
    for made in found.made:
        for budget, words in enumerate(made.evidence.budgets):
            for direction, finding in np.ndindex(*found.null.p_values.shape):
                rows.append(
                    {
                        "test": made.evidence.test,
                        "budget": words,
                        "direction": DIRECTIONS[direction],
                        "finding": victim.findings[finding],
                        "score": float(made.evidence.scores[direction, finding, budget]),
                        "standardised": float(
                            found.null.standardised[direction, finding, at + budget]
                        ),
                    }
                )
        at += len(made.evidence.budgets)
    return pl.DataFrame(rows)


def _warnings(main: Loaded, others: Sequence[Victim]) -> tuple[str, ...]:
    n = len(main.subject.films)
    found = []
    if n < FEW:
        found.append(f"Only {n} clean films (one a patient): the search is weak below {FEW}.")
    if not main.reference.is_attributed:
        found.append("Nobody said which patient a film is of; each counts as one of its own.")
    if main.reference.rejected:
        bad = len(main.reference.rejected)
        found.append(f"{bad} clean films could not be read." if bad > 1 else ONE_REJECTED)
    if len({main.subject.side, *(other.contract.size for other in others)}) > 1:
        found.append("Reference models of other input sizes say less of what is usual.")
    if 0 < len(others) < LEAST_MODELS:
        found.append(
            f"{len(others)} of at least {LEAST_MODELS} reference models: too few to compare with, "
            "left aside."
        )
    return tuple(found)


def _identity_of_scores(
    clean: FilmList, model: Path, settings: AuditSettings, victim: Victim
) -> str:
    """Of all that scores of a reference model depend on."""
    return digest(
        {
            "films": listing(clean),
            "at most": settings.films,
            "seed": settings.seed,
            "model": model_digests(model),
            "engine": engine_name(victim),
            "gradients": victim.differentiable,
            "versions": {k: v for k, v in versions().items() if k in IDENTITY},
            "threads": torch.get_num_threads(),
        }
    )


def _identity(clean: FilmList, models: Sequence[Path], settings: AuditSettings, engine: str) -> str:
    return digest(
        {
            "settings": settings,
            "engine": engine,
            "films": listing(clean),
            "models": [model_digests(model) for model in models],
            "versions": {k: v for k, v in versions().items() if k in IDENTITY},
            "threads": torch.get_num_threads(),
        }
    )
