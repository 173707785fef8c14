"""The folder of compiled programs stays small and sound, and native libraries keep quiet."""

import os
import subprocess
import sys

import compiled_programs
import pytest
import zstandard


def entry(folder, name, written, content):
    file = folder / f"{name}-cache"
    file.write_bytes(content)
    os.utime(file, (written, written))
    return file


def test_the_oldest_programs_beyond_the_limit_are_removed(tmp_path):
    whole = zstandard.compress(bytes(100))
    for name, written in (("old", 10), ("older", 5), ("new", 20)):
        entry(tmp_path, name, written, whole)
    compiled_programs.tidy(tmp_path, since=0, most_bytes=2 * len(whole))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new-cache", "old-cache"]


def test_incomplete_programs_of_killed_processes_are_removed(tmp_path):
    whole = zstandard.compress(os.urandom(1000))
    entry(tmp_path, "whole", 20, whole)
    entry(tmp_path, "torn", 20, whole[:500])
    entry(tmp_path, "earlier", 5, b"not looked at")
    compiled_programs.tidy(tmp_path, since=10)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["earlier-cache", "whole-cache"]


@pytest.mark.parametrize("package", ["shards", "train", "pipelines"])
def test_log_levels_are_set_before_native_libraries_load(package):
    program = (
        f"import os, sys, {package}; print(os.environ['TF_CPP_MIN_LOG_LEVEL'], os.environ['TF_ENABLE_ONEDNN_OPTS'])"
    )
    program += "; assert not {'jax', 'tensorflow'} & set(sys.modules)"
    names = ("TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    for given, expected in (({}, "3 0"), ({names[0]: "0", names[1]: "1"}, "0 1")):
        ran = subprocess.run(
            [sys.executable, "-c", program], env=clean | given, capture_output=True, text=True, check=True
        )
        assert ran.stdout.split() == expected.split()
