"""Finetuning end to end on the official layouts: train, stop, continue, evaluate, submit; and what is refused."""

import contextlib
import dataclasses
import json
import re
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from model import published
from model.checkpoints import export
from model.config import TINY
from model.reserve import initial_parameters
from pipelines import choices, tvqa, vcr
from shards.command_line import run_command
from shards.reader import Reader, StreamOptions
from shards.reading.evaluation import IS_RECORD, Pass
from shards.records.vcr import VcrConfig, VcrParser
from shards.storage.errors import UsageError, UserError
from tests.training_runs import losses
from train import evaluate, finetune, finetuning
from train.config import MeshConfig
from train.finetune_config import FinetuneConfig
from train.mesh import make_mesh, to_devices
from train.metrics.formatting import MetricsLog
from train.run import Run
from train.tasks import setup, tvqa_submission, vcr_submission
from train.tasks.step import initial_state, make_step, task_shapes
from train.tasks.table import TASKS

ROOT = Path(__file__).parent.parent.parent
SMALL = (
    *("--init", "random:tiny", "--input.grid", "2", "2", "--dtype", "float32", "--batch-size", "2"),
    *("--learning-rate", "1e-3", "--log-every", "1", "--checkpoint-every", "1"),
)
IN_PROCESS = ("--direct_num_workers=1", "--direct_running_mode=in_memory")


def drawn(model):
    """Fresh parameters."""
    return jax.jit(initial_parameters, static_argnums=0)(model, jax.random.key(1))


@pytest.fixture(scope="session")
def golden_questions():
    return ROOT / "tests" / "golden" / "data" / "finetune"


@pytest.fixture(scope="module")
def prepared(golden_questions, published_tokenizer, tmp_path_factory):
    """The official folders, and a set of pictures whose colour is asked for, as data folders."""
    out, golden = tmp_path_factory.mktemp("questions"), golden_questions
    common = ("--tokenizer", str(published_tokenizer), *IN_PROCESS)
    for module, folder in ((vcr, "vcr1"), (tvqa, "tvqa")):
        for split in ("train", "val", "test"):
            assert (
                module.main(
                    [
                        "--data",
                        str(golden / folder),
                        "--out",
                        str(out / module.__name__.split(".")[1]),
                        "--split",
                        split,
                        *common,
                    ]
                )
                == 0
            )
    colours = ("red", "green", "blue", "white")
    for split in ("train", "val"):
        lines = []
        for i in range(16):
            Image.new("RGB", (64, 64), colours[i % 4]).save(out / f"{i}.jpg")
            line = {"image": f"{i}.jpg", "question": "Which colour is it?", "answers": list(colours), "label": i % 4}
            lines.append(json.dumps(line))
        (out / f"{split}.jsonl").write_text("\n".join(lines))
        assert (
            choices.main(
                ["--data", str(out / f"{split}.jsonl"), "--out", str(out / "choices"), "--split", split, *common]
            )
            == 0
        )
    return out


def arguments(prepared, task, workdir, *more):
    return [task, "--data", str(prepared / task), "--workdir", str(workdir), *SMALL, *more]


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory):
    """A finished VCR run of six epochs of one step."""
    workdir = tmp_path_factory.mktemp("vcr") / "run"
    assert run_command(lambda: finetune.main(arguments(prepared, "vcr", workdir, "--epochs", "6"))) == 0
    return workdir


def test_a_run_leaves_metrics_evaluations_and_the_best_weights(undisturbed):
    assert list(losses(undisturbed)) == [1, 2, 3, 4, 5, 6]
    assert all(np.isfinite(loss) for loss in losses(undisturbed).values())
    lines = MetricsLog(str(undisturbed / "metrics.jsonl")).lines()
    assert {"accuracy/q2ar", "loss_qa", "loss_qar", "grad_norm", "learning_rate"} <= set(lines[0])
    assert lines[0]["learning_rate"] == pytest.approx(1e-3)
    assert lines[-1]["learning_rate"] < lines[1]["learning_rate"] < 1e-3
    judged = MetricsLog(str(undisturbed / "evaluations.jsonl")).lines()
    assert [line["step"] for line in judged] == [1, 2, 3, 4, 5, 6]
    best = max(judged, key=lambda line: line["val/q2ar"])
    (weights,) = (undisturbed / "best").glob("ckpt_*")
    assert weights.name == f"ckpt_{best['step']}"
    loaded = published.load(weights, grid=None)
    assert loaded.config.grid == (2, 2)
    assert set(loaded.params) == {"contrastive_scales", "joint_transformer", "proj", "token_encoder", "vision_encoder"}
    assert (undisturbed / "best" / "tokenizer.json").is_file()


