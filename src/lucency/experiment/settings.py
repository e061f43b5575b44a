"""`EXPERIMENT.toml`: everything that defines one run."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from lucency.attacks.ledger import AttackSettings
from lucency.data.preprocess import InputContract
from lucency.data.sources import Source
from lucency.errors import ConfigError
from lucency.records import Record
from lucency.victims.train import VictimSettings


class SplitSettings(Record):
    """`[split]`: fractions of the patients for whatever the data set does not itself provide."""

    validation: float = Field(default=0.12, gt=0, lt=1)
    reference: float = Field(default=0.15, gt=0, lt=1)
    test: float = Field(default=0.25, gt=0, lt=1)


class ExplainSettings(Record):
    """`[explain]`. layer: the module whose cells Grad-CAM shows."""

    layer: str = "features.norm5"


class DetectSettings(Record):
    """`[detect]`.

    alpha: an image is flagged if its p-value is at most this. fit_share: share of the reference
    films that set scales; the others set p-values.
    """

    alpha: float = Field(default=0.01, gt=0, lt=1)
    fit_share: float = Field(default=0.35, gt=0, lt=1)


class ReportSettings(Record):
    """`[report]`. hide_names: show row numbers in place of file names."""

    hide_names: bool = False


class ExperimentSettings(Record):
    """One run, from a training set to a report."""

    name: str = Field(min_length=1, max_length=200)
    seed: int = Field(default=0, ge=0, lt=2**31)
    data: Source
    split: SplitSettings = SplitSettings()
    attack: AttackSettings
    input: InputContract = InputContract()
    victim: VictimSettings = VictimSettings()
    explain: ExplainSettings = ExplainSettings()
    detect: DetectSettings = DetectSettings()
    report: ReportSettings = ReportSettings()


def with_data(settings: ExperimentSettings, path: Path, file: str) -> ExperimentSettings:
    """The same settings for data that lie elsewhere; file: what errors call them. Raises
    ConfigError for a data set that is read from no path."""
    if not hasattr(settings.data, "path"):
        raise ConfigError(
            f"--data needs a data set that is read from a path, got [data] source = "
            f"'{settings.data.source}' ({file}); leave --data out."
        )
    moved = settings.data.model_copy(update={"path": path})
    return settings.model_copy(update={"data": moved})
