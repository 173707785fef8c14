import numpy as np
import pytest

from pipelines.demo.scenes import ATTRIBUTES, COLOURS, MOTIONS, SHAPES, Look, Scene, corners, draw, empty, pose

LOOK = Look((80, 76, 84), 4.0, 0.3)


def frame(seconds=2.5, colour="red", shape="square", motion="sliding", look=LOOK):
    return draw(Scene(colour, shape, motion, "humming"), look, seconds, 320, 180)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("motion", MOTIONS)
def test_the_commonest_colour_is_that_of_the_scene(colour, motion):
    pixels = frame(colour=colour, motion=motion).reshape(-1, 3).astype(int)
    shown = pixels[np.abs(pixels - LOOK.background).max(1) > 25]
    assert len(shown) > 0.03 * len(pixels)
    nearest = [min(COLOURS, key=lambda c: np.square(p - COLOURS[c]).sum()) for p in shown]
    assert max(set(nearest), key=nearest.count) == colour


def test_every_shape_covers_an_area_of_its_own():
    areas = {shape: _polygon_area(corners(shape)) for shape in SHAPES}
    assert areas["circle"] == pytest.approx(np.pi, rel=0.01)
    assert areas["square"] == pytest.approx(2.0)
    assert areas["triangle"] == pytest.approx(3 * 3**0.5 / 4)
    assert areas["cross"] == pytest.approx(2 * 2 * 0.68 - 0.68**2)
    assert areas["ring"] == pytest.approx(np.pi * 0.75, rel=0.01)
    assert 0 < areas["star"] < areas["triangle"]


def test_each_motion_changes_what_it_says():
    times = np.arange(0, 5, 0.1)
    poses = {motion: [pose(motion, t, 0.3) for t in times] for motion in MOTIONS}

    def spread(motion, part):
        return np.ptp([getattr(p, part) for p in poses[motion]])

    assert spread("sliding", "x") > 0.6
    assert spread("sliding", "y") == 0
    assert spread("bouncing", "y") > 0.25
    assert spread("bouncing", "x") == 0
    assert spread("spinning", "angle") > 360
    steps = {motion: np.diff([p.radius for p in poses[motion]]) for motion in ("growing", "shrinking")}
    assert np.mean(steps["growing"] > 0) > 0.9
    assert np.mean(steps["shrinking"] < 0) > 0.9
    assert 0 < spread("shaking", "x") < 0.2


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_single_frame_tells_its_motion_from_the_others(motion):
    still = frame(seconds=0.0, motion=motion, shape="circle")
    moving = frame(seconds=2.5, motion=motion, shape="circle")
    assert len(np.unique(moving.reshape(-1, 3), axis=0)) > len(np.unique(still.reshape(-1, 3), axis=0))


def test_the_same_arguments_give_the_same_pixels():
    np.testing.assert_array_equal(frame(), frame())


def test_the_background_is_never_taken_for_a_black_bar():
    assert empty(LOOK, 64, 64).min() > 32


def test_unknown_words_are_named():
    with pytest.raises(ValueError, match="'flying' is not a motion; choose one of sliding"):
        pose("flying", 0, 0)
    with pytest.raises(ValueError, match="'cube' is not a shape"):
        corners("cube")


def test_no_word_belongs_to_two_attributes():
    words = [word for options in ATTRIBUTES.values() for word in options]
    assert len(words) == len(set(words)) == 24


def _polygon_area(points):
    x, y = points.T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
