"""Image files made by seeded code, and transforms that a worker process can import."""

import io
import os
import signal
import struct
import time
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def as_stored(image, row):
    return image


def add_row(image, row):
    return image + np.uint8(row)


def fail_on_row_2(image, row):
    if row == 2:
        raise ZeroDivisionError("row two")
    return image


def hang_on_row_2(image, row):
    while row == 2:
        time.sleep(0.1)
    return image


def die_on_row_2(image, row):
    if row == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return image


def as_float(image, row):
    return image.astype(np.float32)


def process_id(image, row):
    return np.array([[os.getpid() % 65536]], dtype=np.uint16)


def loaded_modules(image, row):
    import sys

    heavy = {"torch", "scipy", "polars", "monai"} & set(sys.modules)
    return np.array([[len(heavy)]], dtype=np.uint8)


def grey(seed=0, shape=(16, 12), dtype=np.uint8):
    high = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, high, shape, dtype=dtype, endpoint=True)


def encoded(array, format="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format, **options)
    return buffer.getvalue()


def write_pngs(folder: Path, n: int, shape=(16, 12)):
    """n small grey files; returns their paths and arrays."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = [grey(seed, shape) for seed in range(n)]
    paths = [folder / f"{seed:03}.png" for seed in range(n)]
    for path, array in zip(paths, arrays, strict=True):
        path.write_bytes(encoded(array))
    return paths, arrays


def chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(width, height, depth=8, colour=0, data=b"", extra=b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + extra
        + chunk(b"IDAT", data)
        + chunk(b"IEND", b"")
    )


def zeros_png(size: int) -> bytes:
    """A valid PNG of size² zeros: a bomb, thousandfold smaller than its pixels."""
    packer = zlib.compressobj(1)
    block = bytes(size + 1)
    data = b"".join(packer.compress(block) for _ in range(size)) + packer.flush()
    return png(size, size, data=data)


def text_bomb() -> bytes:
    text = b"Comment\0\0" + zlib.compress(bytes(80 * 2**20), 1)
    return png(1, 1, data=zlib.compress(b"\0\0"), extra=chunk(b"zTXt", text))
