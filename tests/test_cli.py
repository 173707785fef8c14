"""The console command: its list, help, configuration files, completion, and a folder with modules of the same names."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines import cli
from shards import command_line, config_file
from shards.storage.errors import UsageError
from train import finetune, pretrain
from train.configs import PRESETS

RESERVOIR = Path(sys.executable).with_name("reservoir")
NAMES_OF_PACKAGES = ("train.py", "model.py", "shards.py", "ingest.py", "pipelines.py")
SUBCOMMANDS = {
    "pretrain": ["tiny"],
    "compile": ["tiny"],
    "finetune": ["vcr"],
    "evaluate": ["pretraining"],
    "zeroshot": ["epic"],
}


def reservoir(*words, cwd=None, timeout=280):
    # The path that pytest gives its own modules is not a user's.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [RESERVOIR, *map(str, words)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def help_of(name, capsys, monkeypatch, *words):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        cli.main([name, *words, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_commands_are_listed_without_importing_them():
    program = "import sys; from pipelines import cli; print(cli.usage()); print('tyro' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *listed, loaded = done.stdout.splitlines()
    assert loaded == "False"
    assert set(cli.COMMANDS) <= {line.split()[0] for line in listed if line.startswith("  ")}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_usage_names_the_console_command(name, capsys, monkeypatch):
    printed = help_of(name, capsys, monkeypatch)
    assert printed.startswith(f"usage: reservoir {name} "), printed.splitlines()[0]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_flag_has_a_help_sentence(name, capsys, monkeypatch):
    printed = help_of(name, capsys, monkeypatch, *SUBCOMMANDS.get(name, ()))
    rows = re.split(r"^\W{2}(?=--\w)", printed, flags=re.MULTILINE)[1:]
    texts = [" ".join(re.split(r"\n\W{0,3}\n|\n\W*---", row)[0].split()) for row in rows]
    bare = [text.split()[0] for text in texts if not re.search(r"[a-z][^()]*[.:](?= \(|$)", text.partition(" ")[2])]
    assert rows or name in ("card", "merge", "doctor")
    assert not bare, f"`reservoir {name}` does not explain {bare}"


def test_unknown_commands_get_a_suggestion():
    with pytest.raises(UsageError, match="'pretain' is not a command; did you mean 'pretrain'"):
        cli.main(["pretain"])
    with pytest.raises(UsageError, match="'tinny' is not a preset; did you mean 'tiny'"):
        cli.main(["pretrain", "tinny"])
    assert cli.resolve("ask_batch") == "ask-batch"


def test_version_and_list_of_the_installed_command():
    assert reservoir("--version").stdout == f"reservoir {command_line.VERSION}\n"
    assert reservoir("--help").stdout == cli.usage()
    assert reservoir().returncode == 2


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
def test_bash_completes_commands_and_flags(tmp_path):
    script = tmp_path / "completion"
    script.write_text(cli.completion_script(["bash"]))
    program = f"""source {script}
    COMP_WORDS=(reservoir pret) COMP_CWORD=1; _reservoir; echo "${{COMPREPLY[@]}}"
    COMP_WORDS=(reservoir stats --rec) COMP_CWORD=2; _reservoir; echo "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["pretrain", "--recompute"]


def test_completion_names_its_shells():
    assert "complete -c reservoir" in cli.completion_script(["fish"])
    assert "bashcompinit" in cli.completion_script(["zsh"])
    with pytest.raises(UsageError, match="needs one of bash, zsh, fish"):
        cli.main(["completion", "tcsh"])


def test_a_config_file_sets_what_the_command_line_does_not(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        'preset = "tiny"\ndata = "shards"\nworkdir = "run"\nbatch_size = 4\nadapt-to-data = false\n'
        "grids = [[4, 4], [2, 6]]\n[optimizer]\nlearning-rate = 1e-4\n[model]\nscan_layers = true\n"
    )
    options = pretrain.parse(["--config", str(path), "--batch-size=2"])
    assert (options.data, options.workdir, options.preset) == ("shards", "run", "tiny")
    config = PRESETS["tiny"]
    assert options.config == dataclasses.replace(
        config,
        batch_size=2,
        adapt_to_data=False,
        grids=((4, 4), (2, 6)),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=1e-4),
        model=dataclasses.replace(config.model, scan_layers=True),
    )
    assert pretrain.parse(["base", f"--config={path}"]).preset == "base"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_stored_run_can_be_given_back(preset, tmp_path):
    changed = dataclasses.replace(PRESETS[preset], batch_size=12, keep_every=7)
    stored = dataclasses.asdict(changed) | {"preset": preset, "tokenizer": "0" * 64, "data": "shards", "init": None}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(stored))
    options = pretrain.parse(["--config", str(path), "--workdir", "again"])
    assert options == dataclasses.replace(
        options, data="shards", init=None, workdir="again", preset=preset, config=changed
    )


def test_a_stored_finetuning_can_be_given_back(tmp_path):
    first = finetune.parse(["vcr", "--data", "d", "--init", "base", "--workdir", "w", "--input.no-mirror"])
    stored = {"task": "vcr", "init": "base", "tokenizer": "0" * 64, "data": "d", "model": {"hidden_size": 8}}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(stored | first.config.numbers()))
    assert finetune.parse(["--config", str(path), "--workdir", "w"]) == first


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("batch_sise = 3", "unknown argument '--batch_sise'; did you mean '--batch-size'?"),
        ("batch_size = ", "is not valid"),
        ("data = 'd'", "names no preset; give one of tiny"),
    ],
)
def test_config_files_with_mistakes_are_named(content, sentence, tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(content)
    words = [] if "preset" in sentence else ["tiny", "--data", "d", "--workdir", "w"]
    with pytest.raises(UsageError, match=re.escape(sentence)):
        pretrain.parse([*words, "--config", str(path)])
    with pytest.raises(UsageError, match="cannot be read"):
        config_file.read(str(tmp_path / "none.toml"))


def test_modules_of_the_working_directory_are_not_imported(corpus, quick, tmp_path):
    """A job with decoders, a training and an evaluation, in a folder with a `train.py`, a `model.py` and more."""
    for name in NAMES_OF_PACKAGES:
        (tmp_path / name).write_text("raise SystemExit('a module of the user was imported')")
    done = reservoir("preprocess", "--videos", corpus / "train", "--out", "data", *quick, "--limit", "3", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    small = ("--model.hidden-size", "32", "--batch-size", "1", "--steps", "1", "--reader-workers", "1")
    done = reservoir("pretrain", "tiny", "--data", "data", "--workdir", "run", *small, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "export").is_dir()