class StopAt:
    """Asks to stop when it has been asked so many times."""

    def __init__(self, times):
        self.left = times

    def __call__(self, step):
        self.left -= 1
        return self.left < 0


def test_a_stopped_run_continues_with_the_same_losses(undisturbed, prepared, tmp_path):
    with (tmp_path / "said").open("w") as said:
        console = Console(file=said, soft_wrap=True)
        options = finetune.parse(arguments(prepared, "vcr", tmp_path / "run", "--epochs", "6"))
        assert finetuning.finetune(Run(options.workdir, console, StopAt(3)), options) is None
        assert list(losses(tmp_path / "run")) == [1, 2, 3][: len(losses(tmp_path / "run"))]
        assert len(losses(tmp_path / "run")) < 6
        assert finetuning.finetune(Run(options.workdir, console, StopAt(1_000)), options)["val/questions"] == 1
    said = (tmp_path / "said").read_text()
    assert re.search(r"stopped at step \d of 6; the same command continues", said)
    assert re.search(r"continuing from step \d", said)
    assert losses(tmp_path / "run") == losses(undisturbed)


def test_evaluation_and_the_leaderboard_file_of_vcr(undisturbed, prepared, tmp_path, capsys):
    command = ["vcr", "--data", str(prepared / "vcr"), "--checkpoint", str(undisturbed)]
    assert run_command(lambda: evaluate.main([*command, "--json"])) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: share["asked"] for name, share in found.items()} == {"qa": 1, "qar": 1, "q2ar": 1}
    assert run_command(lambda: evaluate.main([*command, "--submit", str(tmp_path / "out")])) == 0
    path = capsys.readouterr().out.strip()
    assert vcr_submission.check(path) == 1
    assert run_command(lambda: evaluate.main(command)) == 0
    assert "95 % interval" in capsys.readouterr().out


def test_tvqa_from_pretrained_weights_to_its_archives(prepared, tmp_path, capsys):
    """Starts from an exported checkpoint, whose vocabulary is checked, with two microbatches."""
    model = dataclasses.replace(TINY, vocabulary_size=32_768).with_grid((2, 2))
    export(drawn(model), tmp_path / "ckpt_0")
    argv = arguments(
        prepared, "tvqa", tmp_path / "run", "--epochs", "1", "--init", str(tmp_path / "ckpt_0"), "--microbatches", "2"
    )
    assert run_command(lambda: finetune.main(argv)) == 0
    (line,) = MetricsLog(str(tmp_path / "run" / "evaluations.jsonl")).lines()
    assert {"val/text", "val/audio", "val/joint"} <= set(line)
    assert line["val/questions"] == 4
    command = ["tvqa", "--data", str(prepared / "tvqa"), "--checkpoint", str(tmp_path / "run")]
    capsys.readouterr()
    assert run_command(lambda: evaluate.main([*command, "--submit", str(tmp_path / "out")])) == 0
    paths = capsys.readouterr().out.split()
    assert [tvqa_submission.check(path)["prediction_val.json"] for path in paths] == [4, 4, 4]
    assert [tvqa_submission.check(path)["prediction_test_public.json"] for path in paths] == [1, 1, 1]
    for checkpoint, sentence in (
        (tmp_path / "ckpt_0", "is not finetuned for vcr"),
        (tmp_path / "run", "was finetuned on tvqa, not on vcr"),
        (tmp_path / "none", "is neither a file nor a published name"),
    ):
        with pytest.raises(UsageError, match=sentence):
            setup.load_classifier(TASKS["vcr"], str(checkpoint), str(prepared / "vcr"))


