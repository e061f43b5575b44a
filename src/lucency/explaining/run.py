"""Explain image files: read, explain, draw, write; the record last but for the manifest."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.numpy import save_file

from lucency.attacks.ledger import plain
from lucency.data.guard import FileImages
from lucency.errors import CannotWrite, DataError, LucencyError, ModelError
from lucency.explain import EXPLANATIONS, Attribution, Explanation
from lucency.explaining.choices import ALL, choose, with_layer
from lucency.explaining.record import (
    RECORD,
    SCHEMA,
    ExplainedImage,
    ExplainRecord,
    RejectedImage,
    SkippedMethod,
)
from lucency.explaining.summary import Film, picture, stem, summarise
from lucency.manifest import entries
from lucency.progress import Progress, silent
from lucency.records import Decoded
from lucency.runs import RunFolder
from lucency.victims.card import load_victim
from lucency.victims.victim import Victim, to_grey
from lucency.writing import write_bytes, write_json, write_via

_OURS = re.compile(r"image-\d{4,}(-[a-z-]+\.png|\.safetensors)|explain\.json")


@dataclass(frozen=True)
class _Task:
    """findings: names. explanations: by method. may_skip: methods were not named one by one."""

    victim: Victim
    findings: tuple[str, ...]
    explanations: dict[str, Explanation]
    may_skip: bool


@dataclass
class _Notes:
    """What is learnt on the way."""

    rejected: list[RejectedImage] = field(default_factory=list)
    skipped: list[SkippedMethod] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def explain_files(
    images: Sequence[Path],
    model: Path,
    out: Path,
    *,
    findings: Sequence[str],
    methods: Sequence[str] = ("gradient-median",),
    layer: str | None = None,
    table: Mapping[str, Explanation] = EXPLANATIONS,
    run_code: bool = False,
    progress: Progress = silent,
) -> ExplainRecord:
    """Write pictures, raw maps and `explain.json` of each readable image into `out`.

    findings, methods: names, or "all"; of all methods, those that the model does not allow are
    skipped by name. A file's number is its place in `images`, from 1: no file name in `out` holds
    a given name. run_code: whether the model's card may name a factory, code that is then called.
    `out` must be new, empty, or an earlier answer of this command, which is replaced.

    Raises ConfigError for an unknown name, ModelError for a model that cannot be used or does not
    allow a method that was named, DataError if no image can be read, CannotWrite.
    """
    victim = load_victim(model, run_code=run_code)
    chosen = choose(findings, [name for name in victim.findings if name], "--finding")
    explanations = with_layer(choose(methods, list(table), "--method"), table, layer)
    may_skip = any(part.strip() == ALL for text in methods for part in text.split(","))
    task = _Task(victim, chosen, explanations, may_skip)
    notes = _Notes()
    with RunFolder.at(out) as folder:
        _refuse_others(folder)
        explained = _explain_all(images, task, folder, notes, progress)
        record = ExplainRecord(
            model=shown_name(model.absolute().parent if model.suffix == ".toml" else model),
            size=victim.contract.size,
            findings=chosen,
            methods=tuple(task.explanations),
            layer=layer,
            images=explained,
            rejected=tuple(notes.rejected),
            skipped=tuple(notes.skipped),
            warnings=tuple(notes.warnings),
        )
        write_json(folder.path(RECORD), record)
        folder.finish(device=str(victim.device), threads=torch.get_num_threads())
    return record


def _refuse_others(folder: RunFolder) -> None:
    """The folder of another command is left as it is."""
    files, odd = entries(folder.folder)
    others = [name for name in files if not _OURS.fullmatch(name)] + [name for name, _ in odd]
    if others:
        raise CannotWrite(
            f"{folder.folder} must be new, empty or an earlier answer of `lucency explain`, but it "
            f"holds {others[0]!r}; name another folder."
        )


def _explain_all(
    images: Sequence[Path], task: _Task, folder: RunFolder, notes: _Notes, progress: Progress
) -> tuple[ExplainedImage, ...]:
    names = [shown_name(path) for path in images]
    explained: list[ExplainedImage] = []
    with (
        FileImages(images) as files,
        progress("Explaining", len(images)) as advance,
    ):
        for item in files.read(range(len(images)), plain(task.victim.contract)):
            if isinstance(item, Decoded):
                film = Film(item.index + 1, names[item.index], item.image, item.native_shape)
                found = _attribute(film, task, notes, may_skip=task.may_skip and not explained)
                if not explained:
                    folder.clear()
                explained.append(_write(film, found, task.victim, folder, notes))
            else:
                row, reason = item
                rejected = RejectedImage(number=row + 1, name=names[row], reason=reason)
                notes.rejected.append(rejected)
            advance(1)
    if not explained:
        first = notes.rejected[0] if notes.rejected else None
        why = f" (the first: {first.name}: {first.reason})" if first else ""
        raise DataError(
            f"At least one readable image was expected, got none of {len(images)}{why}."
        )
    return tuple(explained)


def _attribute(film: Film, task: _Task, notes: _Notes, *, may_skip: bool) -> dict[str, Attribution]:
    """All methods, before anything is written; those that the model does not allow leave the
    task, if they may."""
    grey = to_grey(film.pixels[None], task.victim.device)
    findings = [task.victim.findings.index(name) for name in task.findings]
    found: dict[str, Attribution] = {}
    for method, explain in list(task.explanations.items()):
        try:
            found[method] = explain(task.victim, grey, findings)
        except LucencyError as error:
            if not may_skip:
                raise
            notes.skipped.append(SkippedMethod(method=method, reason=str(error)))
            del task.explanations[method]
    if not found:
        raise ModelError(f"No method can explain this model: {notes.skipped[0].reason}")
    return found


def _write(
    film: Film, found: dict[str, Attribution], victim: Victim, folder: RunFolder, notes: _Notes
) -> ExplainedImage:
    maps_file = f"{stem(film)}.safetensors"
    maps = {m: a.maps[0].detach().float().cpu().contiguous().numpy() for m, a in found.items()}
    methods = []
    for method, attribution in found.items():
        summary = summarise(film, method, attribution, victim)
        drawn = picture(film, summary, maps[method])
        write_bytes(folder.path(summary.picture), drawn)
        methods.append(summary)
        notes.warnings += [f"Image {film.number}, {method}: {w}" for w in attribution.warnings]
    findings = [victim.findings[k] for k in next(iter(found.values())).findings]
    about = {"schema": SCHEMA, "findings": json.dumps(findings)}
    write_via(folder.path(maps_file), lambda path: save_file(maps, path, about))
    height, width = film.native_shape
    return ExplainedImage(
        number=film.number,
        name=film.name,
        height=height,
        width=width,
        maps_file=maps_file,
        methods=tuple(methods),
    )


def shown_name(path: Path) -> str:
    """A file's name as text; bytes that are not UTF-8 are escaped."""
    return os.fsencode(path.name).decode("utf-8", "backslashreplace")
