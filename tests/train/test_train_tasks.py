"""Classifiers against golden logits, losses and gradients; what is right; leaderboard files and their checkers."""

import dataclasses
import io
import json
import os
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.reserve import MerlotReserve
from tests.golden_arrays import under
from train.metrics.figures import NotFiniteError
from train.tasks import Predictions, SubmissionError, choices, tvqa, tvqa_submission, vcr, vcr_submission
from train.tasks.evaluation import accuracies, check_finite
from train.tasks.step import task_shapes
from train.tasks.table import TASKS

ROOT = Path(__file__).parent.parent.parent
FILE = "finetune.npz"


def near(ours, expected, tolerance):
    assert np.abs(np.asarray(ours, np.float64) - expected).max() <= tolerance * max(np.abs(expected).max(), 1e-30)


@pytest.fixture(scope="module", params=["vcr", "tvqa"])
def computed(request, golden, params, model_config, named_parameter):
    """A task's golden arrays, its logits and losses, and the gradient of the golden batch."""
    task, arrays = TASKS[request.param], under(golden(FILE), f"{request.param}/")
    kept = {name: tree for name, tree in params.items() if name not in task.dropped}
    kept["proj"] = {"kernel": named_parameter("proj/kernel", (model_config.hidden_size, 1))}
    batch = {name: jnp.asarray(array) for name, array in under(arrays, "batch/").items()}
    module = MerlotReserve(model_config)

    @jax.jit
    def run(params):
        def loss_of(params):
            logits = task.logits(module, params, batch)
            losses = {name: each.mean() for name, each in task.losses(logits, batch).items()}
            return sum(losses.values()), (logits, losses, task.right(logits, batch))

        return jax.value_and_grad(loss_of, has_aux=True)(params)

    return task, arrays, kept, run(kept)


def test_logits_and_losses(computed):
    task, arrays, _, ((loss, (logits, losses, right)), _) = computed
    near(loss, arrays["loss"], 1e-5)
    if task.name == "vcr":
        near(logits, arrays["logits"], 1e-5)
        assert jnp.concatenate([right["qa"], right["qar"]]).mean() == arrays["loss_info/is_right"]
        assert right["q2ar"].tolist() == [
            a and b for a, b in zip(right["qa"].tolist(), right["qar"].tolist(), strict=True)
        ]
        return
    for name in ("audio", "text"):
        near(logits[name], arrays[f"logits_{name}"], 1e-5)
        near(losses[f"loss_{name}"], arrays[f"loss_info/loss_{name}"], 1e-5)
        assert right[name].mean() == arrays[f"loss_info/is_right_{name}"]


def test_gradients(computed, leaf_paths):
    _, arrays, _, (_, gradients) = computed
    ours, norms = leaf_paths(gradients), under(arrays, "grad_l2/")
    noise = 1e-6 * max(float(norm) for norm in norms.values())
    for path, norm in norms.items():
        mine = np.linalg.norm(np.asarray(ours[path], np.float64))
        assert mine < 2 * noise if norm < noise else abs(mine - norm) <= 1e-4 * norm, path
    for path, expected in under(arrays, "grad/").items():
        near(ours[path][tuple(slice(0, size) for size in expected.shape)], expected, 1e-4)


def test_parameters_of_a_task(computed, model_config):
    task, _, kept, _ = computed
    shapes = task_shapes(task, model_config)
    assert jax.tree.map(lambda leaf: leaf.shape, shapes) == jax.tree.map(np.shape, kept)


def test_tvqa_gives_sound_first(golden, params, model_config, named_parameter):
    batch = {name: jnp.asarray(array) for name, array in under(golden(FILE), "tvqa/batch/").items()}
    kept = params | {"proj": {"kernel": named_parameter("proj/kernel", (model_config.hidden_size, 1))}}
    module = MerlotReserve(model_config)
    heard, read = jax.jit(lambda: tvqa.logits(module, kept, batch))()
    near(heard, golden(FILE)["tvqa/logits_audio"], 1e-5)
    near(read, golden(FILE)["tvqa/logits_text"], 1e-5)


def test_masked_segments_do_not_matter(golden, params, model_config, named_parameter):
    """What lies in the picture of a hidden segment changes nothing; without the mask it does."""
    batch = {name: jnp.asarray(array) for name, array in under(golden(FILE), "tvqa/batch/").items()}
    batch = {name: batch[name] for name in ("images", "textonly_seqs")}
    kept = params | {"proj": {"kernel": named_parameter("proj/kernel", (model_config.hidden_size, 1))}}
    module = MerlotReserve(model_config)
    run = jax.jit(lambda batch: choices.logits(module, kept, batch)["text"])
    other = batch | {"images": batch["images"].at[:, 2].set(0.3)}
    shown = {"is_segment": jnp.array([[True, True, False]] * 2)}
    np.testing.assert_allclose(run(batch | shown), run(other | shown), atol=1e-5)
    assert np.abs(run(batch) - run(other)).max() > 1e-3


