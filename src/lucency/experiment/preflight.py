"""What can be refused before a run folder is opened and before hours of training."""

from __future__ import annotations

from torch import nn

from lucency.data.inputs import Inputs
from lucency.detect.images.reference import require_patients
from lucency.errors import ConfigError
from lucency.experiment.settings import ExperimentSettings
from lucency.explain.layer import find_layer
from lucency.records import Radiographs
from lucency.victims.architectures import build


def check_settings(settings: ExperimentSettings, radiographs: Radiographs) -> None:
    """What shows before a pixel is read. Raises ConfigError or DataError."""
    network = check_training(settings, radiographs)
    find_layer(network, settings.explain.layer)
    require_patients(len({radiographs.patient_ids[r] for r in radiographs.rows("reference")}))


def check_training(settings: ExperimentSettings, radiographs: Radiographs) -> nn.Module:
    """The same for what trains, without explanations and detectors; the network, untrained."""
    victim = settings.victim
    n_training = len(radiographs.rows("train"))
    if victim.batch_size > n_training:
        raise ConfigError(
            f"[victim] batch_size must be at most the {n_training} training images, got "
            f"{victim.batch_size}."
        )
    n_findings = len(radiographs.findings)
    return build(victim.architecture, settings.input.channels, n_findings, settings.seed)


def check_trigger(settings: ExperimentSettings, clean: Inputs) -> None:
    """Raises ConfigError if the trigger does not fit one of the films."""
    for height, width in sorted({(int(h), int(w)) for h, w in clean.native_shapes}):
        window = settings.input.window((height, width))
        trigger = settings.attack.trigger.aimed_at(settings.input)
        trigger.box(window, (height, width), (0.0, 0.0))
