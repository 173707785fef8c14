"""Whether a data set of millions of videos can be looked after: seconds and memory of everyday operations.

    python -m benchmarks.ops_scale [--ids 20000000] [--shards 100000] [--wave 100000]

A data folder is simulated as a job in waves would leave it before its last two generations: a manifest of all shards, a
ledger line of real length for every id, lists of videos, and sidecars and a real shard for the one generation that the
removal concerns. The other shards are empty files of the right size. Each operation runs in a process of its own, whose
time without imports and whose largest resident memory are printed. The last rows are the wave that is closed when it is
committed, which every wave costs once, and the list of all ids, a thousandth of them twice, that the first job cuts.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.report import SEGMENTS, write_data
from pipelines import status, wave_job
from pipelines.options import PreprocessOptions
from shards import manifest, removal, tally, waves
from shards.ledger import Entry, Ledger
from shards.manifest import Generation, Shard, shard_name, stats_path
from shards.reading.source import Source
from shards.waves import WavePlan

SHARD_BYTES = 128 << 20
EXAMPLES = 250
"""Examples in a shard of 128 MiB."""

OUTCOMES = (
    ("extracted", "done"),
    ("no-captions", "rejected"),
    ("sparse-speech", "rejected"),
    ("removed", "failed-final"),
)
SHARES = (0.6, 0.8, 0.95, 1.0)
_PART, _CUT = "g9999", "cut"


@dataclass(frozen=True)
class Options:
    """How large the simulated data set is."""

    ids: int = 20_000_000
    """Videos with an outcome."""
    shards: int = 100_000
    """Shards of the manifest."""
    wave: int = 100_000
    """Videos of a wave."""
    folder: str | None = None
    """Where the data go and stay; a temporary folder by default."""


def name_of(number: int) -> str:
    """An id of eleven characters."""
    return f"id{number:09d}"


def line(number: int, outcome: str, kind: str) -> str:
    """A ledger line with the scores that a job writes."""
    scores = {
        **{"caption_kind": "asr-original", "caption_track": "en-orig", "duration": 93.4, "language": "en"},
        **{"language_probability": 0.9871, "words": 241, "words_per_30s": 88, "good_words": 0.9343},
        **{"length_variance": 3.712, "sound_peak": 18231.0, "segments": 18, "frames_black": 0},
    }
    entry = Entry(name_of(number), outcome, kind, "", scores, "train", 18, 93.4, 1.21, 1.7e9 + number / 100)
    return json.dumps(dataclasses.asdict(entry), separators=(",", ":"), sort_keys=True)


def write_wave(folder: str, wave: int, first: int, count: int, shards: int) -> Generation:
    """One finished wave: its closed ledger, its list of videos, and its shards as empty files."""
    root, part = Path(folder), waves.part_name(wave)
    names = [name_of(number) for number in range(first, first + count)]
    codes = np.searchsorted(SHARES, np.random.default_rng(wave).random(count), side="right").astype(np.uint16)
    templates = [line(0, *outcome).split(name_of(0)) for outcome in OUTCOMES]
    with (root / "ledger" / f"{part}.jsonl").open("w") as file:
        file.writelines(name.join(templates[code]) + "\n" for name, code in zip(names, codes.tolist(), strict=True))
        size = file.tell()
    reasons = [tally.Reason(kind, name, "train", "en" if kind == "done" else "") for name, kind in OUTCOMES]
    samples = [
        [name for name, code in zip(names[:100], codes, strict=False) if code == i][:3] for i in range(len(reasons))
    ]
    digests = tally.id_digests(names)
    order = np.argsort(digests)
    held = tally.Tally(digests[order], np.full(count, 1_700_000_000 + wave, np.uint32), codes[order], reasons, samples)
    (root / "ledger" / f"{part}.tally").write_bytes(tally.to_bytes(held, size))
    done = [name for name, code in zip(names, codes.tolist(), strict=True) if code == 0]
    (root / f"train-{part}.videos").write_text("".join(f'"{name}"\n' for name in done))
    claims = [Shard(shard_name("train", wave, i, shards), EXAMPLES, SHARD_BYTES, "0" * 64) for i in range(shards)]
    for claim in claims:
        with (root / claim.name).open("wb") as file:
            file.truncate(SHARD_BYTES)
    return Generation(wave, "train", len(done), shards * EXAMPLES * SEGMENTS, claims, [])


def make(options: Options, folder: str) -> str:
    """Simulate the data folder; returns the id that will be removed."""
    root = Path(folder)
    (root / "ledger").mkdir()
    count = options.ids // options.wave
    each = options.shards // count
    jobs = [(folder, wave, wave * options.wave, options.wave, each) for wave in range(count)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        generations = pool.starmap(write_wave, jobs, chunksize=1)
    write_data(folder, EXAMPLES, 4)
    real = manifest.load(folder)
    (claim,) = real.shards()
    first, *others = generations[0].shards
    (root / first.name).unlink()
    sidecar = json.loads((root / stats_path(claim.name)).read_bytes())
    for shard in others:
        (root / stats_path(shard.name)).write_text(json.dumps(sidecar | {"runs": [[["other", 0, 16]]] * EXAMPLES}))
    generations[0] = dataclasses.replace(generations[0], shards=[claim, *others])
    victim = "video000007"
    with (root / "train-g0000.videos").open("a") as file:
        file.write(f'"{victim}"\n')
    manifest.save(folder, dataclasses.replace(real, generations=generations))
    plan = WavePlan("train", "list", options.wave, (count + 1) * options.wave, 0, count + 1)
    (root / "waves").mkdir()
    (root / "waves" / "plan.json").write_text(json.dumps(vars(plan)))
    left = "".join(f'"{name_of(options.ids + i)}"\n' for i in range(options.wave))
    (root / "waves" / f"{waves.part_name(count)}.list").write_text(left)
    (root / "waves" / f"{waves.part_name(count + 1)}.list").write_text("")
    status.note_start(folder, plan.videos)
    return victim


def open_manifest(folder: str) -> str:
    """Open the data set as a reader does."""
    return f"{Source(folder).counts.size:,} shards"


def show_status(folder: str) -> str:
    """The whole report of the job."""
    found = status.report(folder, time.time())
    return f"{found.finished:,} videos, {len(found.reasons)} reasons"


def next_wave(folder: str) -> str:
    """Find the next wave, lease it, read its list and load the manifest that it will be added to."""
    with waves.take(folder, waves.load_plan(folder)) as number:
        manifest.load(folder)
        return f"wave {number}, {len(waves.read_list(folder, number)):,} videos"


def remove_video(folder: str) -> str:
    """Take one video out."""
    gone = removal.remove(folder, ["video000007"])
    return f"{gone.shards} shard, {gone.examples} example"


def write_part(folder: str, count: int) -> None:
    """The open files of a part of the ledger, as four workers leave them."""
    place = Path(Ledger(folder, part=_PART).folder)
    place.mkdir()
    for worker in range(4):
        lines = (line(number, *OUTCOMES[number % 3]) for number in range(worker, count, 4))
        (place / f"worker{worker}.jsonl").write_text("".join(text + "\n" for text in lines))


def close_part(folder: str) -> str:
    """Close what `write_part` wrote."""
    tally.close(folder, _PART)
    return f"{Path(folder, 'ledger', f'{_PART}.jsonl').stat().st_size / 1e6:,.0f} MB of lines"


def write_list(folder: str, count: int) -> None:
    """A list of so many ids, and every thousandth of them again."""
    place = Path(folder) / _CUT
    place.mkdir()
    with (place / "ids").open("w") as file:
        file.writelines(f"{name_of(number)}\n" for number in range(count))
        file.writelines(f"{name_of(number)}\n" for number in range(0, count, 1000))


def cut_list(folder: str) -> str:
    """Cut what `write_list` wrote into waves, as the first job on a list does."""
    place = Path(folder) / _CUT
    plan = wave_job.cut(PreprocessOptions(str(place / "data"), ids=str(place / "ids"), wave=100_000))
    return f"{plan.videos:,} videos in {plan.waves} waves"


def measured(work: Callable[[str], str], folder: str, results: multiprocessing.Queue) -> None:
    """Run an operation and report its seconds, its memory and what it says."""
    begun = time.perf_counter()
    said = work(folder)
    seconds = time.perf_counter() - begun
    results.put((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, said))


def operations() -> Iterator[tuple[str, Callable[[str], str], str]]:
    """The rows of the table: name, operation, the bound."""
    yield "open the manifest and check the files", open_manifest, ""
    yield "status", show_status, "30 s, 1 GB"
    yield "next wave", next_wave, ""
    yield "remove one video", remove_video, ""
    yield "close the ledger of a wave", close_part, ""
    yield "cut the list into waves", cut_list, "1 GB"


def main() -> None:
    """Simulate, measure, print."""
    options, console = tyro.cli(Options, prog="python -m benchmarks.ops_scale"), Console()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or temporary
        begun = time.perf_counter()
        make(options, folder)
        write_part(folder, options.wave)
        write_list(folder, options.ids)
        size = sum(path.stat().st_size for path in Path(folder, "ledger").glob("*.jsonl"))
        console.print(f"simulated in {time.perf_counter() - begun:.0f} s; {size / 1e9:.1f} GB of ledger lines")
        table = Table("operation", "s", "largest GB", "asked", "found")
        for name, work, asked in operations():
            results = context.Queue()
            process = context.Process(target=measured, args=(work, folder, results))
            process.start()
            seconds, memory, said = results.get()
            process.join()
            table.add_row(name, f"{seconds:.1f}", f"{memory:.2f}", asked, said)
        console.print(table)


if __name__ == "__main__":
    main()