def test_own_questions_need_no_code_and_a_sweep_compares(prepared, tmp_path, capsys):
    argv = arguments(prepared, "choices", tmp_path, "--epochs", "1", "--batch-size", "8", "--sweep", "seed=0,1")
    assert run_command(lambda: finetune.main(argv)) == 0
    lines = [json.loads(line) for line in (tmp_path / "sweep.jsonl").read_text().splitlines()]
    assert {line["run"] for line in lines} == {"seed=0", "seed=1"}
    assert [line["val/joint"] for line in lines] == sorted((line["val/joint"] for line in lines), reverse=True)
    stored = json.loads((tmp_path / lines[0]["run"] / "config.json").read_text())["input"]
    assert (stored["options"], stored["segments"], stored["sound"]) == (4, 1, False)
    assert "seed=1: val/joint" in capsys.readouterr().err
    command = ["choices", "--data", str(prepared / "choices"), "--checkpoint", str(tmp_path / "seed=1")]
    assert run_command(lambda: evaluate.main([*command, "--submit", str(tmp_path / "out")])) == 2
    assert "the task 'choices' has no leaderboard" in capsys.readouterr().err
    written = tmp_path / "predictions.jsonl"
    assert run_command(lambda: evaluate.main([*command, "--json", "--predictions", str(written)])) == 0
    printed = json.loads(capsys.readouterr().out)
    assert set(printed) == {"text", "joint"}
    rows = [json.loads(line) for line in written.read_text().splitlines()]
    scores, labels = (
        np.array([row["scores"]["text"] for row in rows]),
        np.array([row["labels"]["text"] for row in rows]),
    )
    best = scores == scores.max(axis=1, keepdims=True)
    right = (best[np.arange(16), labels[:, 0]] / best.sum(axis=1)).sum()
    assert (scores.shape, len({row["id"] for row in rows})) == ((16, 4), 16)
    # Each of the four colours is the answer to four of the questions.
    figures = {"right": right, "asked": 16, "chance": 0.25, "majority": 0.25, "share": right / 16}
    for one in printed.values():
        assert {name: one[name] for name in figures} == pytest.approx(figures)


def test_a_sweep_is_every_combination():
    argv = ["vcr", "--data", "d", "--workdir", "w", *SMALL, "--sweep", "lr=1e-5,2e-5", "batch_size=16,32"]
    found = finetune.combinations(finetune.parse(argv))
    assert found == [{"learning_rate": rate, "batch_size": size} for rate in (1e-5, 2e-5) for size in (16, 32)]


@pytest.mark.parametrize(
    ("task", "more", "sentence"),
    [
        ("vcr", ("--epochs", "7"), "belongs to a run with epochs 6, not 7; choose another --workdir"),
        ("vcr", ("--init", "base", "--epochs", "6"), "belongs to a run with init 'random:tiny', not 'base'"),
        ("tvqa", ("--epochs", "6"), "belongs to a run with task 'vcr', not 'tvqa'"),
        ("vcr", ("--batch-size", "3", "--microbatches", "2"), "cannot be cut in 2 microbatches on each of 1 devices"),
        ("vcr", ("--val-split", "dev"), "has no split 'dev'; it has train, val, test"),
        ("vcr", ("--epochs", "0"), "epochs is 0; it must be positive"),
        ("vcr", ("--sweep", "lr=fast"), "'fast' is not a list such as 1e-5,2e-5"),
        ("vcr", ("--sweep", "grid=1,2"), "'grid' is not a number of the configuration"),
    ],
)
def test_what_cannot_be_is_one_sentence(undisturbed, prepared, capsys, task, more, sentence):
    assert run_command(lambda: finetune.main(arguments(prepared, task, undisturbed, *more))) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


def test_weights_of_the_wrong_kind_are_refused(undisturbed, prepared, tmp_path, capsys):
    """VCR's weights have no sound; questions of another task have other records."""
    best = str(undisturbed / "best")
    assert run_command(lambda: finetune.main(arguments(prepared, "tvqa", tmp_path / "a", "--init", best))) == 2
    assert "was finetuned for another task and has no audio_encoder" in capsys.readouterr().err
    argv = arguments(prepared, "vcr", tmp_path / "b")
    argv[argv.index(str(prepared / "vcr"))] = str(prepared / "tvqa")
    assert run_command(lambda: finetune.main(argv)) == 1
    assert "this is a record of another kind" in capsys.readouterr().err


