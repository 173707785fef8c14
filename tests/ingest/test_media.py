import json

import numpy as np
import pytest
from PIL import Image

from ingest import media
from ingest.media import MediaError, black_bars, target_size
from shards.outcomes import Outcome

NAME = "gOldVidA_01"


def all_frames(path):
    import av

    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_the_published_frame_is_picked_at_30_fps(golden):
    path = golden / "videos" / f"{NAME}.mp4"
    picks = json.loads((golden / "g_images.json").read_text())["frames"][NAME]["picks"]
    frames, _ = media.read(str(path), [pick["t"] for pick in picks])
    wanted = {pick["frame_index"] for pick in picks} - {None}
    decoded = {i: frame for i, frame in enumerate(all_frames(path)) if i in wanted}
    for pick, frame in zip(picks, frames, strict=True):
        if pick["frame_index"] is None:
            assert frame is None, pick
        else:
            assert np.array_equal(frame, decoded[pick["frame_index"]]), pick


@pytest.mark.parametrize("name", ["fps23976", "vfr"])
def test_the_published_frame_is_picked_at_odd_rates(golden, name):
    path = golden / "videos_fps" / f"{name}.mp4"
    picks = json.loads((golden / "g_fps_picks.json").read_text())[name]["picks"]
    decoded = all_frames(path)
    for frames in (
        media.read(str(path), [pick["t"] for pick in picks])[0],
        [media.read(str(path), [pick["t"]])[0][0] for pick in picks],
    ):
        for pick, frame in zip(picks, frames, strict=True):
            assert np.array_equal(frame, decoded[pick["frame"]]), pick


@pytest.mark.parametrize("stamp", ["2.500", "12.345", "41.500"])
def test_pixels_equal_the_published_ones(golden, parity, stamp):
    expected = np.asarray(Image.open(golden / f"g_frame_{NAME}_t{stamp}.png").convert("RGB")).astype(int)
    (frame,), _ = media.read(str(golden / "videos" / f"{NAME}.mp4"), [float(stamp)])
    error = np.abs(frame.astype(int) - expected).mean()
    parity.record("g_frame_*.png", "mean difference", error, "grey levels")
    assert error < 2


def test_black_bars(golden):
    arrays = np.load(golden / "g_images.npz")
    for case in json.loads((golden / "g_images.json").read_text())["bars"]:
        if case["kwargs"]:
            assert list(black_bars(arrays[f"bars/{case['name']}"])) == case["result"], case["name"]


def test_black_bars_of_a_video(golden):
    expected = json.loads((golden / "g_images.json").read_text())["frames"][NAME]
    frames, _ = media.read(str(golden / "videos" / f"{NAME}.mp4"), [2.5, 12.5, 41.5])
    box = black_bars(frames)
    assert list(box) == expected["black_bar_crop_y1y2x1x2"]
    jpeg, width, height = media.encode_frame(frames[0], box)
    assert [width, height] == expected["resize_target_wh"]
    assert jpeg[:2] == b"\xff\xd8"


def test_sizes(golden):
    for case in json.loads((golden / "g_images.json").read_text())["get_size_for_resize"]:
        assert list(target_size(*case["wh"])) == case["trg288_max512"], case["wh"]
    assert target_size(640, 350) == (512, 280)
    assert target_size(640, 361) == (510, 288)
    assert target_size(636, 356) == (512, 287)
    assert target_size(640, 300) == (512, 240)


def test_sound_is_mono_and_as_long_as_the_video(golden):
    _, waveform = media.read(str(golden / "videos" / f"{NAME}.mp4"), [])
    assert waveform.dtype == np.float32
    assert len(waveform) / 22050 == pytest.approx(83, abs=0.1)
    assert 1000 < np.abs(waveform).max() <= 32768


def test_no_sound_gives_an_empty_waveform(golden):
    frames, waveform = media.read(str(golden / "videos_fps" / "vfr.mp4"), [1.0])
    assert frames[0].shape[2] == 3
    assert waveform.shape == (0,)


def test_what_is_no_media_is_named(tmp_path):
    wrong = tmp_path / "wrong.mp4"
    wrong.write_text("<html>not a video</html>")
    with pytest.raises(MediaError, match=r"wrong\.mp4 cannot be opened") as caught:
        media.read(str(wrong), [0.0])
    assert caught.value.outcome is Outcome.MEDIA_UNREADABLE
    with pytest.raises(MediaError, match="there is no media file"):
        media.probe(str(tmp_path / "absent.mp4"))
