"""What the documents point at is there: files, headings, names in the code; and what they count."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from txstore import FileStoreManager
from txstore.checks import KINDS
from txstore.testing import segment

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
#: Those whose names in the code are looked up.
TECHNICAL = [
    ROOT / "docs" / "architecture.md",
    ROOT / "docs" / "design.md",
    ROOT / "CONTRIBUTING.md",
]

FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
#: Tables that a command writes, of the code as it was then.
WRITTEN = re.compile(r"<!-- \w+:begin -->.*?<!-- \w+:end -->", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
MEMBER = re.compile(r"`(?:self\.)?([A-Z][a-z]\w+)\.(\w+)`")
MODULE = re.compile(r"`((?:\w+/)*\w+\.py)`")


def prose(document: Path) -> str:
    """Its text without the code blocks."""
    return FENCED.sub("", document.read_text(encoding="utf-8"))


def anchors(document: Path) -> set[str]:
    """What the headings can be reached by, as GitHub makes it of their text."""
    titles = (
        re.sub(r"[`*]|\[|\]\([^)]*\)", "", title) for title in HEADING.findall(prose(document))
    )
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in LINK.findall(prose(document)):
        if re.match(r"\w+:", target):
            continue  # elsewhere: a test needs no network
        path, _, anchor = target.partition("#")
        file = document.parent / path if path else document
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def members() -> dict[str, set[str]]:
    """The names that each class of the project has, by the class's own name."""
    found: dict[str, set[str]] = defaultdict(set)
    for folder in ("txstore", "tests", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    found[node.name] |= set(_names_in(node))
    return found


def _names_in(of: ast.ClassDef) -> Iterator[str]:
    for node in ast.walk(of):
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


@pytest.mark.parametrize("document", TECHNICAL, ids=lambda path: path.name)
def test_every_name_of_the_code_is_there(document: Path) -> None:
    known, text = members(), WRITTEN.sub("", prose(document))
    assert [f"{one}.{name}" for one, name in MEMBER.findall(text) if name not in known[one]] == []
    paths = {str(path.relative_to(ROOT)) for path in ROOT.glob("*/**/*.py")}
    assert [
        name
        for name in MODULE.findall(text)
        if not any(f"/{path}".endswith(f"/{name}") for path in paths)
    ] == []


def test_the_walk_of_a_segment_names_the_modules_that_it_enters(tmp_path: Path) -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d+ \| `[\w/]*?(\w+)\.py` \|", text, re.MULTILINE)
    entered = modules_of_a_segment(tmp_path)
    assert set(rows) == entered
    assert len(rows) == len(entered) <= 13


def modules_of_a_segment(storage: Path) -> set[str]:
    """The modules in which a function is called by each of several segments.

    So without those of a slice of housekeeping, which comes once a second at most; and without
    those that are asked only where a folder changed a moment before, as it does when a store is
    opened.
    """
    several: list[set[str]] = []
    package = f"{ROOT}/txstore/"

    def called(frame: FrameType, event: str, _argument: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(package):
            several[-1].add(Path(name).stem)

    with FileStoreManager(storage) as store:
        store.store_segment(segment(1, b"1", "id"))
        for number in range(2, 6):
            several.append(set())
            message = segment(number, b"1", "id")
            sys.setprofile(called)
            try:
                store.store_segment(message)
            finally:
                sys.setprofile(None)
    return set.intersection(*several) - {"descriptors", "files"}


def test_every_kind_of_finding_is_documented() -> None:
    text = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    table = text.partition("| finding |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE) == list(KINDS)
