"""Invariants of the arrays of an example (docs/spec/shards.md 16).

The checks are independent of the code that computes the arrays, so they apply to any reader of this format.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from shards.inspection.verify import Finding
from shards.reading.config import ReaderConfig, StreamOptions
from shards.reading.masking import Sequence
from shards.reading.pretraining import PretrainingParser
from shards.reading.source import Source
from shards.reading.vocabulary import Vocabulary, of_data
from shards.records.parser import Arrays
from shards.records.pretraining import Example, parse_example
from shards.storage.errors import RecordError, UserError
from shards.storage.randomness import generator
from shards.tokens import AUDIOSPAN, END, LTOVPOOL, MASK, MASKAUDIO, PADDING, START

_MASKS = (MASK, MASKAUDIO)


def check_data(data: str, split: str | None = None) -> Iterator[Finding]:
    """Read every record of a data set as in training and yield the violated invariants of its arrays."""
    source = Source(data, split)
    vocabulary = of_data(source.folder, source.manifest)
    for shard, count in enumerate(source.counts):
        for record in range(count):
            name = source.name(shard, record)
            try:
                payload = source.read(shard, record)
                example = parse_example(payload)
                config = _config_for(example)
                parser = PretrainingParser(config, vocabulary)
                arrays = {key: np.empty(shape, dtype) for key, (shape, dtype) in parser.spec().items()}
                parser(payload, lambda purpose, name=name: generator(0, "verify", purpose, name), arrays)
            except (RecordError, UserError) as error:
                yield Finding(source.where(shard, record), str(error))
                continue
            for problem in check_example(arrays, config, vocabulary, example):
                yield Finding(source.where(shard, record), problem)


def _config_for(example: Example) -> ReaderConfig:
    """Return the base configuration with the numbers of segments and web texts of the record."""
    segments, texts = len(example.segments), min(len(example.random_text), 1)
    return ReaderConfig(
        segments=segments,
        groups=2 if segments % 2 == 0 else 1,
        random_text_sequences=texts,
        random_text_spans=38,
        sequence_length=max(640, 20 * segments),
        matching_audio_rate=0.5,
        stream=StreamOptions(),
    )


def check_example(arrays: Arrays, config: ReaderConfig, vocabulary: Vocabulary, example: Example) -> list[str]:
    """Return the violated invariants of one example's arrays, as sentences with the number of the invariant."""
    shapes = list(_check_shapes(arrays, config, vocabulary))
    if shapes:
        return shapes
    checks = (
        _check_pointers(arrays, config),
        _check_masks(arrays, config, example),
        _check_rows(arrays, config),
        _check_matching(arrays, config, example),
        _check_spans(arrays, config, vocabulary, example),
        _check_media(arrays, config, example),
    )
    return [problem for check in checks for problem in check]


def _check_shapes(arrays: Arrays, config: ReaderConfig, vocabulary: Vocabulary) -> Iterator[str]:
    for name, (shape, dtype) in PretrainingParser(config, vocabulary).spec().items():
        if name not in arrays:
            yield f"1: {name} is missing"
        elif arrays[name].shape != shape or arrays[name].dtype != dtype:
            yield f"1: {name} is {arrays[name].dtype} {arrays[name].shape} instead of {dtype} {shape}"
        elif "/" not in name and dtype == np.int32 and name != "meta":
            low, high = arrays[name].min(initial=0), arrays[name].max(initial=0)
            if low < 0 or high >= vocabulary.size:
                yield f"1: {name} holds {low} to {high}"


def _sequences(arrays: Arrays, config: ReaderConfig) -> Iterator[tuple[str, Sequence]]:
    """Yield every sequence of the example with its name."""
    for name in ("text2audio", "audio2text", "audio_text_matching", "random_text"):
        if name in arrays:
            stacked = np.stack([arrays[name], arrays[f"{name}/audio_ptr"], arrays[f"{name}/text_ptr"]], axis=-1)
            yield from ((name, sequence) for sequence in stacked)


