"""The list of faults that `python -m tests.run_mutations` makes fits the sources and names tests that exist."""

import shutil
from pathlib import Path

import pytest
import run_mutations

LISTED = run_mutations.mutations()


def test_there_are_faults_in_every_package():
    assert {mutation.file.partition("/")[0] for mutation in LISTED} == {
        "shards",
        "ingest",
        "model",
        "train",
        "pipelines",
    }
    assert len({mutation.name for mutation in LISTED}) == len(LISTED) >= 25


@pytest.mark.parametrize("mutation", LISTED, ids=lambda mutation: mutation.name)
def test_a_fault_can_be_made_and_its_test_exists(mutation, tmp_path):
    target = tmp_path / mutation.file
    target.parent.mkdir(parents=True)
    shutil.copy(run_mutations.ROOT / mutation.file, target)
    mutation.apply(tmp_path)
    compile(target.read_text(), mutation.file, "exec")
    file, _, function = mutation.test.partition("::")
    assert f"def {function.partition('[')[0]}(" in Path(run_mutations.ROOT / file).read_text()
