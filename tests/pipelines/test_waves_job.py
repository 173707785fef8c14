"""A data set that is made in waves grows by more of them, and takes back nothing that was taken out."""

import json

from shards import generations, manifest, removal, tally, waves
from shards.ledger import Ledger


def test_a_longer_list_makes_waves_of_what_is_new(tmp_path, run, corpus, quick):
    out = tmp_path / "out"
    first = ("--videos", corpus / "train", "--out", out, *quick, "--wave", "2")
    ran = run.preprocess(*first, "--limit", "3")
    assert ran.status == 0, ran.err
    assert [(g.number, g.videos, g.took) for g in manifest.load(str(out)).generations] == [
        (0, 2, []),
        (1, 1, []),
        (2, 0, [0, 1]),
    ]
    shards = {path.name: path.read_bytes() for path in out.glob("*.tfrecord")}
    victim = sorted(Ledger(str(out)).entries())[0]
    removal.remove(str(out), [victim])

    ran = run.preprocess(*first)
    assert ran.status == 0, ran.err
    held = manifest.load(str(out))
    assert [(g.number, g.videos) for g in held.generations][3:] == [(3, 2), (4, 1), (5, 0)]
    assert held.generations[-1].took == [2, 3, 4]
    assert all((out / name).read_bytes() == content for name, content in shards.items() if (out / name).exists())
    assert tally.of_data(str(out)).ids.size == 6
    assert Ledger(str(out)).entries()[victim].outcome == "withdrawn"
    assert len(generations.packed_videos(str(out), held)) == 6
    runs = [r for path in out.glob("*.stats.json") for group in json.loads(path.read_text())["runs"] for r in group]
    places = [(video, i) for video, start, stop in runs for i in range(start, stop)]
    assert len(places) == len(set(places))
    assert victim not in {video for video, _ in places}
    assert run("shards", "verify", out).status == 0

    ran = run.preprocess(*first)
    assert ran.status == 0, ran.err
    assert manifest.load(str(out)) == held, "there is nothing left to do"
    assert waves.unfinished(str(out)) == []
