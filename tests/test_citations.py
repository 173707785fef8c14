"""Every citation of the specification names a section that exists, and no other form of citation is in use."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SPEC = ROOT / "docs" / "spec"
PACKAGES = ("ingest", "shards", "model", "train", "pipelines")
FOLDERS = (*PACKAGES, "tests", "benchmarks", "docs")
SUFFIXES = {".py", ".md", ".html"}

NUMBER = r"\d+(?:\.\d+)*"
SEPARATOR = r"(?:\s*,\s*and\s+|\s*,\s*|\s+and\s+|\s+to\s+)"
CITATION = re.compile(rf"docs/spec/(\w+\.md)(?:\s+({NUMBER}(?:{SEPARATOR}{NUMBER})*))?")
OLD = re.compile(r"\b[Ss]pec [a-z_]+\.md|\b[Ss]pec \d|(?<!docs/)\bspec/[a-z_]+\.md")
OLD_OUTSIDE = re.compile(rf"\bdefect \d|(?<!docs/spec/)\b(?:ingest|shards|model|training|finetune_data)\.md {NUMBER}")
"""What only the pages themselves may write: the number of a defect, and a page without its folder."""

HEADING = re.compile(rf"^#{{2,}} ({NUMBER})\.?\s", re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
LINKED_SECTION = re.compile(rf"\]\((\w+\.md)\)\s+({NUMBER})")


def shipped():
    """Texts that are shipped, apart from this one, which quotes what it looks for."""
    files = [ROOT / "README.md", ROOT / "Makefile"]
    files += (path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES)
    return sorted(set(files) - {Path(__file__).resolve()})


def one_line(text):
    """The text with line breaks, and the marks of comments after them, as blanks: a citation may be wrapped."""
    return re.sub(r"\s*\n[ \t]*(?:#+[ \t])?\s*", " ", text)


def citations(text):
    """(page, sections) of every citation."""
    return [(page, re.findall(NUMBER, numbers)) for page, numbers in CITATION.findall(one_line(text))]


def old_citations(text, path):
    """Citations in forms that no longer resolve."""
    flat = one_line(text)
    found = OLD.findall(flat)
    return found if path.is_relative_to(SPEC) else found + OLD_OUTSIDE.findall(flat)


@functools.cache
def sections(page):
    """The numbers of a page's headings, or `None` if there is no such page."""
    path = SPEC / page
    return set(HEADING.findall(path.read_text())) if path.is_file() else None


def messages(path):
    """The string literals of a module that are not docstrings, with their lines."""
    tree = ast.parse(path.read_text())
    docstrings = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for statement in body if isinstance(body, list) else []:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                docstrings.add(id(statement.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shapes (docs/spec/shards.md 15.1).", [("shards.md", ["15.1"])]),
        ("docs/spec/training.md 9, 10 and x", [("training.md", ["9", "10"])]),
        ("(docs/spec/training.md 1.4 and 7)", [("training.md", ["1.4", "7"])]),
        ("docs/spec/training.md\n    # 12, shards.md 18", [("training.md", ["12"])]),
        ("see docs/spec/model.md", [("model.md", [])]),
    ],
)
def test_citations_are_recognised(text, expected):
    assert citations(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "(spec shards.md 6)",
        "Spec ingest.md 13",
        "by spec 12.2",
        "spec\n    # 9.1",
        "spec/ingest.md 7.1",
        "(docs/spec/training.md 12, shards.md 18)",
        "docs/spec/shards.md, defect 25",
    ],
)
def test_old_citations_are_recognised(text):
    assert old_citations(text, ROOT / "ingest" / "video.py")


def test_cited_sections_exist():
    cited = [(path, *citation) for path in shipped() for citation in citations(path.read_text())]
    wrong = []
    for path, page, numbers in cited:
        known = sections(page)
        missing = numbers if known is None else [number for number in numbers if number not in known]
        if known is None or missing:
            wrong.append(f"{path.relative_to(ROOT)}: docs/spec/{page} {', '.join(missing)}")
    assert cited
    assert not wrong, "\n".join(wrong)


def test_no_citation_has_an_old_form():
    wrong = {str(path.relative_to(ROOT)): old for path in shipped() if (old := old_citations(path.read_text(), path))}
    assert not wrong, "\n".join(f"{path}: {', '.join(old)}" for path, old in wrong.items())


def test_no_message_cites_the_specification():
    modules = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    wrong = [
        f"{path.relative_to(ROOT)}:{line}" for path in modules for line, text in messages(path) if "docs/spec" in text
    ]
    assert not wrong, "\n".join(wrong)


def test_links_of_the_specification_resolve():
    links = [(path, link) for path in sorted(SPEC.glob("*.md")) for link in LINK.findall(path.read_text())]
    wrong = [f"{path.name}: {link}" for path, link in links if not (path.parent / link.partition("#")[0]).exists()]
    assert links
    assert not wrong, "\n".join(wrong)


def test_linked_sections_of_the_specification_exist():
    links = [(path, *link) for path in SPEC.glob("*.md") for link in LINKED_SECTION.findall(path.read_text())]
    wrong = [f"{path.name}: {page} {number}" for path, page, number in links if number not in (sections(page) or ())]
    assert links
    assert not wrong, "\n".join(wrong)


def test_sections_of_the_specification_are_unique():
    for path in SPEC.glob("*.md"):
        numbers = HEADING.findall(path.read_text())
        assert len(numbers) == len(set(numbers)), path.name
