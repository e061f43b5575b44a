"""Reads a batch of films into one array, with a reason for each that cannot be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from lucency.data.preprocess import InputContract, full_scale
from lucency.records import Decoded, Image, Images, IntArray, NetworkInputs


@dataclass(frozen=True)
class Batch:
    """rows (M,): of the films that could be read; images (M, size, size) uint16; native (M, 2):
    height and width as stored. rejected: row -> reason."""

    rows: IntArray
    images: NetworkInputs
    native: IntArray
    rejected: dict[int, str]


def read_batch(images: Images, rows: Sequence[int], contract: InputContract) -> Batch:
    """Decode, crop and resize. Films of 8 bits are widened to 16, so that both kinds can stand
    in one batch and none loses anything."""
    kept: list[int] = []
    films: list[Image] = []
    native: list[tuple[int, int]] = []
    rejected: dict[int, str] = {}
    for item in images.read(rows, partial(_to_network, contract)):
        if isinstance(item, Decoded):
            kept.append(item.index)
            films.append(item.image)
            native.append(item.native_shape)
        else:
            rejected[item[0]] = item[1]
    shape = (len(films), contract.size, contract.size)
    return Batch(
        np.array(kept, dtype=np.int64),
        np.array(films, dtype=np.uint16).reshape(shape),
        np.array(native, dtype=np.int64).reshape(-1, 2),
        rejected,
    )


def _to_network(contract: InputContract, image: Image, row: int) -> Image:
    small = contract.to_network(image)
    if small.dtype == np.uint16:
        return small
    # 255 · 257 = 65535: every grey level keeps its fraction of the range exactly.
    return small.astype(np.uint16) * np.uint16(full_scale(np.dtype(np.uint16)) // 255)
