"""Each benchmark's official layout in small: what is shown, what is asked, what counts as right, and going on."""

import json
import shutil

import pytest

from pipelines.zeroshot import __main__ as command
from pipelines.zeroshot import epic, lsmdc, msrvtt
from pipelines.zeroshot.benchmark import Benchmark, Question, Ranking, chance, chunks, majority, shares
from pipelines.zeroshot.epic import Epic
from pipelines.zeroshot.kinetics import Kinetics
from pipelines.zeroshot.lsmdc import Lsmdc
from pipelines.zeroshot.msrvtt import Msrvtt
from pipelines.zeroshot.star import Star
from shards.storage.errors import UsageError


@pytest.fixture(scope="module")
def weights(make_weights, tmp_path_factory):
    return make_weights(
        tmp_path_factory.mktemp("weights"), "my next action is open door of cupboard wash cup a video about"
    )


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory, golden):
    folder = tmp_path_factory.mktemp("epic")
    rows = ["n0,P01_01,10,20,0,1,1", "n1,P01_01,10,20,1,0,0", "n2,P01_02,10,20,1,0,0"]
    (folder / "validation.csv").write_text("\n".join(rows) + "\n")
    (folder / "actions.csv").write_text("id,verb,noun,action\n0,wash,cup,wash cup\n1,open,cupboard:door,open door\n")
    (folder / "EPIC_100_validation.csv").write_text(
        "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp\n"
        "n0,P01,P01_01,00:00:20.10,00:00:20.50,00:00:21.00\n"
        "n1,P01,P01_01,00:00:02.10,00:00:02.50,00:00:03.00\n"
        "n2,P01,P01_02,00:00:20.10,00:00:20.50,00:00:21.00\n"
    )
    videos = folder / "videos" / "P01"
    videos.mkdir(parents=True)
    shutil.copy(golden / "videos" / "gOldVidA_01.mp4", videos / "P01_01.MP4")
    return folder


def test_epic_shows_what_came_before_the_gap(kitchen):
    benchmark = Epic(str(kitchen)).load()
    assert benchmark.options == ("wash cup", "open door cupboard")
    first, second, _ = benchmark.questions
    intervals = first.show(83.0)
    assert len(intervals) == 8
    assert intervals[-1] == (17.5, 19.5)
    assert intervals[0] == pytest.approx((3.5, 5.5))
    assert second.show(83.0) == []
    assert first.answer == "open door cupboard"


def test_epic_counts_verbs_and_nouns_of_the_ranked_actions(kitchen):
    benchmark = Epic(str(kitchen)).load()
    rankings = {"n0": Ranking("n0", ("wash cup", "open door cupboard")), "n1": Ranking("n1", ("wash cup",))}
    score = benchmark.score(rankings)
    assert score["action top-1"] == pytest.approx(1 / 3)
    assert score["action top-5"] == pytest.approx(2 / 3)
    assert score["noun top-1"] == pytest.approx(1 / 3)
    assert epic.spoken_noun("cupboard:door") == "door cupboard"


def test_the_command_ranks_scores_and_continues(kitchen, weights, tmp_path, capsys):
    out = tmp_path / "rankings.jsonl"
    arguments = ["epic", "--annotations", str(kitchen), "--videos", str(kitchen / "videos"), "--out", str(out)]
    assert command.main([*arguments, "--checkpoint", weights]) == 0
    said = capsys.readouterr()
    assert "action top-5" in said.out
    assert "2 questions count as wrong" in said.err
    held = [json.loads(line) for line in out.read_text().splitlines()]
    assert [bool(line["error"]) for line in held] == [False, True, True]
    assert set(held[0]["best"]) == {"wash cup", "open door cupboard"}
    # Nothing is left to ask: no weights are needed.
    assert command.main([*arguments, "--checkpoint", "/nowhere"]) == 0


