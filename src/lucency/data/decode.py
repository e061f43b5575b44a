"""One image file to pixels. The bytes are hostile: decode inside a worker of `data.guard`.

Imports numpy and Pillow only, because every worker starts by importing this file.
"""

from __future__ import annotations

import errno
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, get_args

import numpy as np
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from lucency.errors import LucencyError

if TYPE_CHECKING:
    from lucency.records import Image

FORMATS = ("PNG", "JPEG")
MAX_PIXELS = 64_000_000
"""Largest height × width that is decoded; a radiograph has at most about 20 million pixels."""
MAX_BYTES = 512 * 2**20

Refusal = Literal[
    "the file is missing",
    "not a regular file",
    "the file cannot be read",
    "the file is empty",
    "not a PNG or JPEG image",
    "larger than 64 million pixels or 512 MiB",
    "damaged or truncated",
    "more than one frame",
    "a colour model that is not grey, RGB or palette",
    "needs too much memory",
]
REFUSALS: tuple[Refusal, ...] = get_args(Refusal)
"""All that `decode` can say about a file; none names a path."""

_GREY_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX"})
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: PillowImage.Transpose.FLIP_LEFT_RIGHT,
    3: PillowImage.Transpose.ROTATE_180,
    4: PillowImage.Transpose.FLIP_TOP_BOTTOM,
    5: PillowImage.Transpose.TRANSPOSE,
    6: PillowImage.Transpose.ROTATE_270,
    7: PillowImage.Transpose.TRANSVERSE,
    8: PillowImage.Transpose.ROTATE_90,
}


class DecodeError(LucencyError):
    """One file that cannot be used."""

    def __init__(self, reason: Refusal) -> None:
        super().__init__(reason)
        self.reason: Refusal = reason


def decode(path: str | os.PathLike[str]) -> Image:
    """Read one PNG or JPEG file as grey pixels, upright.

    Returns (H, W) uint8, read-only; uint16 for a 16-bit grey PNG. RGB(A) and palette become grey
    by luminance (ITU-R 601-2), transparency is ignored, EXIF orientation is applied.

    Raises `DecodeError` with one of `REFUSALS`, whatever the bytes are.
    """
    with _open_regular(Path(path)) as file:
        try:
            return _decode(file)
        except DecodeError:
            raise
        except MemoryError:
            raise DecodeError("needs too much memory") from None
        except (PillowImage.DecompressionBombError, PillowImage.DecompressionBombWarning):
            raise DecodeError("larger than 64 million pixels or 512 MiB") from None
        except UnidentifiedImageError:
            file.seek(0)
            known = file.read(8).startswith(_SIGNATURES)
            raise DecodeError(
                "damaged or truncated" if known else "not a PNG or JPEG image"
            ) from None
        except Exception:  # noqa: BLE001 - hostile bytes make Pillow raise almost anything
            raise DecodeError("damaged or truncated") from None


@contextmanager
def _open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file, without ever waiting on a pipe or touching a device."""
    try:
        _check(path.stat())
        # The file may be exchanged between the check and the opening: never block, check again.
        file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb")  # noqa: PTH123, SIM115
    except FileNotFoundError:
        raise DecodeError("the file is missing") from None
    except (OSError, ValueError) as error:
        loop = isinstance(error, OSError) and error.errno == errno.ELOOP
        raise DecodeError("not a regular file" if loop else "the file cannot be read") from None
    with file:
        _check(os.fstat(file.fileno()))
        yield file


def _check(status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise DecodeError("not a regular file")
    if status.st_size == 0:
        raise DecodeError("the file is empty")
    if status.st_size > MAX_BYTES:
        raise DecodeError("larger than 64 million pixels or 512 MiB")


def _decode(file: BinaryIO) -> Image:
    _check_header(file)
    file.seek(0)
    with PillowImage.open(file, formats=FORMATS) as picture:
        picture.load()
        ready = picture.mode == "L" or picture.mode.startswith("I;16")
        pixels = picture if ready else picture.convert("L")
        turn = _UPRIGHT.get(picture.getexif().get(_ORIENTATION_TAG, 1))
        return _to_array(pixels if turn is None else pixels.transpose(turn))


def _check_header(file: BinaryIO) -> None:
    """Refuse by size, colour model, frames and checksums before a single pixel is decoded."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", PillowImage.DecompressionBombWarning)
        picture = PillowImage.open(file, formats=FORMATS)
    if picture.width * picture.height > MAX_PIXELS:
        raise DecodeError("larger than 64 million pixels or 512 MiB")
    if picture.mode not in _GREY_MODES and not picture.mode.startswith("I;16"):
        raise DecodeError("a colour model that is not grey, RGB or palette")
    if getattr(picture, "n_frames", 1) != 1:
        raise DecodeError("more than one frame")
    # Pillow skips the checksums of pixel data when it decodes: a flipped bit would pass unseen.
    picture.verify()


def _to_array(picture: PillowImage.Image) -> Image:
    if picture.mode == "L":
        return np.asarray(picture, dtype=np.uint8)
    return np.asarray(picture, dtype=np.uint16)
