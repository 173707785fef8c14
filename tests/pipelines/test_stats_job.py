import json
import shutil


def test_the_job_gives_the_numbers_of_the_sidecars(run, film, tmp_path, quick):
    out = tmp_path / "out"
    assert run.preprocess("--videos", film, "--out", out, *quick).status == 0
    from_sidecars = run("shards", "stats", out, "--json")
    from_job = run("pipelines.stats", out, "--json")
    assert from_job.status == 0, from_job.err
    assert json.loads(from_job.out) == json.loads(from_sidecars.out)
    shard = min(out.glob("*.tfrecord"))
    shutil.copy(shard, tmp_path / "good.tfrecord")
    (tmp_path / "bad.tfrecord").write_bytes(shard.read_bytes()[:-5])
    ran = run("pipelines.stats", tmp_path / "*.tfrecord", "--json")
    assert ran.status == 1
    (problem,) = json.loads(ran.out)["problems"]
    assert "bad.tfrecord" in problem
