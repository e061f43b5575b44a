"""`explain.json`: what was asked, and what each map says in numbers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lucency.records import Box, Record

SCHEMA: Literal["lucency/explain/1"] = "lucency/explain/1"
RECORD = "explain.json"


class MapSummary(Record):
    """One map. logit, probability: of the finding, from the pass that the map explains.

    least, most: the map's smallest and largest value, in its method's own unit (``None`` if the map
    is not finite). peak: what the strongest cell covers, or the rectangle of cells that tie, pixels
    of the image as stored; ``None``, with a reason, where there is no such place.
    completeness_error: relative, of methods that promise what the map adds up to.
    """

    finding: str
    logit: float
    probability: float
    least: float | None
    most: float | None
    peak: Box | None
    reason: str | None = None
    completeness_error: float | None = None


class Explained(Record):
    """The maps of one method on one image: cells down and across, and the picture of them."""

    method: str
    cells_down: int
    cells_across: int
    picture: str
    maps: tuple[MapSummary, ...]


class ExplainedImage(Record):
    """name: the file's name as it was given, which is nowhere else in the folder.

    maps_file: safetensors with a tensor a method, (findings, down, across) float32.
    """

    number: int
    name: str
    height: int
    width: int
    maps_file: str
    methods: tuple[Explained, ...]


class RejectedImage(Record):
    """A file that could not be used, by its place on the command line."""

    number: int
    name: str
    reason: str


class SkippedMethod(Record):
    """A method that was not named but is one of "all", and that this model does not allow."""

    method: str
    reason: str


class ExplainRecord(Record):
    """`explain.json`. size: side of the network's input, pixels. layer: as asked for; ``None`` =
    each method's own."""

    schema_: Literal["lucency/explain/1"] = Field(default=SCHEMA, alias="schema")
    model: str
    size: int
    findings: tuple[str, ...]
    methods: tuple[str, ...]
    layer: str | None
    images: tuple[ExplainedImage, ...]
    rejected: tuple[RejectedImage, ...] = ()
    skipped: tuple[SkippedMethod, ...] = ()
    warnings: tuple[str, ...] = ()
