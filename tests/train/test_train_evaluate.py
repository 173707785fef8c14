"""Evaluation against counts made in plain NumPy, its intervals, its repeatability, and the command."""

import dataclasses
import json
import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from model.losses import contrastive
from model.objectives import pretraining_outputs
from model.reserve import MerlotReserve
from shards.command_line import run_command
from shards.reader import PretrainingReader, StreamOptions
from shards.reading.vocabulary import published
from shards.storage.errors import UsageError
from shards.tokens import MASK
from tests.reader_data import write_data
from train import evaluate, pretrain, weights
from train.config import fit_to_data, from_json
from train.configs.tiny import CONFIG as TINY
from train.evaluation import Evaluator, print_tables
from train.mesh import MeshConfig, make_mesh
from train.metrics.figures import NotFiniteError, design_effect, tally
from train.metrics.formatting import MetricsLog
from train.metrics.intervals import wilson
from train.metrics.tie_credit import credited
from train.step import global_outputs, initial_state

ROOT = Path(__file__).parent.parent.parent
SMALL = (
    # The run of test_train_pretrain.py, so that its program is compiled once.
    *("--batch-size", "2", "--model.hidden-size", "32", "--model.context-split-probability", "0"),
    *("--optimizer.total-steps", "100", "--log-every", "1"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(write_data(tmp_path_factory.mktemp("evaluate") / "data", [2, 2]))


@pytest.fixture(scope="module")
def config():
    small = dataclasses.replace(TINY.model, hidden_size=32, context_split_probability=0.0)
    return fit_to_data(dataclasses.replace(TINY, model=small, batch_size=2), 32_768, 4)


@pytest.fixture(scope="module")
def found(config, data):
    mesh = make_mesh(MeshConfig())
    params = initial_state(config, mesh).params
    evaluator = Evaluator(config, mesh, data, "train", published(), Console(stderr=True))
    return params, evaluator(params), evaluator(params)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A run of four steps that evaluates every second one on the data it trains on."""
    workdir = tmp_path_factory.mktemp("run")
    more = ("--steps", "4", "--evaluate-every", "2", "--evaluation-split", "train")
    assert run_command(lambda: pretrain.main(["tiny", "--data", data, "--workdir", str(workdir), *SMALL, *more])) == 0
    return workdir


def test_the_same_evaluation_gives_the_same_numbers(found):
    _, first, second = found
    assert first == second
    assert first.examples == 4


def test_counts_equal_those_made_by_hand(found, config, data):
    """Images against sounds and masked words against spans, with the pairs compared one by one."""
    params, evaluation, _ = found
    stream = StreamOptions(training=False, split="train")
    reader = PretrainingReader(data, dataclasses.replace(config.reader(), stream=stream), 2, seed=0)
    right = {"imgs_to_audio": 0, "stuff_to_span": 0}
    asked = dict.fromkeys(right, 0)
    forward = jax.jit(partial(pretraining_outputs, MerlotReserve(config.model)))
    for batch in reader:
        parts = [
            forward(params, {name: array[i : i + 1] for name, array in batch.items()}, jax.random.key(i))
            for i in range(len(batch["images"]))
        ]
        for objective in right:
            x, y, valid = (np.concatenate([part[objective][name] for part in parts]) for name in ("x", "y", "_valid"))
            for i in np.flatnonzero(valid):
                scores = [x[i] @ y[j] if valid[j] else -math.inf for j in range(len(y))]
                asked[objective] += 1
                right[objective] += (scores[i] == max(scores)) / scores.count(max(scores))
    for objective in right:
        accuracy = evaluation.accuracies[f"accuracy/{objective}"]
        assert (accuracy.right, accuracy.asked) == (pytest.approx(right[objective]), asked[objective])
    masked = evaluation.accuracies["accuracy/stuff_to_span"].asked
    assert 0 < masked <= evaluation.examples * config.model.spans_to_include
    assert MASK in batch["audio2text"]


@pytest.mark.parametrize("batch_size", [1, 3, 4, 1000])
def test_every_example_counts_once_whatever_the_batch(found, config, data, batch_size):
    """Rows that fill up the last batch are neither queries nor candidates: each batch equals one made of its examples
    alone."""
    params, mesh = found[0], make_mesh(MeshConfig())
    changed = dataclasses.replace(config, batch_size=batch_size)
    evaluation = Evaluator(changed, mesh, data, "train", published(), Console(stderr=True))(params)
    size = min(batch_size, 4)
    assert (evaluation.examples, evaluation.batch_size) == (4, size)
    assert evaluation.accuracies["accuracy/imgs_to_audio"].asked == 4 * config.model.segments
    stream = StreamOptions(training=False, split="train")
    forward = jax.jit(lambda batch, key: contrastive(global_outputs(config.model, params, batch, key))[0])
    total = 0.0
    for number, batch in enumerate(
        PretrainingReader(data, dataclasses.replace(config.reader(), stream=stream), size, 0)
    ):
        key = jax.random.fold_in(jax.random.key(0), number)
        total += len(batch["images"]) * float(forward(batch, key))
    assert evaluation.losses["loss"] == pytest.approx(total / 4, rel=1e-5)


def test_weights_that_are_not_finite_have_no_figures(found, config, data):
    params = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), found[0])
    evaluator = Evaluator(config, make_mesh(MeshConfig()), data, "train", published(), Console(stderr=True))
    with pytest.raises(NotFiniteError, match="the weights are damaged or their training diverged"):
        evaluator(params)


def test_weights_that_say_nothing_score_what_guessing_gives(found, config, data):
    params = jax.tree.map(jnp.zeros_like, found[0])
    evaluation = Evaluator(config, make_mesh(MeshConfig()), data, "train", published(), Console(stderr=True))(params)
    for accuracy in evaluation.accuracies.values():
        assert accuracy.share == pytest.approx(accuracy.chance)


@given(st.lists(st.sampled_from([-math.inf, -1.0, 0.0, 2.0, math.inf, math.nan]), min_size=1, max_size=6), st.data())
def test_credit_against_counting(scores, drawn):
    label = drawn.draw(st.integers(0, len(scores) - 1))
    best = max(scores) if not any(map(math.isnan, scores)) else math.nan
    expected = 1 / scores.count(best) if math.isfinite(best) and scores[label] == best else 0
    assert float(credited(jnp.array(scores), jnp.array(label))) == pytest.approx(expected)


def test_chance_is_one_in_the_candidates(found, config):
    _, evaluation, _ = found
    images = config.batch_size * config.model.segments
    assert evaluation.accuracies["accuracy/imgs_to_audio"].chance == pytest.approx(1 / images)
    # Three segments of an example are of one video, the fourth of another.
    within = evaluation.accuracies["accuracy_within_video/imgs_to_audio"].chance
    assert within == pytest.approx((3 * 1 / 3 + 1) / 4)


def test_wilson_against_published_values():
    """Wilson (1927) for 8 of 10 and 0 of 10 at 95 %, as in Newcombe (1998)."""
    assert wilson(0.8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=20))
def test_intervals_are_never_narrower_than_wilsons(pairs):
    counts = np.array([(min(r, a), a, a / 8) for r, a in pairs], float)
    accuracy = tally(counts)
    assert 0 <= accuracy.low <= accuracy.share <= accuracy.high <= 1 or accuracy.asked == 0
    low, high = wilson(accuracy.share, accuracy.asked)
    assert accuracy.low <= low + 1e-12
    assert accuracy.high >= high - 1e-12


def test_answers_that_agree_within_examples_count_as_fewer():
    alike = np.array([8.0, 0.0] * 10)
    assert design_effect(alike, np.full(20, 8.0)) == pytest.approx(8 * 20 / 19)
    assert design_effect(np.full(20, 4.0), np.full(20, 8.0)) == 1


def test_the_loop_writes_evaluations_beside_its_metrics(trained):
    lines = MetricsLog(str(trained / "metrics.jsonl")).lines()
    evaluated = [line for line in lines if "val/loss" in line]
    assert [line["step"] for line in evaluated] == [2, 4]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert all(np.isfinite(line["val/accuracy_within_video/text_to_audio"]) for line in evaluated)


def test_a_run_and_its_export_are_evaluated_by_the_command(trained, data, capsys):
    results = []
    for checkpoint in (trained, trained / "export"):
        arguments = ["pretraining", "--data", data, "--checkpoint", str(checkpoint), "--split", "train", "--json"]
        assert run_command(lambda arguments=arguments: evaluate.main(arguments)) == 0
        results.append(json.loads(capsys.readouterr().out))
    last = MetricsLog(str(trained / "metrics.jsonl")).lines()[-1]
    assert results[0]["losses"]["loss"] == pytest.approx(last["val/loss"], rel=1e-6)
    # The export has float16 weights.
    assert results[1]["losses"]["loss"] == pytest.approx(last["val/loss"], rel=1e-2)
    assert weights.load(str(trained / "export" / "ckpt_4")).config == weights.load(str(trained)).config


def test_tables_show_counts_and_intervals(found, capsys):
    print_tables(Console(width=120), found[1], "weights on data")
    accuracy = found[1].accuracies["accuracy_within_video/stuff_to_span"]
    (row,) = (line for line in capsys.readouterr().out.splitlines() if "stuff_to_span, in video" in line)
    assert f"{accuracy.right:g}/{accuracy.asked}" in row
    assert f"{accuracy.low:.1%}-{accuracy.high:.1%}" in row


def test_a_stored_configuration_comes_back_the_same(trained, config):
    stored = from_json(json.loads((trained / "config.json").read_text()))
    assert (stored.steps, stored.model.segments, stored.evaluate_every) == (4, 4, 2)
    assert from_json(json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"checkpoint": "{tmp}"}, "has no file ckpt_STEP"),
        ({"split": "nowhere"}, "has no split 'nowhere'; it has train"),
        ({"data": "{tmp}"}, "contains no shards"),
        ({"checkpoint": "{tmp}/empty"}, "holds no checkpoint yet"),
    ],
)
def test_what_cannot_be_evaluated_is_named(trained, data, tmp_path, change, sentence, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_bytes((trained / "config.json").read_bytes())
    options = {"data": data, "checkpoint": str(trained), "split": "train"}
    options |= {name: value.format(tmp=tmp_path) for name, value in change.items()}
    arguments = ["pretraining", *(part for name, value in options.items() for part in (f"--{name}", value))]
    assert run_command(lambda: evaluate.main(arguments)) == 2
    assert sentence in capsys.readouterr().err


def test_devices_that_cannot_share_a_batch_use_every_example(trained, data, run, capsys):
    """Four simulated devices: a batch of three examples takes four rows, and the figures are those of one device."""
    arguments = ["--data", data, "--checkpoint", str(trained), "--split", "train", "--json", "--batch-size", "3"]
    assert run_command(lambda: evaluate.main(["pretraining", *arguments])) == 0
    alone = json.loads(capsys.readouterr().out)
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    done = run("train.evaluate", "pretraining", *arguments, env={"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"})
    shared = json.loads(done.out)
    assert (shared["examples"], shared["batch_size"]) == (alone["examples"], alone["batch_size"]) == (4, 3)
    assert shared["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    for name, accuracy in shared["accuracies"].items():
        assert (accuracy["right"], accuracy["asked"]) == (alone["accuracies"][name]["right"], accuracy["asked"])


def test_data_of_another_vocabulary_are_refused(trained, data):
    loaded = dataclasses.replace(weights.load(str(trained)), vocabulary="0" * 64)
    with pytest.raises(UsageError, match=r"evaluate on data of the same vocabulary"):
        loaded.check_vocabulary(data, "train")
