"""decode: the right pixels, or a refusal from the closed list; nothing else, whatever the bytes."""

import os
import socket
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_files import chunk, encoded, grey, png, text_bomb, zeros_png
from PIL import Image

from lucency.data.decode import MAX_BYTES, REFUSALS, DecodeError, decode


@pytest.fixture
def write(tmp_path):
    def _write(data, name="a.png"):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return _write


RGB = np.random.default_rng(1).integers(0, 256, (9, 7, 3), dtype=np.uint8)
LUMINANCE = np.asarray(Image.fromarray(RGB).convert("L"))
RGBA = np.dstack([RGB, np.full((9, 7), 3, np.uint8)])
NIH_RGBA = np.dstack([grey(2)] * 3 + [np.full((16, 12), 255, np.uint8)])
SIXTEEN = grey(3, dtype=np.uint16)
PALETTE = Image.fromarray(RGB).convert("P")


def _palette():
    import io

    buffer = io.BytesIO()
    PALETTE.save(buffer, "PNG")
    return buffer.getvalue()


GOOD = {
    "grey": (encoded(grey()), grey()),
    "16-bit": (encoded(SIXTEEN), SIXTEEN),
    "rgb": (encoded(RGB), LUMINANCE),
    "rgba": (encoded(RGBA), LUMINANCE),
    "rgba of grey": (encoded(NIH_RGBA), grey(2)),
    "palette": (_palette(), np.asarray(PALETTE.convert("L"))),
    "1-bit": (encoded(grey() > 127), np.where(grey() > 127, 255, 0).astype(np.uint8)),
    "2-bit": (png(4, 1, depth=2, data=zlib.compress(b"\0\x1b")), np.array([[0, 85, 170, 255]])),
    "one pixel": (encoded(np.array([[7]], np.uint8)), np.array([[7]])),
    "grey + alpha": (png(1, 1, colour=4, data=zlib.compress(b"\0\x09\x01")), np.array([[9]])),
}


@pytest.mark.parametrize("name", GOOD)
def test_decodes_to_the_expected_pixels(write, name):
    data, expected = GOOD[name]
    image = decode(write(data))
    assert image.dtype == (np.uint16 if name == "16-bit" else np.uint8)
    np.testing.assert_array_equal(image, expected)


def test_a_jpeg_named_png_is_read_as_what_it_is(write):
    flat = np.full((16, 16), 99, np.uint8)
    np.testing.assert_array_equal(decode(write(encoded(flat, "JPEG"))), flat)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_exif_rotation_is_honoured(write, orientation, format):
    stored = np.zeros((32, 16), np.uint8)
    stored[:8, :8] = 255  # a bright corner, top left as stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode(write(encoded(stored, format, exif=exif)))
    corners = {"top left": image[4, 4], "top right": image[4, -4], "bottom right": image[-4, -4]}
    corners["bottom left"] = image[-4, 4]
    expected = ["top left", "top right", "bottom right", "bottom left"]
    expected += ["top left", "top right", "bottom right", "bottom left"]
    assert max(corners, key=corners.get) == expected[orientation - 1]
    assert image.shape == ((16, 32) if orientation >= 5 else (32, 16))


def _cmyk():
    import io

    buffer = io.BytesIO()
    Image.fromarray(RGB).convert("CMYK").save(buffer, "JPEG")
    return buffer.getvalue()


def _animated():
    import io

    buffer = io.BytesIO()
    frames = [Image.fromarray(grey(seed)) for seed in range(3)]
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def _bit_flipped():
    data = bytearray(encoded(grey(0, (64, 64))))
    data[200] ^= 1  # in the pixel data: only a checksum can tell
    return bytes(data)


