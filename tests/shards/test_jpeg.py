"""Pictures of records: bounded by their header, and written as patches whatever their memory looks like."""

import io
import itertools
import resource
import time
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from ingest import similarity
from shards.arrays import audio, images, jpeg
from shards.dataset import sidecar
from shards.records import choices
from shards.storage.errors import RecordError

CASES = Path(__file__).parent.parent / "fixtures" / "cases" / "jpeg-of-four-billion-pixels"
COLOURED, GREY = ((CASES / name).read_bytes() for name in ("bomb65000.jpg", "bombgrey.jpg"))
GRID, PATCH = (4, 6), 16


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


@pytest.mark.parametrize("data", [COLOURED, GREY], ids=["coloured", "grey"])
@pytest.mark.parametrize(
    "decode",
    [images.decode, audio.decode, choices.decode_sound, sidecar.thumbnail, similarity.decode],
    ids=["frame", "spectrogram", "clip", "thumbnail", "similarity"],
)
def test_a_bomb_is_refused_by_its_header(decode, data):
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises((RecordError, similarity.PictureError), match=r"65000x65000 pixels|65000, 65000|more than"):
        decode(data)
    assert time.process_time() - started < 0.5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10


def test_a_spectrogram_of_another_shape_is_not_decoded():
    large = simplejpeg.encode_jpeg(picture(4096, 4096))
    started = time.process_time()
    with pytest.raises(RecordError, match=r"\(4096, 4096\) instead of \(64, 188\)"):
        audio.decode(large)
    assert time.process_time() - started < 0.05


def test_the_largest_pictures_are_read():
    assert images.decode(simplejpeg.encode_jpeg(np.zeros((4096, 8192, 3), np.uint8))).shape == (4096, 8192, 3)
    with pytest.raises(RecordError, match="8192x4104 pixels, more than"):
        images.decode(simplejpeg.encode_jpeg(np.zeros((4104, 8192, 3), np.uint8)))
    with pytest.raises(RecordError, match="20000x8 pixels"):
        images.decode(simplejpeg.encode_jpeg(np.zeros((8, 20_000, 3), np.uint8)))


def test_a_progressive_picture_of_many_scans_is_refused():
    buffer = io.BytesIO()
    Image.fromarray(picture(64, 64)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    assert images.decode(data).shape == (64, 64, 3)
    scan = data[data.rindex(b"\xff\xda") : -2]
    with pytest.raises(RecordError, match="more than 100 scans"):
        images.decode(data[:-2] + scan * jpeg.MAX_SCANS + data[-2:])


@pytest.mark.parametrize("form", ["PNG", "GIF", "BMP", "WEBP"])
def test_other_formats_are_not_pictures_of_records(form):
    buffer = io.BytesIO()
    Image.fromarray(picture(16, 16)).save(buffer, form)
    for decode in (images.decode, sidecar.thumbnail, similarity.decode):
        with pytest.raises((RecordError, similarity.PictureError)):
            decode(buffer.getvalue())


CROPS = [(slice(None), slice(None)), (slice(5, 50), slice(None)), (slice(None), slice(7, 61)), (slice(3, 60, 2), slice(4, 60))]  # fmt: skip


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("order", ["C", "F"])
def test_patches_of_any_view_are_those_of_its_copy(kind, order):
    whole = np.asarray(picture(64, 72), kind, order=order)
    for crop, turns, flip in itertools.product(CROPS, range(4), (None, 0, 1, (0, 1), 2)):
        view = np.rot90(whole[crop], turns)
        view = view if flip is None else np.flip(view, flip)
        placement = images.place(*view.shape[:2], (GRID[0] * PATCH, GRID[1] * PATCH), None, None)
        ours, copied = np.zeros((2, GRID[0] * GRID[1], PATCH * PATCH * 3), np.float32)
        images.write_patches(view, placement, GRID, PATCH, ours)
        images.write_patches(view.copy(), placement, GRID, PATCH, copied)
        assert np.array_equal(ours, copied)
        assert ours.any()


def test_a_picture_without_write_access_is_written():
    image = picture(64, 72)
    image.flags.writeable = False
    out = np.zeros((GRID[0] * GRID[1], PATCH * PATCH * 3), np.float32)
    images.write_patches(image, images.place(64, 72, (64, 96), None, None), GRID, PATCH, out)
    images.write_patches(image[::-1], images.place(64, 72, (64, 96), None, None), GRID, PATCH, out)
    assert out.any()
