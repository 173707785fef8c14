"""The files of TVQA's leaderboard: an archive for each kind of input, and the checker of its format.

The same model answers from subtitles, from sound, and from both together; each is a submission of its own
(docs/spec/finetune_data.md 3.9).
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping

import numpy as np

from shards.records.tvqa import OPTIONS
from shards.storage import filesystem
from train.tasks import Predictions, SubmissionError
from train.tasks.choices import joint_probabilities

VARIANTS = ("text", "audio", "joint")
FILES = {"val": "prediction_val.json", "test": "prediction_test_public.json"}
META = "meta.json"
META_VALUES = {
    "model_name": "",
    "is_ensemble": False,
    "with_ts": True,
    "show_on_leaderboard": True,
    "author": "",
    "institution": "",
    "description": "",
    "paper_link": "",
    "code_link": "",
}
"""What the leaderboard asks for; the texts are for the submitter to fill in."""

_EPOCH = (1980, 1, 1, 0, 0, 0)


def write(predictions: Mapping[str, Predictions], folder: str) -> list[str]:
    """Write `text.zip`, `audio.zip` and `joint.zip` of the splits `val` and `test`, checked; returns their paths."""
    chosen = {split: _chosen(one) for split, one in predictions.items()}
    paths = []
    for variant in VARIANTS:
        path = filesystem.join(folder, f"{variant}.zip")
        meta = META_VALUES | {"model_name": f"reservoir-{variant}"}
        data = _archive({FILES[split]: chosen[split][variant] for split in FILES} | {META: meta})
        check_bytes(data, path)
        filesystem.write_bytes(path, data)
        paths.append(path)
    return paths


def _chosen(predictions: Predictions) -> dict[str, dict[str, int]]:
    """By variant, the option chosen for each question, keyed by its number with leading zeros."""
    scores = dict(predictions.logits) | {"joint": joint_probabilities(predictions.logits)}
    keys = [name.partition("~")[0] for name in predictions.ids]
    if len(set(keys)) < len(keys):
        raise SubmissionError("two questions have the same number; the data holds one of them twice")
    options = {variant: np.asarray(scores[variant]).argmax(axis=-1).tolist() for variant in VARIANTS}
    return {variant: dict(zip(keys, options[variant], strict=True)) for variant in VARIANTS}


def _archive(files: Mapping[str, dict]) -> bytes:
    """Return a zip that depends on the content alone."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            archive.writestr(entry, json.dumps(content) + "\n", zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def check(path: str) -> dict[str, int]:
    """Return the number of questions by file of an archive that the leaderboard takes. Raises `SubmissionError`."""
    return check_bytes(filesystem.read_bytes(path), path)


def check_bytes(data: bytes, path: str) -> dict[str, int]:
    """Return `check` of the content of a file; `path` is for messages."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = {name: json.loads(archive.read(name)) for name in archive.namelist()}
    except (zipfile.BadZipFile, ValueError) as error:
        raise SubmissionError(f"{path!r} is not an archive of JSON files: {error}") from None
    if set(files) != {*FILES.values(), META}:
        raise SubmissionError(f"{path!r} holds {sorted(files)} instead of {sorted((*FILES.values(), META))}")
    meta = files.pop(META)
    if not isinstance(meta, dict) or {k: type(v) for k, v in meta.items()} != {
        k: type(v) for k, v in META_VALUES.items()
    }:
        raise SubmissionError(f"{path!r}: {META} must hold {', '.join(META_VALUES)}")
    for name, chosen in files.items():
        if not isinstance(chosen, dict) or not chosen:
            raise SubmissionError(f"{path!r}: {name} holds no answers")
        for key, option in chosen.items():
            if not (key.isdecimal() and type(option) is int and 0 <= option < OPTIONS):
                raise SubmissionError(f"{path!r}: {name} is {option!r} for {key!r}; it must be a number from 0 to 4")
    return {name: len(chosen) for name, chosen in files.items()}