def _check_pointers(arrays: Arrays, config: ReaderConfig) -> Iterator[str]:
    allowed = {
        "text2audio": _MASKS,
        "audio2text": (MASK, AUDIOSPAN),
        "audio_text_matching": (AUDIOSPAN, LTOVPOOL),
        "random_text": (MASK,),
    }
    special = {MASK, MASKAUDIO, AUDIOSPAN, LTOVPOOL}
    for name, sequence in _sequences(arrays, config):
        ids, audio_ptr, text_ptr = sequence.T
        padding = ids == PADDING
        if padding.any() and not padding[padding.argmax() :].all():
            yield f"2: {name} has entries after its padding"
        if (audio_ptr[padding] != -1).any() or (text_ptr[padding] != -1).any():
            yield f"2: the padding of {name} has pointers"
        if name != "audio_text_matching" and ((text_ptr >= 0) != np.isin(ids, _MASKS)).any():
            yield f"3: the text pointers of {name} are not exactly at its masks"
        if name == "audio_text_matching" and (text_ptr != -1).any():
            yield "3: the matching sequence has text pointers"
        if strays := special.difference(allowed[name]).intersection(ids.tolist()):
            yield f"9: {name} holds the special tokens {sorted(strays)}"


def _check_masks(arrays: Arrays, config: ReaderConfig, example: Example) -> Iterator[str]:
    first = 0
    targets: list[set[int]] = []
    for name, count in (("text2audio", config.text2audio_sequences), ("audio2text", config.audio2text_sequences)):
        ids, audio_ptr, text_ptr = (arrays[name + suffix] for suffix in ("", "/audio_ptr", "/text_ptr"))
        for i in range(count):
            part = slice(i * config.groups, (i + 1) * config.groups)
            at = ids[part] == MASK
            if text_ptr[part][at].tolist() != list(range(first, first + config.targets)):
                yield f"4, 5: the masks of {name} point to {text_ptr[part][at].tolist()}"
            targets.append(set(audio_ptr[part][at].tolist()))
            if len(targets[-1]) != config.targets:
                yield f"8: {name} masks {len(targets[-1])} different rows instead of {config.targets}"
            first += config.targets
    if sum(map(len, targets)) != len(set().union(*targets)):
        yield "8: the targets of the sequences are not disjoint"
    budget = config.text_shape.budget
    for i in range(config.random_text_sequences):
        ids = arrays["random_text"][i]
        pointers = arrays["random_text/text_ptr"][i][ids == MASK].tolist()
        full = (ids != PADDING).sum() >= config.limit
        short = min((text.size for text in example.random_text), default=0) < config.sequence_length
        if pointers != list(range(first, first + len(pointers))) or (len(pointers) < budget and not (full or short)):
            yield f"4, 5: the masks of random_text point to {pointers}"
        first += budget