BAD = {
    "empty": (b"", "the file is empty"),
    "text": (b"This is not an image.\n", "not a PNG or JPEG image"),
    "tiff": (encoded(grey(), "TIFF"), "not a PNG or JPEG image"),
    "gif": (encoded(grey(), "GIF"), "not a PNG or JPEG image"),
    "truncated png": (encoded(grey(0, (64, 64)))[:2000], "damaged or truncated"),
    "png without end": (encoded(grey())[:-12], "damaged or truncated"),
    "truncated jpeg": (encoded(grey(0, (64, 64)), "JPEG")[:900], "damaged or truncated"),
    "flipped bit": (_bit_flipped(), "damaged or truncated"),
    "ancillary checksum": (
        png(1, 1, data=zlib.compress(b"\0\x05"), extra=chunk(b"tEXt", b"k\0x")[:-4] + bytes(4)),
        "damaged or truncated",
    ),
    "no data": (png(9, 9), "damaged or truncated"),
    "no pixels": (png(0, 9), "damaged or truncated"),
    "huge claim": (png(2**31 - 1, 2**31 - 1), "larger than 64 million pixels or 512 MiB"),
    "above the limit": (png(8001, 8000), "larger than 64 million pixels or 512 MiB"),
    "bomb 13,000²": (zeros_png(13_000), "larger than 64 million pixels or 512 MiB"),
    "bomb 30,000²": (png(30_000, 30_000), "larger than 64 million pixels or 512 MiB"),
    "text bomb": (text_bomb(), "damaged or truncated"),
    "animated": (_animated(), "more than one frame"),
    "cmyk": (_cmyk(), "a colour model that is not grey, RGB or palette"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses_with_the_reason(write, name):
    data, reason = BAD[name]
    path = write(data)
    with pytest.raises(DecodeError) as error:
        decode(path)
    assert error.value.reason == reason
    assert str(error.value) == reason  # no path in it
    assert error.value.exit_code == 2


def test_refuses_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    (tmp_path / "loop.png").symlink_to("loop.png")
    (tmp_path / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.png"))
        for name in ("fifo", "device", "loop", "folder", "socket"):
            with pytest.raises(DecodeError, match="not a regular file"):
                decode(tmp_path / f"{name}.png")


def test_refuses_missing_unnameable_and_sparse_files(tmp_path):
    (tmp_path / "dangling.png").symlink_to("nothing.png")
    for name in ("absent.png", "dangling.png"):
        with pytest.raises(DecodeError, match="the file is missing"):
            decode(tmp_path / name)
    for name in ("a\0b.png", "x" * 5000):
        with pytest.raises(DecodeError, match="cannot be read"):
            decode(tmp_path / name)
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(DecodeError, match="larger than"):
        decode(tmp_path / "sparse.png")


def test_follows_a_link_to_a_regular_file(tmp_path, write):
    write(encoded(grey()), "real.png")
    (tmp_path / "link.png").symlink_to("real.png")
    np.testing.assert_array_equal(decode(tmp_path / "link.png"), grey())


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.binary(max_size=4)), max_size=5),
    cut=st.integers(0, 400),
    format=st.sampled_from(["PNG", "JPEG"]),
)
def test_any_edit_gives_pixels_or_a_listed_refusal(write, edits, cut, format):
    data = bytearray(encoded(grey(), format, exif=_tilted()))
    for place, new in edits:
        start = place % len(data)
        data[start : start + len(new)] = new
    try:
        image = decode(write(bytes(data[: len(data) - cut])))
    except DecodeError as error:
        reason = error.reason
    else:
        reason = None
        assert image.ndim == 2
        assert image.dtype in (np.uint8, np.uint16)
    assert reason in (None, *REFUSALS)


def _tilted():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_every_flipped_bit_of_a_png_is_noticed_or_harmless(write):
    """Single-bit flips never change pixels in silence: PNG has checksums and they are checked."""
    data, silent = encoded(grey()), 0
    for bit in np.random.default_rng(5).choice(len(data) * 8, 500, replace=False):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << (bit % 8)
        try:
            silent += not np.array_equal(decode(write(bytes(flipped))), grey())
        except DecodeError:
            continue
    assert silent == 0
