"""The frozen table of flags is that of the installed Beam; flags are checked and read without importing it."""

import pytest

from pipelines.runner import beam_flags
from shards.storage.errors import UsageError


def test_the_table_is_what_beam_registers():
    registered = {"SWITCHES": set(), "VALUED": set()}
    for action in beam_flags.parser()._actions:
        registered["SWITCHES" if action.nargs == 0 else "VALUED"] |= {flag[2:] for flag in action.option_strings}
    for name, flags in registered.items():
        words = " ".join(sorted(flags))
        assert getattr(beam_flags, name) == flags, (
            f"in pipelines/runner/beam_flags.py, replace the words of _{name} by: {words}"
        )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--runer=x"], "unknown argument '--runer=x'; did you mean '--runner'?"),
        (["--direct-num-workers", "2"], "did you mean '--direct_num_workers'?"),
        (["--streaming", "stray"], "unknown argument 'stray'; see --help"),
        (["--runner"], "--runner needs a value"),
        (["--project", "--region=r"], "--project needs a value"),
    ],
)
def test_words_that_are_no_flags_of_beam_are_refused(words, sentence):
    with pytest.raises(UsageError) as raised:
        beam_flags.check(words)
    assert sentence in str(raised.value)


def test_flags_and_values_are_read_as_beam_reads_them():
    words = ["--runner", "DirectRunner", "--streaming", "--runner=DataflowRunner", "--experiments=a=b"]
    beam_flags.check(words)
    assert beam_flags.runner(words) == "DataflowRunner"
    assert beam_flags.value(words, "experiments") == "a=b"
    assert beam_flags.value(words, "region") is None
    assert beam_flags.runner([]) == "FnApiRunner"


def test_a_wrong_value_is_one_sentence():
    with pytest.raises(UsageError, match="a Beam flag has an invalid value"):
        beam_flags.beam_options(["--direct_num_workers=many"])
