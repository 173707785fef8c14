"""Windows, prompts, options and their merging, on the golden checkpoint with a small vocabulary of its own."""

import dataclasses
import lzma

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from model import inference, published
from model.checkpoints import GRID_NAME, CheckpointError, export, write_grid
from model.config import DEFAULT_GRID
from model.inference import VideoInputs
from model.reserve import InputError
from shards.tokens import AUDIOSPAN, MASK, SPECIAL_TOKENS


@pytest.fixture(scope="module")
def model(tmp_path_factory, golden_folder):
    folder = tmp_path_factory.mktemp("model")
    (folder / "ckpt_3").write_bytes(lzma.decompress((golden_folder / "ckpt/no_optimizer/ckpt_3.xz").read_bytes()))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(["a cat plays with a dog", "the dog makes coffee"], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return published.load(folder, grid=(4, 6))


@pytest.fixture(scope="module")
def video():
    rng = np.random.default_rng(0)
    images = rng.random((11, 24, 768), np.float32)
    clips = rng.random((11, 3, 60, 65), np.float32)
    return VideoInputs(images, clips, [[20 + i] * 10 for i in range(11)])


@given(st.integers(1, 60), st.integers(1, 8))
def test_windows_cover_every_segment_and_are_full(segments, size):
    ranges = inference.windows(segments, size)
    assert set().union(*ranges) == set(range(segments))
    assert {len(window) for window in ranges} == {min(size, segments)}
    stride = max(size - 1, 1)
    assert len(ranges) == max(-(-(segments - size) // stride), 0) + 1


def test_a_window_of_sound_with_a_prompt(model, video):
    prompt = [30, 31, MASK]
    inputs = inference.window_inputs(model, video, range(3, 11), prompt)
    assert inputs.tokens[:3].tolist() == prompt
    assert (inputs.tokens == AUDIOSPAN).sum() == 7 * 18
    assert inputs.subsegments[:3].tolist() == [0, 0, 0]
    assert inputs.subsegments[3:21].tolist() == [3] * 6 + [4] * 6 + [5] * 6
    assert inputs.tokens[129:].tolist() == [0] * 31
    assert inputs.subsegments[129:].tolist() == [-1] * 31
    assert not inputs.silent


def test_eight_heard_segments_without_a_prompt_use_144_tokens(model, video):
    inputs = inference.window_inputs(model, video, range(8))
    assert (inputs.tokens != 0).sum() == 144
    assert (inputs.subsegments[144:] == -1).all()


def test_a_long_prompt_drops_whole_sounds_and_never_its_mask(model, video):
    prompt = [30] * 60 + [MASK]
    inputs = inference.window_inputs(model, video, range(8), prompt, prompt_segment=-1)
    heard = inputs.subsegments[inputs.tokens == AUDIOSPAN]
    assert np.unique(heard, return_counts=True)[1].tolist() == [6] * 16
    assert (inputs.tokens == MASK).sum() == 1
    assert inputs.subsegments[inputs.tokens == MASK] == 21
    with pytest.raises(InputError, match="prompt has 161 tokens; at most 160"):
        inference.window_inputs(model, video, range(8), [30] * 160 + [MASK])


def test_a_window_of_text_needs_no_sound(model, video):
    inputs = inference.window_inputs(model, video, range(2, 5), [30, MASK], prompt_segment=1, use="text")
    assert inputs.silent
    assert inputs.tokens[:22].tolist() == [22] * 10 + [30, MASK] + [24] * 10
    silent = VideoInputs(video.images, None, None)
    assert (inference.window_inputs(model, silent, range(2), [MASK]).tokens != 0).sum() == 1
    for use, missing in (("audio", "no audio_clips"), ("text", "no texts")):
        with pytest.raises(InputError, match=missing):
            inference.window_inputs(model, silent, range(2), [MASK], use=use)


def test_texts_may_be_words_or_token_ids(model, video):
    words = VideoInputs(video.images[:2], None, ["a cat", "the dog"])
    ids = [model.tokenizer.encode(text, add_special_tokens=False).ids for text in words.texts]
    same = VideoInputs(video.images[:2], None, ids)
    first, second = (inference.window_inputs(model, v, range(2)).tokens for v in (words, same))
    np.testing.assert_array_equal(first, second)


def test_prompts_have_masks_without_a_space_before_them(model):
    tight, spaced = (inference.encode_prompt(model, f"the cat{gap}<|MASK|>.") for gap in ("", "  "))
    assert tight == spaced
    assert tight.count(MASK) == 1
    assert inference.encode_prompt(model, "a <|MASK|> b <|MASK|>").count(MASK) == 2
    with pytest.raises(InputError, match="has no <|MASK|>".replace("|", r"\|")):
        inference.encode_prompt(model, "no mask")
    with pytest.raises(InputError, match="has several"):
        inference.answer(model, VideoInputs(np.zeros((1, 24, 768), np.float32)), "<|MASK|> <|MASK|>", ["a"])


def test_an_answer_agrees_with_the_methods_it_is_made_of(model, video):
    options = ["a cat", "a dog", "coffee"]
    answers = inference.answer(model, video, "the cat plays with <|MASK|>", options)
    assert answers.logits.shape == (2, 3)
    labels = np.asarray(model.get_label_space(options))
    prompt = inference.encode_prompt(model, "the cat plays with <|MASK|>")
    assert answers.windows == (range(8), range(3, 11))
    for row, window in enumerate(answers.windows):
        parts = inference.window_inputs(model, video, window, prompt)
        chosen = slice(window.start, window.stop)
        clips = video.audio_clips[chosen].reshape(-1, 60, 65)
        embedded = model.embed_video(video.images[chosen], clips, parts.tokens, parts.subsegments)
        expected = 100 * np.asarray(embedded)[prompt.index(MASK)] @ labels.T
        np.testing.assert_allclose(answers.logits[row], expected, atol=1e-3)
    assert answers.probabilities.sum() == pytest.approx(1)
    assert (np.diff(answers.probabilities) <= 0).all()
    assert set(answers.options) == set(options)


def test_many_prompts_and_masks_are_the_same_as_one_by_one(model, video):
    options = ["a cat", "a dog", "coffee"]
    prompts = ["the cat plays with <|MASK|>", "<|MASK|> makes <|MASK|>"]
    together = inference.answer_all(model, video, prompts, options, stride=2)
    assert [len(each) for each in together] == [1, 2]
    alone = inference.answer(model, video, prompts[0], options, stride=2)
    np.testing.assert_allclose(together[0][0].logits, alone.logits, atol=1e-3)
    assert alone.windows == (range(8), range(2, 10), range(3, 11))
    assert model.answer(video, prompts[0], options, stride=2).options == alone.options
    np.testing.assert_allclose(alone.over_time().sum(axis=1), 1, rtol=1e-5)


def test_frames_alone_never_touch_the_audio_encoder(model, video):
    without = {name: tree for name, tree in model.params.items() if name != "audio_encoder"}
    deaf = dataclasses.replace(model, params=without)
    asked = ("the cat plays with <|MASK|>", ["a cat", "a dog"])
    silent = VideoInputs(video.images)
    np.testing.assert_allclose(deaf.answer(silent, *asked).logits, model.answer(silent, *asked).logits, atol=1e-3)


def test_many_options_are_embedded_once_and_kept(model, tmp_path):
    options = [f"cat {i} dog" for i in range(700)]
    labels = inference.label_space(model, options, tmp_path)
    few = np.asarray(model.get_label_space(options[600:610]))
    np.testing.assert_allclose(labels[600:610], few, atol=1e-5)
    (kept,) = (tmp_path / "labels").iterdir()
    deaf = dataclasses.replace(model)
    deaf.__dict__["_compiled"] = {}
    np.testing.assert_array_equal(inference.label_space(deaf, options, tmp_path), labels)
    assert not deaf._compiled, "nothing was embedded again"
    assert list((tmp_path / "labels").iterdir()) == [kept]


@pytest.mark.parametrize(("options", "complaint"), [([], "no options"), (["a", " "], "empty"), (["a", "a"], "twice")])
def test_options_that_are_none(model, options, complaint):
    with pytest.raises(InputError, match=complaint):
        inference.label_space(model, options)


def test_merging_averages_probabilities():
    answers = inference.merge(["a", "b"], np.array([[0.0, 0.0], [0.0, np.log(3)]]))
    assert answers.options == ("b", "a")
    np.testing.assert_allclose(answers.probabilities, [(0.5 + 0.75) / 2, (0.5 + 0.25) / 2])


def test_options_are_cut_with_a_warning_and_must_exist(model):
    long = " ".join(["dog"] * 40)
    with pytest.warns(UserWarning, match="is cut to 15"):
        cut = model.get_label_space([long, "dog"])
    assert cut.shape == (2, 64)
    with pytest.raises(InputError, match="no options"):
        model.get_label_space([])


def test_parts_of_a_video_must_be_of_one_length(video):
    with pytest.raises(InputError, match="audio_clips has 3 segments where images has 11"):
        VideoInputs(video.images, video.audio_clips[:3])
    with pytest.raises(InputError, match="0 segments"):
        inference.windows(0)


def test_the_grid_is_found_beside_exported_weights(model, tmp_path):
    export(model.params, tmp_path / "ckpt_1")
    assert published.load(tmp_path, grid=None).config.grid == DEFAULT_GRID
    write_grid(str(tmp_path), model.config)
    assert published.load(tmp_path, grid=None).config.grid == (4, 6)
    assert published.load(tmp_path / "ckpt_1", grid=None).config.grid == (4, 6)
    (tmp_path / GRID_NAME).write_text("[]")
    with pytest.raises(CheckpointError, match="is damaged"):
        published.load(tmp_path, grid=None)
