"""The visual rules on numbers, and the default descriptor on footage of five kinds."""

import io
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageDraw, ImageFilter

from ingest import similarity
from ingest.filters import FilterConfig, broken_rule
from ingest.similarity import GroupRules, Look, PictureError, perceptual
from pipelines.demo import footage
from shards.outcomes import Outcome


def jpeg(picture):
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


def test_the_rules_are_the_published_formulas():
    features = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    assert similarity.similarity(features) == pytest.approx((0 + 2 * 0.5**0.5) / 3)
    assert similarity.similarity(features[:1]) == 1
    # Best scores 0.9, 0.3 and 0.31; one at the floor does not count.
    objects = np.array([[0.9, 0.1, 0.31], [0.2, 0.3, 0.0]], np.float64)
    assert similarity.object_count(objects) == pytest.approx(1.21)


@given(arrays(np.float32, st.tuples(st.integers(2, 8), st.integers(1, 20)), elements=st.floats(0, 100, width=32)))
def test_similarity_is_a_mean_of_cosines_in_any_order(features):
    value = similarity.similarity(features)
    assert -1e-6 <= value <= 1 + 1e-6
    assert similarity.similarity(features[::-1]) == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("kind", footage.KINDS)
def test_the_default_descriptor_tells_lively_footage_from_dull(kind):
    for video in range(100, 106):
        pictures = [jpeg(footage.frame(kind, video, shot)) for shot in range(4)]
        scores = similarity.score(pictures, perceptual)
        assert scores.keys() == {"similarity"}
        broken = broken_rule(scores, "en", FilterConfig(max_similarity=similarity.PUBLISHED_MAX_SIMILARITY))
        assert broken is (Outcome.TOO_ALIKE if kind in footage.DULL else None), scores


def room(source):
    """A place of rectangles in little colour, another one for each state of the source."""
    base = source.randint(60, 190)

    def colour():
        grey = base + source.randint(-60, 60)
        return tuple(min(max(grey + source.randint(-40, 40), 0), 255) for _ in "rgb")

    image = Image.new("RGB", (400, 225), colour())
    canvas = ImageDraw.Draw(image)
    canvas.rectangle((0, source.randint(110, 190), 400, 225), fill=colour())
    for _ in range(source.randint(4, 12)):
        x, y = source.randint(-20, 380), source.randint(-20, 210)
        canvas.rectangle((x, y, x + source.randint(15, 140), y + source.randint(15, 120)), fill=colour())
    return image.filter(ImageFilter.GaussianBlur(1.5))


def places(video):
    """Four places, one after the other."""
    return [np.asarray(room(random.Random(1000 * video + shot))) for shot in range(4)]


def sway(video):
    """One place by a camera in the hand."""
    whole, hand = room(random.Random(99_000 + video)), random.Random(video)
    corners = [(hand.randint(0, 14), hand.randint(0, 10)) for _ in range(4)]
    return [np.asarray(whole.crop((x, y, x + 380, y + 212))) for x, y in corners]


def clouds(video):
    """Four soft patterns of colour at every scale, like foliage or sky."""
    rng = np.random.default_rng(video)
    scale = np.hypot(np.fft.fftfreq(180)[:, None] * 180, np.fft.fftfreq(320)[None] * 320)
    scale[0, 0] = 1

    def pattern():
        soft = np.fft.ifft2(np.fft.fft2(rng.normal(size=(180, 320))) / scale**1.2).real
        return (soft - soft.mean()) / soft.std()

    def picture():
        form, level = pattern(), rng.uniform(60, 180)
        return np.stack([level * rng.uniform(0.6, 1.4) + 45 * (form + 0.4 * pattern()) for _ in "rgb"], axis=-1)

    return [np.clip(picture(), 0, 255).astype(np.uint8) for _ in range(4)]


def lively(video):
    return [footage.frame("lively", video, shot) for shot in range(4)]


def score(pictures, *exposures):
    """The similarity of pictures as they are stored, each taken at its exposure."""
    taken = [p * np.float32(e) for p, e in zip(pictures, exposures * (4 // len(exposures)), strict=True)]
    stored = [jpeg(np.clip(p, 0, 255).round().astype(np.uint8)) for p in taken]
    return similarity.score(stored, perceptual)["similarity"]


LIMIT = similarity.PUBLISHED_MAX_SIMILARITY


@pytest.mark.parametrize("footage_of", [places, clouds, lively, sway], ids=lambda family: family.__name__)
def test_the_score_does_not_depend_on_how_dark_the_footage_is(footage_of):
    for video in range(6):
        pictures = footage_of(video)
        bright = score(pictures, 1.0)
        assert (bright > LIMIT) == (footage_of is sway)
        for brightness, change in ((0.5, 0.02), (0.25, 0.05), (0.12, 0.15), (0.1, 0.15)):
            assert score(pictures, brightness) == pytest.approx(bright, abs=change), (video, brightness)


@pytest.mark.parametrize("footage_of", [places, clouds, lively], ids=lambda family: family.__name__)
def test_changing_exposure_is_similar_and_a_cut_is_not(footage_of):
    for video in range(6):
        pictures = footage_of(video)
        for exposures in ((0.7, 0.9, 1.1, 1.3), (1.0, 1.3, 0.7, 1.0)):
            assert score([pictures[0]] * 4, *exposures) > LIMIT, video
            assert score(pictures, *exposures) < LIMIT, video


def test_black_pictures_are_alike():
    black = jpeg(np.zeros((90, 160, 3), np.uint8))
    assert similarity.score([black] * 4, perceptual) == {"similarity": 1.0}


def test_objects_are_judged_where_the_embedder_knows_them():
    def embed(pictures):
        return Look(np.eye(len(pictures), 5, dtype=np.float32), np.full((len(pictures), 81), 0.2, np.float32))

    pictures = [jpeg(footage.frame("lively", 0, shot)) for shot in range(4)]
    scores = similarity.score(pictures, embed)
    assert scores == {"similarity": 0.0, "objects": 0.0}
    assert broken_rule(scores, "en", FilterConfig(min_objects=0.9)) is Outcome.TOO_EMPTY
    assert GroupRules("x", 0, min_objects=1.0).broken(scores) is Outcome.TOO_EMPTY
    assert GroupRules("x", 0, max_similarity=0.0, min_objects=None).broken(scores) is None


def test_a_picture_that_is_none_is_named():
    with pytest.raises(PictureError, match="a picture of 11 bytes cannot be decoded"):
        similarity.score([b"not a JPEG!"], perceptual)


def test_pictures_are_spread_over_the_video():
    assert similarity.spread(8) == [1, 3, 5, 7]
    assert similarity.spread(100) == [12, 37, 62, 87]
    assert similarity.spread(3) == [0, 1, 2]
    assert similarity.spread(1) == [0]


def test_a_share_of_the_groups_is_looked_at():
    rules = GroupRules("perceptual", 5, max_similarity=0.85, probability=0.1)
    drawn = [rules.draws("train-g0000-00000of00001.tfrecord", i) for i in range(4000)]
    assert 0.07 < np.mean(drawn) < 0.13
    assert not GroupRules("perceptual", 5).active
