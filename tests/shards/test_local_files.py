"""What makes a file survive a power cut: flushed before it gets its name, and the name flushed after."""

import sys
from pathlib import Path

import pytest

from shards.storage import filesystem


@pytest.fixture
def system_calls():
    """The names of the system calls of interest that this process makes, in order."""
    calls = []

    def note(frame, event, function):
        if event == "c_call" and function.__name__ in ("fsync", "replace", "rename", "write"):
            calls.append("rename" if function.__name__ == "replace" else function.__name__)

    def record(act):
        before = sys.getprofile()
        sys.setprofile(note)
        try:
            act()
        finally:
            sys.setprofile(before)
        return calls

    return record


def test_files_are_flushed_before_and_folders_after_renaming(tmp_path, system_calls):
    path = tmp_path / "file"
    calls = system_calls(lambda: filesystem.write_bytes(str(path), b"content"))
    assert calls == ["write", "fsync", "rename", "fsync"]
    assert path.read_bytes() == b"content"


def test_a_line_is_one_write_that_is_flushed(tmp_path, system_calls):
    path = tmp_path / "lines"
    calls = system_calls(lambda: filesystem.append_line(str(path), b"line"))
    assert calls == ["write", "fsync"]
    assert path.read_bytes() == b"line\n"


def test_a_torn_line_stays_alone(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"whole\nto")
    filesystem.append_line(str(path), b"next")
    assert path.read_bytes() == b"whole\nto\nnext\n"


def test_nothing_is_left_of_a_file_that_could_not_be_written(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def stop_half_way():
        with filesystem.create(str(path)) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_half_way()
    assert [p.name for p in Path(tmp_path).iterdir()] == ["file"]
    assert path.read_bytes() == b"before"