def test_every_question_is_asked_once_on_any_number_of_hosts(prepared):
    parser = VcrParser(VcrConfig(grid=(2, 2)))
    for hosts in (1, 2, 3):
        seen = []
        for host in range(hosts):
            batches = list(Pass(str(prepared / "vcr"), "test", parser, 2, host, hosts))
            assert len(batches) == -(-4 // (2 * hosts))
            seen += [row for batch in batches for row in batch["id"][batch[IS_RECORD]]]
        assert sorted(bytes(row).rstrip(b"\0").decode() for row in seen) == [
            f"test-0-qar-conditioned_on_a{i}" for i in range(4)
        ]


def test_published_records_are_read_too(golden_questions):
    """Folders of records without a manifest, as published, by their names."""
    for task, count in (("vcr", 2), ("tvqa", 2)):
        folder = str(golden_questions / "records" / task)
        assert setup.open_questions(folder, "train").vocabulary.size == 32_768
        reader = dataclasses.replace(TASKS[task].reader, grid=(2, 2))
        (batch,) = Pass(folder, "train", TASKS[task].parser(reader), 4)
        assert batch[IS_RECORD].sum() == count
        with pytest.raises(UsageError, match="contains no shards"):
            setup.open_questions(folder, "val")


def test_a_damaged_record_is_named_in_evaluation(prepared):
    parser = VcrParser(VcrConfig(grid=(2, 2)))
    with pytest.raises(UserError, match=r"record 0 of '.*tvqa/val-.*' at byte 0: .*; prepare the split again"):
        list(Pass(str(prepared / "tvqa"), "val", parser, 2))


def test_microbatches_change_memory_only(prepared):
    task, data = TASKS["vcr"], str(prepared / "vcr")
    parser = VcrParser(VcrConfig(grid=(2, 2), training=True))
    with contextlib.closing(Reader(data, parser, 2, 0, options=StreamOptions(split="train"))) as reader:
        batch = next(reader)
    optimizer, mesh = FinetuneConfig(task.reader, learning_rate=1e-3, epochs=6).optimizer(1), make_mesh(MeshConfig())
    vocabulary = setup.open_questions(data, "train").vocabulary
    model, params = setup.start(task, "random:tiny", (2, 2), "float32", vocabulary, 0)
    ends = []
    for parts in (1, 2):
        step, state = make_step(task, model, optimizer, mesh, parts), initial_state(params, optimizer, mesh)
        state, metrics = step(state, to_devices(mesh, batch))
        ends.append((jax.tree.leaves(state.params), metrics["loss"], metrics["grad_norm"]))
    np.testing.assert_allclose(ends[0][1:], ends[1][1:], rtol=1e-4)
    far = [np.abs(np.asarray(a) - b) for a, b in zip(ends[0][0], ends[1][0], strict=True)]
    # Where a gradient is zero but for rounding, Adam's first update is the rate with either sign.
    assert max(difference.max() for difference in far) <= 2.1e-3
    assert min(np.mean(difference < 2e-5) for difference in far) > 0.98


def test_a_work_folder_of_pretraining_brings_its_configuration(prepared, tmp_path):
    """The kind of rotation is not in the file of the weights, but in the configuration of their run."""
    model = dataclasses.replace(TINY, vocabulary_size=32_768, rotary="standard", scan_layers=True)
    export(drawn(model), tmp_path / "export" / "ckpt_5")
    (tmp_path / "config.json").write_text(json.dumps({"model": dataclasses.asdict(model)}))
    vocabulary = setup.open_questions(str(prepared / "vcr"), "train").vocabulary
    found, params = setup.start(TASKS["vcr"], str(tmp_path), (2, 2), "float32", vocabulary, 0)
    assert (found.rotary, found.grid, found.scan_layers) == ("standard", (2, 2), False)
    assert set(params) == {"contrastive_scales", "joint_transformer", "proj", "token_encoder", "vision_encoder"}
    scanned, stacked = setup.with_layout(found, params, scan_layers=True, remat="dots")
    assert (scanned.remat.joint, scanned.remat.span) == ("dots", "none")
    assert jax.tree.map(np.shape, stacked) == jax.tree.map(lambda leaf: leaf.shape, task_shapes(TASKS["vcr"], scanned))


@pytest.fixture(scope="module")
def whole(prepared, run, tmp_path_factory):
    """A run of 30 epochs that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    ran = run("train.finetune", *arguments(prepared, "vcr", workdir, "--epochs", "30"))
    assert ran.status == 0, ran.err
    return workdir


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_has_the_same_losses_bit_for_bit(prepared, whole, run, tmp_path, number):
    workdir = tmp_path / "run"
    command = arguments(prepared, "vcr", workdir, "--epochs", "30")
    process = run.start("train.finetune", *command)
    process.wait_until((workdir / "checkpoints" / "5").exists, 200)
    process.send_signal(number)
    stopped = process.wait(120)
    assert stopped.status == (-signal.SIGKILL if number == signal.SIGKILL else 0), stopped.err
    assert max(losses(workdir)) < 30
    continued = run("train.finetune", *command)
    assert continued.status == 0, continued.err
    assert re.search(r"continuing from step \d+", continued.err)
    assert losses(workdir) == losses(whole)
