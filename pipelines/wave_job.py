"""A huge list in waves: each is extracted and committed as a generation by whichever job holds its lease.

What a wave becomes depends on its slice of the list alone, so that any number of jobs make the shards that one makes.
"""

from __future__ import annotations

import hashlib
import time

from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

from ingest.outcomes import Kind
from pipelines.assembly import Texts, drop_texts, made, packing_of, prepare_texts, write_shards
from pipelines.folder import LOCK_PATIENCE, keep_log, lock_path, log_path, manifest_of, settle_config, vocabulary_of
from pipelines.intake import extract, not_tried
from pipelines.items import item_of, list_items, names_to_do
from pipelines.options import PreprocessOptions
from pipelines.status import note_start
from shards import dataset, filesystem, generations, manifest, pinned, removal, tally, waves
from shards.errors import UserError
from shards.inspection import card
from shards.ledger import Ledger
from shards.waves import WavePlan

_LOOK_SECONDS = 2.0
_PIECE_BYTES = 8 << 20


def run_waves(options: PreprocessOptions, beam_options: PipelineOptions, console: Console) -> int:
    """Work on the waves of the list that nobody else works on, until all are finished; returns the exit status."""
    out = options.out
    filesystem.make_folder(out)
    with filesystem.exclusive(lock_path(out), patience=LOCK_PATIENCE):
        keep_log(log_path(out))
        config = settle_config(options)
        plan = cut(options)
        # Packed once, by whoever comes first; the others wait for it.
        texts = prepare_texts(options, beam_options, console) if plan.waves else None
        note_start(out, plan.videos, options.command)
    waiting = False
    while left := waves.unfinished(out):
        with waves.take(out, plan) as number:
            if number is not None:
                waiting = False
                finish_wave(number, plan, texts, options, config, beam_options, console)
                continue
        if not waiting:
            waiting = True
            console.print(f"other jobs work on the last {len(left)} waves; this one waits in case one of them stops")
        time.sleep(_LOOK_SECONDS)
    drop_texts(options)
    return summarize_waves(plan, options, console)


def finish_wave(
    number: int,
    plan: WavePlan,
    texts: Texts | None,
    options: PreprocessOptions,
    config: str,
    beam_options: PipelineOptions,
    console: Console,
) -> None:
    """Commit one wave as a generation, or go on with one that an earlier job could not finish."""
    out, part, last = options.out, waves.part_name(number), number == plan.last
    held = manifest_of(out)
    if held is None or number not in {g.number for g in held.generations}:
        withdrawn = removal.withdrawn(out)
        items = [item_of(name, options) for name in waves.read_list(out, number)]
        items = [item for item in items if item.id not in withdrawn]
        said = "the rest" if last else f"wave {number - plan.first + 1} of {plan.waves}"
        if items:
            console.print(f"{said}:")
            extract(items, options, config, beam_options, console, number)
        entries = Ledger(out, part=part).entries()
        if untried := sum(item.id not in entries for item in items):
            raise not_tried(options, untried)
        done = [i.id for i in items if entries[i.id].kind == Kind.DONE.value]
        packing = packing_of(options, config)
        if last:
            planned = generations.plan_rest(out, held, plan.split, number, [], packing)
        else:
            planned = generations.plan_wave(out, plan.split, number, done, packing)
        if texts:
            # Every wave takes each so many-th sequence, whatever the others have taken by now.
            taken = {name: used + number - plan.first for name, used in texts.used(held, before=plan.first).items()}
            planned = texts.dealt(planned, taken, packing, every=plan.waves + 1)
        shards = write_shards(planned, held, options, beam_options)
        with filesystem.exclusive(lock_path(out), patience=LOCK_PATIENCE):
            if removal.withdrawn(out) != withdrawn:
                raise UserError("videos were taken out while their wave was written; run the same command again")
            tally.close(out, part)
            held = generations.commit_generation(out, manifest_of(out), planned, shards, packing, vocabulary_of(out))
        console.print(f"{said}, {made(planned, shards)}")
    if not options.keep_segments:
        generations.drop_segments_of(out, held, number)
    filesystem.remove_folder(waves.scratch(out, number))
    waves.finish(out, number)


def summarize_waves(plan: WavePlan, options: PreprocessOptions, console: Console) -> int:
    """Say how the items of the whole data folder ended and what it holds; 1 if no video ever became segments."""
    counts = tally.of_data(options.out).counts()
    for reason, count in sorted(counts.items(), key=lambda pair: (pair[0].kind, pair[0].outcome)):
        if reason.kind != Kind.DONE.value:
            console.print(f"{count} {reason.kind}: {reason.outcome}")
    if not any(reason.kind == Kind.DONE.value for reason in counts):
        raise UserError("no video became segments; the reasons are above and in the ledger")
    with filesystem.exclusive(lock_path(options.out), patience=LOCK_PATIENCE):
        # Whoever cut a new list since works on it now, and sweeps when that is done.
        if not waves.unfinished(options.out):
            filesystem.remove_temporary_files(options.out)
        card.write(dataset.open_data(options.out))
    held = manifest.load(options.out)
    shards, examples = held.shards(), sum(g.examples for g in held.generations)
    console.print(f"{options.out}: {plan.waves} waves finished; {len(shards)} shards, {examples} examples in all")
    return 0


def cut(options: PreprocessOptions) -> WavePlan:
    """The waves to work on: those that are there, or new ones of the list. Call it while the folder is locked.

    Raises `UsageError` if what is there was cut from another list or for other shards.
    """
    held = manifest_of(options.out)
    pinned.require_none_begun(options.out, held)
    wanted = WavePlan(
        options.split,
        _list_digest(options),
        options.wave,
        videos=0,
        first=pinned.next_number(options.out, held),
        waves=0,
        shard_bytes=options.shard_bytes,
        blocklist=_digest_of(options.blocklist) if options.blocklist else "",
    )
    return waves.settle(options.out, wanted, lambda: names_to_do(options))


def _list_digest(options: PreprocessOptions) -> str:
    """What tells one list of videos from another, without looking at every entry of a file."""
    head = f"{options.limit}\n".encode()
    if options.ids:
        return _digest_of(options.ids, head)
    listed = "\n".join(item.id for item in list_items(options)).encode()
    return hashlib.sha256(head + listed).hexdigest()


def _digest_of(path: str, head: bytes = b"") -> str:
    """SHA-256 of a file after some bytes, read piece by piece. Raises `StorageError`."""
    digest = hashlib.sha256(head)
    with filesystem.open_read(path) as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
