"""Rank the options of a benchmark's questions with a model, and store the rankings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from ingest import clip, media
from ingest.clip import ClipError
from ingest.media import MediaError
from model import inference
from model.pretrained import Pretrained
from pipelines.inference.clips import inputs
from pipelines.zeroshot.benchmark import MAX_RANKED, Benchmark, Question, Ranking, read_rankings
from shards.storage import filesystem


def run(model: Pretrained, benchmark: Benchmark, videos: Mapping[str, str], out: str) -> Iterator[Ranking]:
    """Rank the options of every question without a ranking in `out`, append each ranking to it, and yield it."""
    done = read_rankings(out)
    for question in benchmark.questions:
        if question.id not in done:
            ranking = _rank(model, question, benchmark.options, videos)
            line = {"id": ranking.id, "best": ranking.best, "error": ranking.error}
            filesystem.append_line(out, json.dumps(line).encode())
            yield ranking


def _rank(model: Pretrained, question: Question, shared: tuple[str, ...] | None, videos: Mapping[str, str]) -> Ranking:
    path = videos.get(question.video)
    if path is None:
        return Ranking(question.id, error=f"there is no video {question.video!r}")
    if not question.prompt:
        return Ranking(question.id, error="the question could not be turned into a statement")
    try:
        length = media.probe(path).duration or 0.0
        intervals = question.show(length)
        if not intervals:
            return Ranking(question.id, error="no segment fits before the moment in question")
        video = inputs(clip.read_intervals(path, intervals), model.config.grid)
    except (ClipError, MediaError) as error:
        return Ranking(question.id, error=str(error))
    options = question.options or shared or ()
    answers = inference.answer(model, video, question.prompt, options, prompt_segment=-1)
    return Ranking(question.id, answers.options[:MAX_RANKED])
