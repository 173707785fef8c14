"""Renderings of examples: coloured spectrograms, strips of frames, and sound reconstructed from spectrograms."""

from __future__ import annotations

import base64
import io
import textwrap
import wave
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image, ImageDraw, ImageFont
from rich.text import Text

from shards.arrays import audio, images, jpeg
from shards.records.segments import Segment
from shards.sizes import MEL_BANDS, SAMPLE_RATE, SPECTROGRAM_COLUMNS

_WINDOW, _HOP, _FLOOR, _LOWEST_HZ = 1536, 588, 0.1, 20.0
"""Parameters of the spectrograms (docs/spec/ingest.md 13)."""

_LADDER = ((160, 60), (128, 50), (112, 40), (96, 30), (64, 25))
"""Frame width in a strip and WebP quality, from best to smallest."""


def frame(segment: Segment) -> Image.Image:
    """Return the frame of a segment. Raises `RecordError` if it is not a JPEG image."""
    return Image.fromarray(images.decode(segment.image))


def spectrogram(segment: Segment) -> Image.Image:
    """Return the spectrogram in colour, low bands at the bottom. Raises `RecordError` if it is not a valid one."""
    pixels = audio.decode(segment.spectrogram).T[::-1]
    return Image.fromarray(_colours()[pixels])


@lru_cache(maxsize=1)
def _colours() -> UInt8[np.ndarray, "256 3"]:
    """Return the magma colour map."""
    from matplotlib import colormaps

    return (colormaps["magma"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def strips(segments: Sequence[Segment], most_bytes: int) -> tuple[bytes, bytes]:
    """Return all frames side by side and all spectrograms side by side, as WebP of at most `most_bytes` if possible."""
    frames, sounds = [_small(s) for s in segments], [spectrogram(s) for s in segments]
    drawn = (b"", b"")
    for width, quality in _LADDER:
        drawn = (
            _strip(frames, (width, width * 9 // 16), quality),
            _strip(sounds, (width, width * MEL_BANDS // SPECTROGRAM_COLUMNS), quality),
        )
        if sum(map(len, drawn)) <= most_bytes:
            break
    return drawn


def _small(segment: Segment) -> Image.Image:
    """Return the frame at about the size of the widest strip, which decodes several times faster than in full size."""
    return jpeg.reduced(segment.image, "RGB", (_LADDER[0][0], _LADDER[0][0] * 9 // 16))


def _strip(pictures: Sequence[Image.Image], cell: tuple[int, int], quality: int) -> bytes:
    strip = Image.new("RGB", (cell[0] * len(pictures), cell[1]))
    for i, picture in enumerate(pictures):
        ratio = min(cell[0] / picture.width, cell[1] / picture.height)
        size = (max(round(picture.width * ratio), 1), max(round(picture.height * ratio), 1))
        left, top = (cell[0] - size[0]) // 2, (cell[1] - size[1]) // 2
        strip.paste(picture.resize(size, Image.Resampling.BILINEAR), (i * cell[0] + left, top))
    out = io.BytesIO()
    strip.save(out, "WEBP", quality=quality, method=2)
    return out.getvalue()


def blocks(picture: Image.Image, columns: int) -> Text:
    """Return an image as coloured half blocks for a terminal."""
    rows = max(round(columns * picture.height / picture.width / 2), 1)
    pixels = np.asarray(picture.convert("RGB").resize((columns, 2 * rows), Image.Resampling.BOX))
    text = Text()
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        for (a, b, c), (d, e, f) in zip(upper.tolist(), lower.tolist(), strict=True):
            text.append("\N{UPPER HALF BLOCK}", f"rgb({a},{b},{c}) on rgb({d},{e},{f})")
        text.append("\n")
    text.rstrip()
    return text


def sheet(segments: Sequence[Segment], captions: Sequence[str]) -> bytes:
    """Return a PNG with frame, spectrogram and words of every segment, four per row."""
    width, gap, lines = 320, 12, 5
    heights = (180, width * MEL_BANDS // SPECTROGRAM_COLUMNS, 18 * lines)
    cell = (width + gap, sum(heights) + 2 * gap)
    across = min(len(segments), 4)
    drawn = Image.new("RGB", (across * cell[0] + gap, -(-len(segments) // across) * cell[1] + gap), "white")
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(14)
    for i, (segment, caption) in enumerate(zip(segments, captions, strict=True)):
        left, top = gap + i % across * cell[0], gap + i // across * cell[1]
        picture = frame(segment)
        picture.thumbnail((width, heights[0]))
        drawn.paste(picture, (left, top))
        drawn.paste(spectrogram(segment).resize((width, heights[1])), (left, top + heights[0] + 4))
        text = "\n".join(textwrap.wrap(caption, 44)[:lines])
        pen.text((left, top + sum(heights[:2]) + 8), text, "black", font)
    out = io.BytesIO()
    drawn.save(out, "PNG", optimize=True)
    return out.getvalue()


def data_uri(webp: bytes) -> str:
    """Return a WebP image as a data URI."""
    return "data:image/webp;base64," + base64.b64encode(webp).decode()


def waveform(segments: Sequence[Segment]) -> Float32[np.ndarray, "samples"]:
    """Reconstruct sound from the spectrograms of the segments, at the original speed and 22,050 Hz.

    This inverts docs/spec/ingest.md 13, with the Griffin-Lim estimate of the phases.
    """
    # librosa takes seconds to import, and only this function needs it.
    import librosa

    pieces = []
    for segment in segments:
        log_mel = audio.decode(segment.spectrogram).T / np.float32(segment.magic)
        size, hop = _WINDOW * segment.speed, _HOP * segment.speed
        bank = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=size, n_mels=MEL_BANDS, fmin=_LOWEST_HZ)
        power = np.maximum(np.linalg.pinv(bank) @ (_FLOOR * np.expm1(log_mel)), 0)
        length = int(audio.SEGMENT_SECONDS * SAMPLE_RATE) * segment.speed
        pieces.append(librosa.griffinlim(np.sqrt(power), hop_length=hop, n_fft=size, length=length, random_state=0))
    joined = np.concatenate(pieces)
    return (0.9 * joined / max(float(np.abs(joined).max()), 1e-9)).astype(np.float32)


def wav(samples: Float32[np.ndarray, "samples"]) -> bytes:
    """Return a 16-bit WAV file of sound in [-1, 1]."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return out.getvalue()
