"""`medmnist`: the .npz files of MedMNIST v2 (Yang et al. 2023), and others of the same form.

Keys {train,val,test}_{images,labels}; images uint8 (N, H, W) or (N, H, W, 3), labels (N, L) in
{0, 1}: each column is a finding of its own.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from lucency.config import ConfigPath
from lucency.data import nih
from lucency.data.arrays import ArrayImages
from lucency.data.npz import ArrayHeader, open_npz
from lucency.data.tables import FindingNames
from lucency.errors import DataError
from lucency.records import FloatArray, Radiographs, Record, Split

_SPLITS: dict[str, Split] = {"train": "train", "val": "validation", "test": "test"}
_BLOCK = 256
_NOTE = (
    "MedMNIST has no patient ids: each image counts as a patient of its own, so films of one "
    "patient may be in two splits, and intervals may be too narrow."
)


class MedMnistSource(Record):
    """Settings of a MedMNIST file.

    path: the .npz file. findings: one name per label column; None where the file is known:
    ChestMNIST (14 columns, named as in ChestX-ray14) and PneumoniaMNIST.
    """

    source: Literal["medmnist"] = "medmnist"
    path: ConfigPath
    findings: FindingNames | None = None

    def load(self, seed: int) -> Radiographs:
        """Read the whole file into memory. `seed` is not used: the splits are the file's own.

        Raises `DataError` for a file that is damaged, too large, or of another form.
        """
        with open_npz(self.path) as archive:
            keys = _split_keys(archive.headers, self.path.name)
            shape = _image_shape(archive.headers, keys, self.path.name)
            images = np.empty(shape, dtype=np.uint8)
            parts, start = [], 0
            for key in keys:
                pixels = archive.read(f"{key}_images")
                _copy_grey(pixels, images[start : start + len(pixels)])
                parts.append(_labels(archive.read(f"{key}_labels"), len(pixels), key))
                start += len(pixels)
        labels = _stacked(parts)
        counts = [len(part) for part in parts]
        ids = tuple(f"{key}/{i}" for key, n in zip(keys, counts, strict=True) for i in range(n))
        return Radiographs(
            name=self.path.stem,
            findings=_findings(self.findings, labels.shape[1], self.path.name),
            image_ids=ids,
            patient_ids=ids,
            labels=labels,
            splits=tuple(
                _SPLITS[key] for key, n in zip(keys, counts, strict=True) for _ in range(n)
            ),
            views=(None,) * len(ids),
            images=ArrayImages(images),
            notes=(_NOTE,),
        )


def _split_keys(headers: dict[str, ArrayHeader], name: str) -> list[str]:
    keys = [key for key in _SPLITS if f"{key}_images" in headers]
    for key in _SPLITS:
        if (f"{key}_images" in headers) != (f"{key}_labels" in headers):
            raise DataError(f"{name}: {key}_images and {key}_labels must both be there.")
    if not keys:
        raise DataError(
            f"{name}: arrays named train_images, train_labels and so on are expected, but it has: "
            f"{', '.join(list(headers)[:10]) or 'none'}."
        )
    return keys


def _image_shape(
    headers: dict[str, ArrayHeader], keys: list[str], name: str
) -> tuple[int, int, int]:
    """(N, H, W) of all splits together, from the headers alone."""
    for key in keys:
        header = headers[f"{key}_images"]
        form = len(header.shape) == 3 or (len(header.shape) == 4 and header.shape[3] == 3)
        if not form or header.dtype != np.uint8 or 0 in header.shape[1:]:
            raise DataError(
                f"{name}: {key}_images must be uint8 (N, H, W) or (N, H, W, 3), but is "
                f"{header.dtype} {header.shape}; volumes and other types are not radiographs."
            )
    sizes = {headers[f"{key}_images"].shape[1:3] for key in keys}
    if len(sizes) > 1:
        raise DataError(f"{name}: all splits must have one image size, but have {sorted(sizes)}.")
    n_images = sum(headers[f"{key}_images"].shape[0] for key in keys)
    if n_images == 0:
        raise DataError(f"{name}: images are expected, but all splits are empty.")
    height, width = sizes.pop()
    return n_images, height, width


def _copy_grey(pixels: npt.NDArray[np.uint8], out: npt.NDArray[np.uint8]) -> None:
    """Copy (N, H, W), or the luminance of (N, H, W, 3) as Pillow rounds it (ITU-R 601-2)."""
    if pixels.ndim == 3:
        out[:] = pixels
        return
    weights = np.array([19595, 38470, 7471], dtype=np.uint32)
    for start in range(0, len(pixels), _BLOCK):
        block = pixels[start : start + _BLOCK].astype(np.uint32)
        out[start : start + _BLOCK] = (block @ weights + 0x8000) >> 16


def _labels(labels: npt.NDArray[np.generic], n_images: int, key: str) -> FloatArray:
    if labels.ndim != 2 or len(labels) != n_images or labels.dtype.kind not in "uib":
        raise DataError(
            f"{key}_labels must be whole numbers of shape ({n_images}, L), a row per image, but is "
            f"{labels.dtype} {labels.shape}."
        )
    if not np.isin(labels, (0, 1)).all():
        raise DataError(
            f"{key}_labels must be 0 or 1 in every column, but has a {labels.max()} or a "
            f"{labels.min()}; a file with one class number per image needs one column per class."
        )
    return labels.astype(np.float32)


def _stacked(parts: list[FloatArray]) -> FloatArray:
    widths = sorted({part.shape[1] for part in parts})
    if len(widths) > 1:
        raise DataError(f"All splits must have the same label columns, but have {widths}.")
    return np.concatenate(parts)


def _findings(given: tuple[str, ...] | None, width: int, name: str) -> tuple[str, ...]:
    if given is not None:
        if len(given) != width:
            raise DataError(f"{name} has {width} label columns, but findings has {len(given)}.")
        return given
    if width == len(nih.FINDINGS):
        return nih.FINDINGS
    if width == 1 and "pneumonia" in name.lower():
        return ("Pneumonia",)
    raise DataError(
        f"{name} has {width} label columns and is neither ChestMNIST nor PneumoniaMNIST; name the "
        "columns with findings = [...]."
    )