def test_msrvtt_vocabulary_statements_and_segments(tmp_path):
    train = [{"answer": a} for a in ["man"] * 3 + ["dog"] * 2 + ["cat"] * 2 + ["car"]]
    assert msrvtt.answers(train, 2) == ["man", "cat", "dog"]
    assert msrvtt.answers(train, 100) == ["man", "cat", "dog", "car"]
    (tmp_path / "train_qa.json").write_text(json.dumps(train))
    items = [
        {"id": 1, "video_id": 7010, "question": "who", "answer": "man", "statement": "the _ runs"},
        {"id": 2, "video_id": 7011, "question": "what", "answer": "tree", "statement": "_ and _"},
    ]
    (tmp_path / "test_infill.json").write_text(json.dumps(items))
    benchmark = Msrvtt(str(tmp_path)).load()
    assert [q.prompt for q in benchmark.questions] == ["the <|MASK|> runs", ""]
    assert benchmark.questions[0].video == "video7010"
    assert benchmark.questions[0].show(10.0) == [(0.5, 3.5), (3.5, 6.5), (6.5, 9.5)]
    assert chunks(2.0, 3.0) == [(0.0, 2.0)]
    assert "1 of 2 questions" in benchmark.remarks[0]
    assert benchmark.score({"1": Ranking("1", ("cat", "man"))}) == {"top-1": 0.0, "top-5": 0.5, "top-10": 0.5}


def test_chance_and_the_most_frequent_answers_against_counting():
    answers = ["a"] * 5 + ["b"] * 3 + ["c"] * 2
    questions = [Question(str(i), "v", lambda length: [], "", answer) for i, answer in enumerate(answers * 200)]
    benchmark = Benchmark(questions, ("c", "b", "a", "d"), shares(questions, (1, 2)))
    assert majority(benchmark, 50) == {"top-1": 0.5, "top-2": 0.8}
    assert chance(benchmark, 50) == pytest.approx({"top-1": 1 / 4, "top-2": 2 / 4}, abs=0.02)


def test_lsmdc_star_and_kinetics_read_their_layouts(tmp_path):
    (tmp_path / "train.tsv").write_text("clip\tquestion\tanswer\nc0\tshe _____ away\twalks\nc1\the _____\truns\n")
    (tmp_path / "test.tsv").write_text("c2\t0\t1\tthe man _____ home\truns\n")
    film = Lsmdc(str(tmp_path / "test.tsv"), str(tmp_path / "train.tsv")).load()
    assert (film.options, film.questions[0].prompt) == (("walks", "runs"), "the man <|MASK|> home")
    assert lsmdc.prompt("_____ and _____") == ""
    situation = {
        "question_id": "Sequence_T1_13",
        "question": "What did he do?",
        "answer": "Sat.",
        "video_id": "abc",
        "start": 5.0,
        "end": 21.0,
        "choices": [{"choice_id": 0, "choice": "Sat."}, {"choice_id": 1, "choice": "Ran."}],
    }
    (tmp_path / "star.json").write_text(json.dumps([situation]))
    star = Star(str(tmp_path / "star.json")).load()
    assert star.questions[0].show(15.0) == [(5.0, 10.0), (10.0, 15.0)]
    assert majority(star, 50) == {"top-1": 1, "top-1, Sequence": 1}
    assert star.score({"Sequence_T1_13": Ranking("Sequence_T1_13", ("Sat.",))}) == {"top-1": 1, "top-1, Sequence": 1}
    (tmp_path / "k.csv").write_text(
        "label,youtube_id,time_start,time_end,split\njuggling,abc,0,10,test\nsmoking,d,0,10,test\n"
    )
    (tmp_path / "classes.txt").write_text("juggling\nyodeling\n")
    kinetics = Kinetics(str(tmp_path / "k.csv"), str(tmp_path / "classes.txt")).load()
    assert [q.answer for q in kinetics.questions] == ["juggling"]
    assert kinetics.options == ("juggling", "yodeling")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda f: Epic(str(f)), "cannot be read"),
        (lambda f: Msrvtt(str(f)), "train_qa.json"),
        (lambda f: Lsmdc(str(f / "none"), str(f / "none")), "cannot be read"),
        (lambda f: Star(str(f / "list.json")), "is not a JSON list of objects"),
        (lambda f: Kinetics(str(f / "bad.csv")), "has no 'label'"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, make, complaint):
    (tmp_path / "list.json").write_text("{}")
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match=complaint):
        make(tmp_path).load()
