"""What prepares the lines of each task over small folders of real media, for tests of odd and damaged lines."""

import json
import shutil

from PIL import Image

from ingest.questions.preparation import ChoicesPreparation, TvqaPreparation, VcrPreparation
from pipelines.questions.preparers import ChoicesPreparer, TvqaPreparer, VcrPreparer


def make_folder(golden, root):
    """Both official folders, a picture and a video of one's own, and files outside of each."""
    for name in ("vcr1", "tvqa"):
        shutil.copytree(golden / "finetune" / name, root / name)
    Image.new("RGB", (64, 48), "red").save(root / "private.jpg")
    (root / "private.json").write_text('{"names": [], "boxes": [], "width": 64}')
    (root / "own").mkdir()
    Image.new("RGB", (64, 48), "red").save(root / "own" / "a.jpg")
    shutil.copy(golden / "videos" / "gOldVidA_01.mp4", root / "own" / "clip.mp4")
    return root


def tasks(folder, tokenizer):
    """For each task the function that prepares its lines, and a sound line."""
    preparers = {
        "vcr": VcrPreparer(str(folder / "vcr1"), tokenizer, True, VcrPreparation()),
        "tvqa": TvqaPreparer(str(folder / "tvqa"), tokenizer, True, TvqaPreparation()),
        "choices": ChoicesPreparer(str(folder / "own"), tokenizer, True, ChoicesPreparation(options=2)),
    }
    lines = {
        "vcr": json.loads((folder / "vcr1" / "train.jsonl").read_text().splitlines()[0]),
        "tvqa": json.loads((folder / "tvqa" / "tvqa_qa_release" / "tvqa_train.jsonl").read_text().splitlines()[0]),
        "choices": {"image": "a.jpg", "question": "Which?", "answers": ["red", "blue"], "label": 0, "subtitle": "so"},
    }
    return {name: (preparer.open(), lines[name]) for name, preparer in preparers.items()}
