import itertools
import random

import numpy as np
import pytest

from pipelines.demo.script import DISTRACTORS, PROMPTS
from pipelines.demo.voice import VOICES, VoiceError, speak, word_times

TEXT = "The color is red, it is growing out of the way. Isn't this a circle? You hear that ringing."


@pytest.mark.parametrize("voice", VOICES)
def test_every_written_word_has_a_time_in_order(voice):
    speech = speak(TEXT, voice)
    assert [word.text for word in speech.words] == TEXT.split()
    assert all(word.start < word.end for word in speech.words)
    assert all(a.end <= b.start for a, b in itertools.pairwise(speech.words))
    assert speech.words[-1].end == pytest.approx(len(speech.waveform) / speech.rate, abs=0.002)


def test_words_are_audible_and_pauses_are_silent():
    speech = speak(TEXT)
    for word in speech.words:
        assert np.abs(_part(speech, word.start, word.end)).max() > 0.02
    circle, you = (next(w for w in speech.words if w.text == text) for text in ("circle?", "You"))
    assert you.start - circle.end > 0.1
    assert np.abs(_part(speech, circle.end + 0.002, you.start)).max() < 0.02


def test_what_was_said_before_changes_nothing():
    first = {voice: speak(TEXT, voice) for voice in VOICES}
    order = random.Random(0).sample(VOICES * 3, 3 * len(VOICES))
    for voice in order:
        speak("Something else.", voice, 250)
        again = speak(TEXT, voice)
        np.testing.assert_array_equal(first[voice].waveform, again.waveform)
        assert first[voice].words == again.words


def test_a_higher_rate_is_shorter():
    assert len(speak(TEXT, rate=250).waveform) < 0.8 * len(speak(TEXT, rate=150).waveform)


def test_all_that_the_scripts_say_is_timed_word_by_word():
    clauses = [prompt.format("red") for prompt in PROMPTS.values()]
    for text in (*clauses, *DISTRACTORS):
        assert [word.text for word in speak(text).words] == text.split()


def test_words_spoken_as_one_share_their_time_by_their_letters():
    words = word_times("out of the blue", {0: 0.0, 11: 0.9}, [], 1.5)
    assert [(w.text, w.start, w.end) for w in words] == [
        ("out", 0.0, 0.338),
        ("of", 0.338, 0.562),
        ("the", 0.562, 0.9),
        ("blue", 0.9, 1.5),
    ]


def test_bad_arguments_are_named():
    with pytest.raises(VoiceError, match="no voice 'klingon-x'; use one of en-us"):
        speak("hello", "klingon-x")
    with pytest.raises(VoiceError, match="nothing to say in '  '"):
        speak("  ")


def _part(speech, start, end):
    return speech.waveform[round(start * speech.rate) : round(end * speech.rate)]
