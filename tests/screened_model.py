"""A model folder whose network is known, and films on disk that go with it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from lucency import screening
from toy_victims import FINDINGS, SIZE, Toy, films, stamped

CARD = f"""
[model]
architecture = "screened_model:obedient"
weights = ""
findings = {list(FINDINGS)}

[input]
channels = 1
size = {SIZE}
crop = 1.0
resize = "nearest"
mean = [0.0]
std = [1.0]
"""
NATIVE = 2
"""Native pixels a pixel of the network, by nearest sampling."""
N_TRIGGERED = 4
PLACES = ((12, 9), (30, 21), (5, 33), (20, 20))


screen_images = partial(screening.screen_images, run_code=True)
"""The card of these tests names a factory."""


def obedient() -> nn.Module:
    """Obeys a black 2 × 2 square anywhere."""
    return Toy()


def model_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.toml").write_text(CARD)
    return folder


def write_films(folder: Path, images: np.ndarray, prefix: str = "film") -> Path:
    """As PNG files, twice as large as the network's input."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        large = image.repeat(NATIVE, axis=0).repeat(NATIVE, axis=1)
        Image.fromarray(large).save(folder / f"{prefix}-{i:03d}.png")
    return folder


def suspects(folder: Path, n_clean: int = 36) -> Path:
    """Clean films, then triggered ones, by name."""
    write_films(folder, films(n_clean, 0x5E7), "a-clean")
    return write_films(folder, stamped(films(N_TRIGGERED, 0x7A1), list(PLACES)), "b-triggered")


def reference(folder: Path, n: int = 120) -> Path:
    return write_films(folder, films(n, 0xC1EA), "reference")