def _check_rows(arrays: Arrays, config: ReaderConfig) -> Iterator[str]:
    per_group = config.rows // config.groups
    target_rows: dict[int, set[int]] = {}
    for name in ("text2audio", "audio2text"):
        for i, (ids, pointers) in enumerate(zip(arrays[name], arrays[f"{name}/audio_ptr"], strict=True)):
            used, group = pointers[ids != PADDING], i % config.groups
            if used.size and not (group * per_group <= used[0] and used[-1] < (group + 1) * per_group):
                yield f"7: group {group} of {name} points to rows {used[0]} to {used[-1]}"
            if (np.diff(used) < 0).any():
                yield f"7: the audio pointers of {name} step back"
            if name == "audio2text":
                target_rows.setdefault(i // config.groups, set()).update(pointers[ids == MASK].tolist())
    whole = [(arrays[name] == PADDING).any(axis=1) for name in ("text2audio", "audio2text")]
    for ids, pointers, text, untouched in zip(
        *(arrays["text2audio" + suffix] for suffix in ("", "/audio_ptr", "/text_ptr")), whole[0], strict=True
    ):
        at = np.flatnonzero(ids == MASK)
        after = np.minimum(at + 1, ids.size - 1)
        paired = (ids[after] == MASKAUDIO) & (pointers[after] == pointers[at]) & (text[after] == text[at])
        if (untouched or not config.parity) and not (paired.all() and (ids == MASKAUDIO).sum() == at.size):
            yield "6: a mask of text2audio is not followed by its audio mask"
    for i, (ids, pointers) in enumerate(zip(arrays["audio2text"], arrays["audio2text/audio_ptr"], strict=True)):
        targets = target_rows[i // config.groups]
        for row in np.unique(pointers[ids != PADDING]):
            here = ids[pointers == row]
            sounds, masks = int((here == AUDIOSPAN).sum()), int((here == MASK).sum())
            last = row == pointers[ids != PADDING][-1]
            runs = (sounds == config.audio_tokens == here.size) or (0 < sounds == here.size and last)
            textual = not sounds and not masks
            if (whole[1][i] or not config.parity) and not (runs or (masks == 1 and here.size == 1) or textual):
                yield f"10: row {row} of audio2text holds {sounds} sounds and {masks} masks in {here.size} entries"
            if textual and not {row - 1, row + 1} & targets:
                yield f"11: row {row} of audio2text is text without a target beside it"


def _check_matching(arrays: Arrays, config: ReaderConfig, example: Example) -> Iterator[str]:
    ids, pointers = arrays["audio_text_matching"][0], arrays["audio_text_matching/audio_ptr"][0]
    used = int((ids != PADDING).sum())
    pools = pointers[ids == LTOVPOOL].tolist()
    expected = [config.subsegments * j for j in range(config.segments)]
    if pools != expected and (used < config.sequence_length or not config.parity):
        yield f"9: the pooling tokens point to {pools}"
    sounds = int((ids == AUDIOSPAN).sum())
    if sounds not in (0, config.rows * config.audio_tokens):
        yield f"12: the matching sequence holds {sounds} sounds"
    front = int((pointers >= 0).argmax())
    if ids[front] != LTOVPOOL or (pointers[front:used] < 0).any():
        yield "13: the body of the matching sequence does not start with a pooling token"
    if front and (ids[0] != START or (front < config.limit - (used - front) and ids[front - 1] != END)):
        yield "13: the header of the matching sequence is not whole although there is room"
    if not sounds and used < config.limit:
        words = ids[front:used][ids[front:used] != LTOVPOOL]
        if words.tolist() != np.concatenate([placed.segment.tokens for placed in example.segments]).tolist():
            yield "14: the words of the matching sequence are not those of the example"


def _check_spans(arrays: Arrays, config: ReaderConfig, vocabulary: Vocabulary, example: Example) -> Iterator[str]:
    spans = arrays["text_spans"]
    filled = spans != PADDING
    if (np.diff(filled.astype(np.int8), axis=1) > 0).any():
        yield "16: a text span has words after its padding"
    spoken = config.targets * (config.text2audio_sequences + config.audio2text_sequences)
    if not vocabulary.spoken[spans[spoken:][filled[spoken:]]].all():
        yield "16: a span of random text holds tokens that speech does not have"
    tokens = np.concatenate([placed.segment.tokens for placed in example.segments]).tolist()
    text = " ".join(map(str, tokens)) + " "
    for row in spans[:spoken]:
        if (" " + " ".join(map(str, row[row != PADDING].tolist())) + " ").strip() + " " not in " " + text and row.any():
            yield f"15: the span {row[row != PADDING].tolist()} is not a piece of the example's words"
    for i in range(config.text2audio_sequences):
        part = slice(i * config.groups, (i + 1) * config.groups)
        ids, text_ptr = arrays["text2audio"][part], arrays["text2audio/text_ptr"][part]
        if (ids != PADDING).all(axis=1).any() or filled[: config.targets * (i + 1), -1].any():
            continue
        rebuilt: list[int] = []
        for token, pointer in zip(ids.reshape(-1).tolist(), text_ptr.reshape(-1).tolist(), strict=True):
            if token == MASK:
                rebuilt += spans[pointer][filled[pointer]].tolist()
            elif token not in (PADDING, MASKAUDIO):
                rebuilt.append(token)
        if rebuilt != tokens:
            yield "14: putting the spans of text2audio back does not give the example's words"


def _check_media(arrays: Arrays, config: ReaderConfig, example: Example) -> Iterator[str]:
    clips = arrays["audio_clips"].astype(np.float32).reshape(config.segments, -1, 65)
    for j, (clip, placed) in enumerate(zip(clips, example.segments, strict=True)):
        # A bfloat16 is at most 1/256 away from what it stands for.
        bound = 255 / placed.segment.magic * (1 + 1 / 256)
        if not config.blank_audio and not (clip[:, :64].min() >= 0 and clip[:, :64].max() <= bound):
            yield f"17: the sound of segment {j} is not between 0 and {bound:.2f}"
        if not config.blank_audio and (clip[:, 64] != placed.segment.speed).any():
            yield f"17: the last channel of segment {j} is not the speed {placed.segment.speed}"
    images = arrays["images"]
    if images.dtype != np.uint8 and not (images.min() >= 0 and images.max() <= 1):
        yield f"19: the images range from {images.min()} to {images.max()}"
    numbers = arrays["video_src_index"]
    steps = np.diff(numbers)
    stored = numbers.tolist() == [placed.run for placed in example.segments] and ((steps == 0) | (steps == 1)).all()
    if not (stored if config.video_src_mode == "stored" else (numbers == 1).all()):
        yield f"22: the videos are numbered {numbers.tolist()}"
