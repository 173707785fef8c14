"""How many requests a job makes in a bucket: those of the driver do not grow, those of the workers keep a budget."""

import re
from collections import Counter
from urllib.parse import unquote

import pytest
from emulator import Storm, upload

from shards.dataset import manifest
from shards.storage import object_store

PER_VIDEO, PER_EXAMPLE = 5, 1.5


@pytest.fixture
def counted(emulator, bucket, monkeypatch):
    """The bucket through a proxy that counts requests and fails none."""
    proxy = Storm(emulator.port, 0.0)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{proxy.port}")
    object_store._client.cache_clear()
    yield proxy
    proxy.end()


def kinds(requests):
    """The requests by what they are about."""
    found = Counter()
    for method, path, part in requests:
        name = unquote(path)
        if re.search(r"/videos/../", name):
            found[{"DELETE": "drop", "POST": "commit"}.get(method) or ("look up" if "=-" in part else "read")] += 1
        elif re.search(r"source[0-9]*/.*\.(mp4|vtt|json)", name):
            found["source"] += 1
        elif re.search(r"of\d{5}\.(tfrecord|index|stats\.json)", name):
            found["shard"] += 1
        else:
            found["other"] += 1
    return found


def test_requests_keep_their_budget(counted, bucket, corpus, run, quick, tmp_path, faults):
    names = sorted(path.stem for path in (corpus / "train").glob("*.mp4"))
    flags = [flag if flag != "200000" else "100000000" for flag in quick]
    found = []
    for number, count in enumerate((2, 6)):
        some = tmp_path / f"some{count}"
        some.mkdir()
        for path in [path for name in names[:count] for path in (corpus / "train").glob(f"{name}.*")]:
            if not path.name.endswith((".truth.json", ".en-manual.vtt")):
                (some / path.name).symlink_to(path)
        # Media, one caption track and metadata: three files of a video, each read once.
        upload(some, f"{bucket}/source{number}")
        counted.requests.clear()
        out = f"{bucket}/data{number}"
        ran = run.preprocess("--videos", f"{bucket}/source{number}", "--out", out, *flags)
        assert ran.status == 0, ran.err
        requests = kinds(counted.requests)
        examples = sum(shard.examples for shard in manifest.load(out).shards())
        assert examples == 2 * count
        assert requests["look up"] == requests["commit"] == requests["drop"] == count
        assert requests["look up"] + requests["commit"] + requests["source"] <= PER_VIDEO * count
        assert requests["read"] + requests["shard"] <= PER_EXAMPLE * examples + 4
        found.append(requests)
    few, many = found
    assert few["other"] == many["other"], "the driver's requests, and those that end the job, do not grow"
    per_video = (many["look up"] + many["commit"] + many["source"]) / 6
    faults.record(
        "requests of a job in a bucket",
        f"{per_video:.1f} a video, {(many['read'] + many['shard']) / 12:.2f} an example",
        f"{many['other']} in all beside, for 2 and for 6 videos; {dict(many)}",
    )
