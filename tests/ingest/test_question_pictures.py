"""Pictures of questions: upright, in 8 bits, of any of the usual files, and refused before they are decoded."""

import io
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from ingest.questions.pictures import MAX_PIXELS, MAX_SIDE, open_picture
from ingest.questions.question import QuestionError, QuestionOutcome

BACK = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
"""The orientation that undoes another one."""


def quarters(size=(64, 48)):
    """Red, green, blue and white from the top left."""
    colours = np.array([[(255, 0, 0), (0, 255, 0)], [(0, 0, 255), (255, 255, 255)]], np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.NEAREST)


def stored(image, form="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def levels(image):
    return np.asarray(image).astype(int)


def test_the_case_of_a_phone():
    folder = Path(__file__).parent.parent / "fixtures" / "cases" / "turned-by-exif"
    plain, turned = (open_picture((folder / name).read_bytes(), name) for name in ("plain.jpg", "exif6.jpg"))
    assert turned.size == plain.size == (320, 180)
    assert np.abs(levels(turned) - levels(plain)).mean() < 2


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_laid_upright(form, orientation):
    exif = Image.Exif()
    exif[0x0112] = BACK.get(orientation, 1)
    laid = quarters()
    laid.info["exif"] = exif.tobytes()
    lying = ImageOps.exif_transpose(Image.open(io.BytesIO(stored(laid, "PNG", exif=exif))))
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if form == "JPEG" else {"lossless": True} if form == "WEBP" else {}
    found = open_picture(stored(lying.convert("RGB"), form, exif=exif, **options), "a")
    assert found.size == (64, 48)
    assert np.abs(levels(found) - levels(quarters())).mean() < 4


def test_damaged_metadata_do_not_cost_the_picture():
    data = bytearray(stored(quarters(), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff"))
    assert open_picture(bytes(data), "a").size == (64, 48)


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_of_grey_become_eight(form):
    ramp = np.linspace(0, 65_535, 256).astype(np.uint16).reshape(16, 16)
    found = levels(open_picture(stored(Image.fromarray(ramp), form), "a"))
    assert np.abs(found[..., 0].ravel() - np.arange(256)).max() <= 1
    assert (found[..., 0] == found[..., 2]).all()


def test_sixteen_bits_of_colour_become_eight():
    rows = np.zeros((4, 256, 3), ">u2")
    rows[..., 1] = np.linspace(0, 65_535, 256)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 256, 4, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    assert np.abs(levels(open_picture(png, "a"))[0, :, 1] - np.arange(256)).max() <= 1


def test_numbers_with_fractions_are_scaled():
    for whole in (1.0, 255.0):
        ramp = np.linspace(0, whole, 256, dtype=np.float32).reshape(16, 16)
        found = levels(open_picture(stored(Image.fromarray(ramp), "TIFF"), "a"))
        assert np.abs(found[..., 0].ravel() - np.arange(256)).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA"])
def test_what_is_transparent_is_white(mode):
    image = Image.new("RGBA", (8, 8), (200, 200, 200, 255))
    image.paste((0, 0, 0, 0), (0, 0, 4, 8))
    form = "TIFF" if mode == "PA" else "PNG"
    image = image.convert("LA") if mode == "PA" else image.convert(mode)
    found = levels(open_picture(stored(image, form), "a"))
    assert found[4, 1].tolist() == [255, 255, 255]
    assert np.abs(found[4, 6] - 200).max() <= 2


@pytest.mark.parametrize(
    ("mode", "form"), [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("P", "GIF"), ("1", "PNG"), ("L", "BMP")]
)
def test_other_colour_models_become_red_green_and_blue(mode, form):
    found = open_picture(stored(quarters().convert(mode), form), "a")
    assert found.mode == "RGB"
    expected = quarters().convert(mode).convert("RGB")
    assert np.abs(levels(found) - levels(expected)).mean() < 8


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP"])
def test_of_several_frames_the_first_counts(form):
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue", "lime")]
    data = stored(frames[0], form, save_all=True, append_images=frames[1:], duration=50)
    assert np.abs(levels(open_picture(data, "a"))[16, 16] - (255, 0, 0)).max() < 8


def header_only(width, height):
    """A PNG of a few bytes that states any size."""
    data = bytearray(stored(Image.new("L", (1, 1))))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (header_only(12_000, 12_000), f"at most {MAX_PIXELS} and {MAX_SIDE} a side"),
        (header_only(40_000, 10), "it has 40000 by 10 pixels"),
        (header_only(10, 2**31 - 1), "pixels"),
        (stored(quarters((400, 300)), "JPEG")[:-600], "truncated"),
        (stored(quarters((400, 300)))[:-200], "cannot be decoded as an image"),
        (b"", "cannot be decoded as an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "cannot be decoded as an image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot be decoded as an image"),
    ],
)
def test_what_cannot_be_decoded_is_unreadable_at_once(data, sentence):
    begun = time.process_time()
    with pytest.raises(QuestionError, match=sentence) as raised:
        open_picture(data, "a.jpg")
    assert raised.value.outcome is QuestionOutcome.IMAGE_UNREADABLE
    assert time.process_time() - begun < 1
