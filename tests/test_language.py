"""Shipped text is plain technical English: the phrases of an earlier style are refused wherever they come back.

Text is what people read: docstrings, comments, messages, help, docs and pages; names of variables are not searched.
"""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("shards", "ingest", "model", "train", "pipelines")
PHRASES = {
    r"\b(who|what|which|when)so?ever\b": "name the subject",
    r"\b(nobody|somebody|anybody)\b": "name the subject, or use the passive",
    r"(?<!there )\bis (no|none of) (?!longer)[A-Za-z]": "'is not a valid ...', 'is not one of ...'",
    r"\bin the place of\b": "'instead of'",
    r"\btold otherwise\b": "'by default'",
    r"\bwhat became of\b": "'outcome'",
    r"\bonly so many\b": "'maximum number of'",
    r"\b(in )?waves of so many\b": "'items per batch'",
    r"\bfor a reason that may pass\b": "'with a retryable error'",
    r"\b(house rules|door plate|ground floor|upper rooms?)\b": "'package', 'layer', 'docstring'",
    r"\bway of the items\b": "'filter funnel'",
    r"\bdid not meet\b": "'could not connect to the coordinator'",
    r"\bis a guest\b": "'runs in a sandboxed subprocess'",
    r"\bsees pictures\b": "'image embedder'",
    r"\b(settles?|settled)\b": "'resolve'",
    r"\bat work\b": "'running', 'in use'",
    r"\bgoes? on\b": "'continue'",
    r"\blets? go of\b": "'release', 'close'",
}


def comments_and_strings(path):
    """(line, text) of every comment and string of a module."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def texts(path):
    if path.suffix == ".py":
        yield from comments_and_strings(path)
    else:
        yield from enumerate(path.read_text().splitlines(), 1)


def shipped():
    for package in PACKAGES:
        yield from sorted(path for path in (ROOT / package).rglob("*") if path.suffix in (".py", ".html"))
    yield from sorted((ROOT / "docs").glob("*.md"))
    yield from (ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile"))


@pytest.mark.parametrize("phrase", PHRASES)
def test_old_phrases_do_not_come_back(phrase):
    pattern = re.compile(phrase, re.IGNORECASE)
    places = [
        f"{path.relative_to(ROOT)}:{line}: {' '.join(text[max(match.start() - 30, 0) : match.end() + 30].split())!r}"
        for path in shipped()
        for line, text in texts(path)
        for match in pattern.finditer(text)
    ]
    assert not places, f"write {PHRASES[phrase]} instead, in:\n" + "\n".join(places)