ON_EVERY_MESH = "tests.programs.finetuning_on_meshes"


def test_the_loss_is_the_same_on_every_mesh():
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    done = subprocess.run(
        [sys.executable, "-m", ON_EVERY_MESH], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    alone, *others = np.array(json.loads(done.stdout.splitlines()[-1]))
    assert alone[-1][0] < alone[0][0]
    for other in others:
        np.testing.assert_allclose(other[:2], alone[:2], rtol=2e-4)
        np.testing.assert_allclose(other[2], alone[2], rtol=5e-3)


def vcr_predictions(questions=(3, 1)):
    rng = np.random.default_rng(0)
    ids = [f"test-{n}-qar-conditioned_on_a{i}" for n in questions for i in range(4)]
    return Predictions(ids, rng.standard_normal((len(ids), 2, 4), np.float32), {}, {})


def test_the_vcr_file_has_every_probability(tmp_path):
    predictions = vcr_predictions()
    (path,) = vcr_submission.write({"test": predictions}, str(tmp_path))
    assert vcr_submission.check(path) == 2
    header, first, second = (tmp_path / vcr_submission.NAME).read_text().splitlines()
    assert header.split(",")[:6] == ["annot_id", *(f"answer_{i}" for i in range(4)), "rationale_conditioned_on_a0_0"]
    assert len(header.split(",")) == 21
    assert [first.split(",")[0], second.split(",")[0]] == ["test-1", "test-3"]
    expected = jax.nn.softmax(predictions.logits[6, 1])
    np.testing.assert_allclose([float(cell) for cell in first.split(",")[13:17]], expected, rtol=1e-5)


def test_the_vcr_file_needs_all_four_records():
    whole = vcr_predictions()
    with pytest.raises(SubmissionError, match="'test-1' has no rationale_conditioned_on_a3_0"):
        vcr_submission.csv_of(dataclasses.replace(whole, ids=whole.ids[:-1], logits=whole.logits[:-1]))
    with pytest.raises(SubmissionError, match="'val-3' is not an id of VCR's test split"):
        vcr_submission.csv_of(dataclasses.replace(whole, ids=["val-3"], logits=whole.logits[:1]))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda text: text.replace("annot_id", "id"), "has the columns id"),
        (lambda text: text.splitlines()[0] + "\n", "holds no question"),
        (lambda text: text.replace("test-1,0.", "test-1,,0.", 1), "is not an id and 20 probabilities"),
        (lambda text: text.replace("test-1,0.", "test-1,9.", 1), "the probabilities of test-1 do not add up"),
        (lambda text: text.replace("test-1,0", "test-1,x", 1), "test-1 holds a cell that is empty or no number"),
        (lambda text: text.replace("test-1", "test-9"), "not in the order of their numbers"),
        (lambda text: "", "is not a CSV"),
    ],
)
def test_the_vcr_checker_refuses(change, sentence):
    text = vcr_submission.csv_of(vcr_predictions())
    with pytest.raises(SubmissionError, match=sentence):
        vcr_submission.check_bytes(change(text).encode(), "file.csv")


def tvqa_predictions():
    logits = {
        "audio": np.array([[9, 0, 0, 0, 0], [0, 1, 0, 0, 0]], np.float32),
        "text": np.array([[0, 0, 2, 0, 0], [0, 0, 9, 0, 0]], np.float32),
    }
    return Predictions(["000101~clip_a", "000102~clip_a"], logits, {}, {})


