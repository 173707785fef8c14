"""Preparing questions and finetuning on them: questions a second, and a step against the straightforward one.

    python -m benchmarks.finetune [--vcr vcr1 --tvqa tvqa] [--sizes narrow] [--examples 2] [--rounds 3]

Preparation runs in one process with one BLAS thread on the questions of the data folders, by default the small ones of
the tests. The straightforward step encodes the picture once for every row of text; ours once for all of them. Both
compute in float32 on a CPU and in bfloat16 elsewhere.
"""

from __future__ import annotations

import os

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from ingest.questions import tvqa, vcr
from ingest.questions.preparation import TVQA_FILES, TVQA_QUESTIONS
from model.config import BASE, LARGE, TINY, ReserveConfig
from model.reserve import MerlotReserve
from shards.records.vcr import CHOICES, PREFIXES
from shards.tokenizer import load_tokenizer
from shards.tokens import MASK
from train.tasks.scoring import cross_entropy, scores_at_mask
from train.tasks.step import task_shapes
from train.tasks.table import TASKS

GOLDEN = Path(__file__).parent.parent / "tests" / "golden" / "data" / "finetune"
NARROW = dataclasses.replace(BASE, hidden_size=256, vocabulary_size=4096).with_grid((18, 32))
"""The base model's depth and tokens at a third of its width, so that a CPU can run it."""

SIZES = {"tiny": TINY, "narrow": NARROW, "base": BASE.with_grid((18, 32)), "large": LARGE.with_grid((18, 32))}
_SECONDS = 3.0
_TEXT_LENGTH = 144


def preparation(folders: dict[str, Path], console: Console) -> None:
    """Questions a CPU second for every task that has a folder."""
    tokenizer = load_tokenizer()
    table = Table(title="preparation, one process")
    for column in ("task", "questions", "questions / CPU s", "KB a question"):
        table.add_column(column, justify="right")

    def one_vcr(line: dict) -> int:
        found = vcr.prepare(vcr.read_question(str(folders["vcr"]), line), tokenizer)
        return sum(len(record.serialize()) for record in found)

    def one_tvqa(line: dict) -> int:
        clip = tvqa.read_clip(str(folders["tvqa"]), line, "true")
        return len(tvqa.prepare(line, clip, tokenizer).serialize(7))

    files = {"vcr": "train.jsonl", "tvqa": f"{TVQA_QUESTIONS}/{TVQA_FILES['train']}"}
    for task, prepare in (("vcr", one_vcr), ("tvqa", one_tvqa)):
        lines = [json.loads(line) for line in (folders[task] / files[task]).read_text().splitlines()]
        for line in lines:
            prepare(line)
        begun, count, size = time.process_time(), 0, 0
        while time.process_time() - begun < _SECONDS:
            size += prepare(lines[count % len(lines)])
            count += 1
        rate = count / (time.process_time() - begun)
        table.add_row(task, str(count), f"{rate:.1f}", f"{size / count / 1e3:.0f}")
    console.print(table)


def straightforward(module: MerlotReserve, params: dict, batch: dict) -> jax.Array:
    """VCR's scores with the picture encoded once for each of the eight rows of text."""

    def scores(model: MerlotReserve, image: jax.Array, answers: jax.Array, kernel: jax.Array) -> jax.Array:
        tokens = answers.reshape(-1, answers.shape[-1])
        vision = model.get_imgseq_only(jnp.repeat(image, len(PREFIXES) * CHOICES, axis=0))
        inputs = model.assemble(tokens, token_segment_idx=jnp.zeros_like(tokens), vision_input=vision)
        return scores_at_mask(model, inputs, tokens, kernel).reshape(answers.shape[:3])

    arrays = (batch["image"], batch["answers"], params["proj"]["kernel"])
    return module.apply({"params": params}, *arrays, method=scores)


def steps(size: str, config: ReserveConfig, examples: int, rounds: int, table: Table) -> None:
    """Time of one loss and its gradients, ours and the straightforward way, taken in turns; the best of `rounds`."""
    dtype = "bfloat16" if jax.default_backend() in ("gpu", "tpu") else "float32"
    config = dataclasses.replace(config, dtype=dtype)
    task, module = TASKS["vcr"], MerlotReserve(config)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape, np.float32) * 0.02), task_shapes(task, config)
    )
    answers = rng.integers(10, config.vocabulary_size, (examples, len(PREFIXES), CHOICES, _TEXT_LENGTH), np.int32)
    answers[..., -1] = MASK
    batch = {
        "image": jnp.asarray(rng.random((examples, config.patches, config.patch_values), np.float32)),
        "answers": jnp.asarray(answers),
        "labels": jnp.zeros((examples, len(PREFIXES)), jnp.int32),
    }

    def compiled(logits: Callable) -> Callable:
        def loss(params: dict) -> jax.Array:
            return cross_entropy(logits(module, params, batch), batch["labels"]).mean()

        return jax.jit(jax.value_and_grad(loss)).lower(params).compile()

    ways = {"straightforward": compiled(straightforward), "ours": compiled(task.logits)}
    losses = {name: float(jax.block_until_ready(way(params))[0]) for name, way in ways.items()}
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            begun = time.perf_counter()
            jax.block_until_ready(way(params))
            best[name] = min(best[name], time.perf_counter() - begun)
    for name in ways:
        ratio = best["straightforward"] / best[name]
        table.add_row(
            size, name, f"{best[name]:.3f}", f"{examples / best[name]:.2f}", f"{ratio:.2f}", f"{losses[name]:.5f}"
        )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vcr", type=Path, default=GOLDEN / "vcr1")
    parser.add_argument("--tvqa", type=Path, default=GOLDEN / "tvqa")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["narrow"])
    parser.add_argument("--examples", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    console = Console()
    preparation({"vcr": given.vcr, "tvqa": given.tvqa}, console)
    table = Table(title=f"VCR: loss and gradients, {given.examples} questions on {jax.devices()[0].device_kind}")
    for column in ("model", "way", "seconds", "questions/s", "times faster", "loss"):
        table.add_column(column, justify="right")
    for size in given.sizes:
        steps(size, SIZES[size], given.examples, given.rounds, table)
    console.print(table)


if __name__ == "__main__":
    main()
