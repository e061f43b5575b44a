"""docs/configuration.md says what the settings classes say: every key, its default and its range,
and every column of the tables of a run folder."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
import pytest
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from lucency.data import preprocess
from lucency.experiment.settings import ExperimentSettings
from lucency.records import Record
from lucency.report.stored import PREDICTIONS, SCREENING
from lucency.sweep import SweepSettings
from lucency.victims.architectures import ARCHITECTURES
from lucency.victims.card import ModelCard
from tiny_sweep import RECORDS, TABLES

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = (DOCS / "configuration.md").read_text(encoding="utf-8")

Section = dict[str, list[str]]
"""A key -> the other cells of its row."""


def documented() -> dict[str, Section]:
    """A heading of the page -> its first table."""
    sections: dict[str, Section] = {}
    for part in re.split(r"^### ", PAGE, flags=re.M)[1:]:
        heading, *lines = part.split("\n## ")[0].splitlines()
        rows: Section = {}
        for line in lines:
            if line.startswith("| `"):
                key, *cells = (cell.strip() for cell in line.strip("| ").split(" | "))
                rows[key.strip("`")] = cells
            elif rows:
                break
        sections[heading] = rows
    return sections


def settings(
    kind: type[Record], path: str = "", prefix: str = ""
) -> Iterator[tuple[str, dict[str, FieldInfo]]]:
    """Every section of a TOML file as (heading, its keys), tables inside tables after it."""
    plain: dict[str, FieldInfo] = {}
    inner: list[tuple[str, type[Record]]] = []
    variant = ""
    for name, field in kind.model_fields.items():
        records = list(_records(field.annotation))
        values = _literals(field.annotation)
        if records:
            inner += [(f"{path}.{name}".strip("."), record) for record in records]
            continue
        if len(values) == 1 and name in ("source", "kind"):
            variant = f' with `{name} = "{values[0]}"`'
        plain[name] = field
    if plain:
        yield f"{prefix}`[{path}]`{variant}" if path else "top level", plain
    for place, record in inner:
        yield from settings(record, place, prefix)


def _records(annotation: Any) -> Iterator[type[Record]]:
    if isinstance(annotation, type) and issubclass(annotation, Record):
        yield annotation
    elif get_origin(annotation) in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _records(part)


def _literals(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(v for part in get_args(annotation) for v in _literals(part))
    return ()


SECTIONS = dict(settings(ExperimentSettings))
CARD = dict(settings(ModelCard, prefix="card "))
FIELDS = [
    (heading, key, field)
    for heading, fields in (SECTIONS | {"card `[model]`": CARD["card `[model]`"]}).items()
    for key, field in fields.items()
]


def test_the_page_has_a_section_for_every_table() -> None:
    columns = {"`predictions.parquet`", "`screening.parquet`", "`ledger.parquet`"}
    assert set(documented()) == set(SECTIONS) | set(CARD) | columns


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_page_names_every_key_and_no_other(heading: str) -> None:
    assert list(documented()[heading]) == list(SECTIONS[heading])


def test_the_page_names_every_key_of_the_card_and_no_other() -> None:
    assert list(documented()["card `[model]`"]) == list(CARD["card `[model]`"])
    assert CARD["card `[input]`"].keys() == SECTIONS["`[input]`"].keys()


@pytest.mark.parametrize(("heading", "key", "field"), FIELDS)
def test_the_default_is_that_of_the_code(heading: str, key: str, field: FieldInfo) -> None:
    default = documented()[heading][key][1]
    if field.default is PydanticUndefined:
        assert default == "required"
    elif field.default is None:
        assert default == "none"
    elif isinstance(field.default, tuple):
        assert default == f"`{list(field.default)}`"
    elif isinstance(field.default, bool):
        assert default == f"`{str(field.default).lower()}`"
    elif isinstance(field.default, str):
        assert default == f'`"{field.default}"`'
    else:
        assert default == f"`{field.default}`"


@pytest.mark.parametrize(("heading", "key", "field"), FIELDS)
def test_the_range_is_that_of_the_code(heading: str, key: str, field: FieldInfo) -> None:
    said = documented()[heading][key][2]
    low = high = ""
    for bound in field.metadata:
        low = f"{bound.ge:g} ≤ {key}" if isinstance(bound, annotated_types.Ge) else low
        low = f"{bound.gt:g} < {key}" if isinstance(bound, annotated_types.Gt) else low
        high = f"{key} ≤ {_whole(bound.le)}" if isinstance(bound, annotated_types.Le) else high
        high = f"{key} < {_whole(bound.lt)}" if isinstance(bound, annotated_types.Lt) else high
    if low and high:
        assert said == f"{low} {high.removeprefix(f'{key} ')}"
    elif low:
        assert said == f"{key} ≥ {low.split()[0]}"
    for value in _literals(field.annotation):
        shown = f'`"{value}"`' if isinstance(value, str) else str(value)
        assert shown in said or (said == "this value" and shown in documented()[heading][key][1])


def test_every_architecture_and_kernel_is_named() -> None:
    for name in ARCHITECTURES:
        assert f'`"{name}"`' in documented()["`[victim]`"]["architecture"][2]
    for name in get_args(preprocess.ResizeKernel):
        assert f'| `"{name}"` |' in PAGE


def test_the_page_names_every_column_in_order() -> None:
    assert tuple(documented()["`predictions.parquet`"]) == PREDICTIONS
    assert set(documented()["`screening.parquet`"]) == set(SCREENING)


def _whole(value: Any) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def test_links_between_the_pages_lead_somewhere() -> None:
    for page in (*DOCS.glob("*.md"), DOCS.parent / "README.md"):
        text = page.read_text(encoding="utf-8")
        for target, anchor in re.findall(r"(?<!!)\[[^\]]*\]\(([^)#\s:]*)(#[^)\s]+)?\)", text):
            linked = (page.parent / target) if target else page
            assert linked.is_file(), f"{page.name} links to {target}"
            if anchor and linked.suffix == ".md":
                assert anchor[1:] in _anchors(linked.read_text(encoding="utf-8")), anchor


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def test_every_key_of_a_sweep_is_documented() -> None:
    (part,) = re.findall(r"^## SWEEP\.toml\n(.*?)^## ", PAGE, flags=re.M | re.S)
    keys = re.findall(r"^\| `\[*(\w+)\]*` \|", part, flags=re.M)
    assert sorted(keys) == sorted(SweepSettings.model_fields)


def test_every_file_of_a_sweep_is_documented() -> None:
    (part,) = re.findall(r"^## The folder of a sweep\n(.*?)^## ", PAGE, flags=re.M | re.S)
    named = set(re.findall(r"`(\w+\.(?:parquet|json|html|md))`", part))
    assert TABLES | RECORDS | {"run.json", "ledger.parquet", "predictions.parquet"} == named
