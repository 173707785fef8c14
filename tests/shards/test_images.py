import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.arrays import images
from shards.arrays.resampling import METHODS, taps
from shards.records import tfrecord
from shards.records.pretraining import parse_example
from shards.storage.errors import RecordError

GRID, PATCH = (12, 20), 16


def picture(patches, grid=GRID, patch=PATCH):
    """Patches put together again."""
    return patches.reshape(*grid, patch, patch, 3).transpose(0, 2, 1, 3, 4).reshape(grid[0] * patch, grid[1] * patch, 3)


def fitted(image, dtype=np.float32):
    image = images.turn(image)
    out = np.empty((240, 768), dtype)
    images.write_patches(image, images.place(*image.shape[:2], (192, 320), None, None), GRID, PATCH, out)
    return out


@pytest.mark.parametrize("case", ["small", "vert"])
def test_resized_pictures_equal_the_golden_ones(golden, parity, case):
    held = np.load(golden / "j_resize_and_pad.npz")
    image = held[f"{case}/in"]
    out = picture(fitted(image))[::4, ::4]
    error = np.abs(out - held[f"{case}/out_192x320_every4th_px"].astype(np.float32))
    parity.record("j_resize_and_pad.npz", f"{case}: mean", error.mean() * 255, "of 255")
    assert error.mean() < 1 / 255
    assert error.max() < 2 / 255
    placement = images.place(*images.turn(image).shape[:2], (192, 320), None, None)
    info = held[f"{case}/image_info"]
    np.testing.assert_allclose([placement.height / 192, placement.width / 320], info[:2], atol=1e-6)


def test_golden_frames_become_the_golden_patches(golden, parity):
    held = np.load(golden / "j_batch2.npz")
    with (golden / "train00000of00001.tfrecord").open("rb") as file:
        example = parse_example(next(tfrecord.scan(file, "golden"))[1])
    ours = np.concatenate([fitted(images.decode(placed.segment.image)) for placed in example.segments])
    means = np.abs(ours.mean(axis=1) - held["images_patch_mean"][0].astype(np.float32))
    chosen = [segment * 240 + patch for segment in range(4) for patch in (0, 119, 239)]
    reference = held["images[0,:4 segs patches 0,119,239]"].astype(np.float32)
    error = np.abs(ours[chosen] - reference)
    parity.record("j_batch2.npz", "images: mean", error.mean() * 255, "of 255")
    assert means.max() < 2 / 255
    assert error.mean() < 1 / 255
    assert error.max() < 2 / 255


def test_a_portrait_is_turned_between_grey_stripes():
    image = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    turned = images.turn(image)
    assert turned.shape == (6, 16, 3)
    assert (turned[:, :4] == 127.5).all()
    assert (turned[:, -4:] == 127.5).all()
    assert (turned[0, 4] == image[0, -1]).all()
    assert (turned[-1, 4] == image[0, 0]).all()
    assert images.turn(image[:7]) is not None
    assert images.turn(np.zeros((7, 6, 3), np.uint8)).shape == (7, 6, 3)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(16, 700),
    width=st.integers(16, 700),
    seed=st.integers(0, 999),
    both=st.booleans(),
    method=st.sampled_from(METHODS),
)
def test_pictures_stay_in_range_and_are_padded_below_and_right(height, width, seed, both, method):
    rng = np.random.default_rng(seed)
    image = rng.integers(1, 256, (height, width, 3), dtype=np.uint8)
    placement = images.place(height, width, (64, 96), images.Scaling(1.0, 1.3, both), rng)
    placement = images.Placement(placement.height, placement.width, placement.top, placement.left, method)
    out = np.full((24, 768), np.nan, np.float32)
    images.write_patches(image, placement, (4, 6), PATCH, out)
    whole = picture(out, (4, 6))
    assert whole.min() >= 0
    assert whole.max() <= 1
    covered = (min(placement.height - placement.top, 64), min(placement.width - placement.left, 96))
    assert (whole[covered[0] :] == 0).all()
    assert (whole[:, covered[1] :] == 0).all()
    assert covered[0] > 0
    assert covered[1] > 0


@pytest.mark.parametrize("method", METHODS)
def test_weights_keep_a_flat_picture_flat(method):
    for source, target in ((512, 336), (100, 230), (7, 7), (640, 33)):
        first, weights = taps(source, target, method)
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
        assert first.min() >= 0
        reach = first + (weights != 0).cumsum(axis=1).argmax(axis=1)
        assert reach.max() < source


def test_other_types_hold_the_same_picture():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    image = np.random.default_rng(1).integers(0, 256, (288, 512, 3), dtype=np.uint8)
    exact = fitted(image)
    np.testing.assert_array_equal(fitted(image, np.uint16).view(ml_dtypes.bfloat16), exact.astype(ml_dtypes.bfloat16))
    np.testing.assert_array_equal(fitted(image, np.uint8), np.floor(exact * 255 + 0.5).astype(np.uint8))


def test_what_is_no_picture_is_refused():
    with pytest.raises(RecordError, match="not a JPEG"):
        images.decode(b"\xff\xd8 nothing")