def test_the_tvqa_archives(tmp_path):
    paths = tvqa_submission.write({"val": tvqa_predictions(), "test": tvqa_predictions()}, str(tmp_path))
    assert sorted(path.rsplit("/", 1)[1] for path in paths) == ["audio.zip", "joint.zip", "text.zip"]
    chosen = {}
    for path in paths:
        assert tvqa_submission.check(path) == {"prediction_val.json": 2, "prediction_test_public.json": 2}
        with zipfile.ZipFile(path) as archive:
            chosen[path.rsplit("/", 1)[1]] = json.loads(archive.read("prediction_val.json"))
            meta = json.loads(archive.read("meta.json"))
            assert (meta["is_ensemble"], meta["with_ts"], meta["show_on_leaderboard"]) == (False, True, True)
    assert chosen["audio.zip"] == {"000101": 0, "000102": 1}
    assert chosen["text.zip"] == {"000101": 2, "000102": 2}
    assert chosen["joint.zip"] == {"000101": 0, "000102": 2}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"meta.json": {}}, "holds .'meta.json'. instead of"),
        ({"prediction_val.json": {"a": 1}}, "is 1 for 'a'; it must be a number from 0 to 4"),
        ({"prediction_val.json": {"1": 5}}, "is 5 for '1'"),
        ({"prediction_test_public.json": {}}, "prediction_test_public.json holds no answers"),
        ({"meta.json": {"model_name": "m"}}, "meta.json must hold model_name, is_ensemble"),
    ],
)
def test_the_tvqa_checker_refuses(files, sentence):
    whole = {"prediction_val.json": {"1": 1}, "prediction_test_public.json": {"1": 1}}
    whole = (
        {"meta.json": {}} if files == {"meta.json": {}} else whole | {"meta.json": tvqa_submission.META_VALUES} | files
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in whole.items():
            archive.writestr(name, json.dumps(content))
    with pytest.raises(SubmissionError, match=sentence):
        tvqa_submission.check_bytes(buffer.getvalue(), "a.zip")


def test_no_archive_is_named():
    with pytest.raises(SubmissionError, match="is not an archive of JSON files"):
        tvqa_submission.check_bytes(b"nothing", "a.zip")
    twice = dataclasses.replace(tvqa_predictions(), ids=["000101~a", "000101~b"])
    with pytest.raises(SubmissionError, match="the data holds one of them twice"):
        tvqa_submission.write({"val": twice, "test": twice}, "nowhere")


@pytest.mark.parametrize("name", TASKS)
def test_accuracies_against_plain_counting(name):
    """Every printed figure again in NumPy, over predictions with ties."""
    rng = np.random.default_rng(7)
    shape = {"vcr": (50, 2, 4), "tvqa": (50, 5), "choices": (50, 3)}[name]
    draw = partial(rng.integers, 0, 3, shape)
    scores = (
        draw().astype(np.float32) if name == "vcr" else {kind: draw().astype(np.float32) for kind in ("audio", "text")}
    )
    labels = rng.integers(0, shape[-1], shape[:-1])
    batch = {"labels": jnp.asarray(labels), "audio_seqs": None}
    task = TASKS[name]
    right = {key: np.asarray(value) for key, value in task.right(jax.tree.map(jnp.asarray, scores), batch).items()}
    given = {key: np.asarray(value) for key, value in task.labels(batch).items()}
    found = accuracies(Predictions([str(i) for i in range(50)], scores, right, given))

    def credit(row, label):
        return (row[label] == row.max()) / (row == row.max()).sum()

    def credits_of(rows, wanted):
        return np.array([credit(row, label) for row, label in zip(rows, wanted, strict=True)])

    if name == "vcr":
        parts = [credits_of(scores[:, i], labels[:, i]) for i in range(2)]
        expected = {"qa": (parts[0], 1 / 4), "qar": (parts[1], 1 / 4), "q2ar": (parts[0] * parts[1], 1 / 16)}
        answers = {"qa": labels[:, 0].tolist(), "qar": labels[:, 1].tolist(), "q2ar": list(map(tuple, labels.tolist()))}
    else:
        expected = {kind: (credits_of(one, labels), 1 / shape[-1]) for kind, one in scores.items()}
        assert set(found) == {"audio", "text", "joint"}
        answers = dict.fromkeys(expected, labels.tolist())
    for metric, (each, chance) in expected.items():
        accuracy, most = found[metric], max(map(answers[metric].count, answers[metric]))
        assert (accuracy.right, accuracy.asked) == (pytest.approx(each.sum()), 50)
        assert (accuracy.chance, accuracy.majority) == (pytest.approx(chance), most / 50)
        assert accuracy.low <= accuracy.share <= accuracy.high


def test_equal_scores_are_worth_a_guess():
    labels = jnp.zeros((8, 2), int)
    right = vcr.right(jnp.zeros((8, 2, 4)), {"labels": labels})
    assert {name: float(each.mean()) for name, each in right.items()} == {"qa": 0.25, "qar": 0.25, "q2ar": 0.0625}
    assert not any(each.any() for each in vcr.right(jnp.full((8, 2, 4), jnp.nan), {"labels": labels}).values())


def test_scores_that_are_not_finite_are_named():
    scores = {"text": np.zeros((3, 4), np.float32)}
    check_finite(["a", "b", "c"], scores)
    scores["text"][1, 2] = np.nan
    with pytest.raises(NotFiniteError, match="1 of 3 questions are not finite, first of 'b'"):
        check_finite(["a", "b", "c"], scores)


def test_the_published_modules_name_their_tasks():
    assert set(TASKS) == {"vcr", "tvqa", "choices"}
    assert vcr.TASK.best == "q2ar"
    assert tvqa.TASK.submitted_splits == ("val", "test")
