"""Types, lint and the directions of imports are tests like all others, so that one command runs
everything."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "txstore").rglob("*.py")
}

#: Which rooms alone may use a library.
LIBRARIES = {
    "click": {"cli"},
    "rich": {"cli"},
    "dxlclient": {"dxl"},
    "sqlalchemy": {"local", "cluster"},
    "psycopg": {"cluster", "testing"},  # which simulates its errors
    "boto3": {"cluster"},
    "botocore": {"cluster", "testing"},
    "prometheus_client": {"metrics"},
}


@pytest.mark.parametrize(
    "tool",
    [
        ["ruff", "check", "--no-cache"],
        ["ruff", "format", "--check", "--no-cache"],
        ["mypy"],
    ],
    ids=" ".join,
)
def test_the_whole_tree_is_clean(tool: list[str]) -> None:
    pytest.importorskip(tool[0])
    process = subprocess.run(
        [sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """All that is below a node, in functions too, but not what only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            assert not child.orelse
            continue
        yield child
        yield from executed(child)


def imported_by(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in executed(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            yield from (home_of(node.module, alias.name) for alias in node.names)


def home_of(module: str, name: str) -> str:
    """The module that a name really comes from: a package imports some when they are used."""
    if f"{module}.{name}" in MODULES:
        return f"{module}.{name}"
    is_package = module in MODULES and MODULES[module].name == "__init__.py"
    homes = getattr(import_module(module), "_HOMES", {}) if is_package else {}
    return f"{module}.{homes[name]}" if name in homes else module


def room_of(module: str) -> str:
    """The package itself hands out the store; run as a program, it is the command."""
    room = module.partition(".")[2].partition(".")[0] or "store"
    return "cli" if room == "__main__" else room


def rows_of_rooms() -> dict[str, int]:
    """The row in which the list of rooms names each of them, counted from the top."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("\n## The rooms\n")[2].partition("|---|---|\n")[2].partition("\n\n")[0]
    return {
        room.removesuffix("/").removesuffix(".py"): row
        for row, line in enumerate(table.splitlines())
        for room in re.findall(r"`([^`]+)`", line.split("|")[1])
    }


def test_imports_point_down_the_list_of_rooms() -> None:
    rows = rows_of_rooms()
    assert {room_of(module) for module in MODULES} == set(rows)
    upwards = [
        f"{module} imports {imported}"
        for module, path in MODULES.items()
        for imported in imported_by(path)
        if imported in MODULES
        and (above := room_of(module)) != (below := room_of(imported))
        and rows[above] >= rows[below]
    ]
    assert upwards == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: set(imported_by(path)) - {module} for module, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # a CycleError names them


def test_each_library_is_used_by_its_rooms_only() -> None:
    found = [
        f"{module} imports {imported}"
        for module, path in MODULES.items()
        for imported in imported_by(path)
        if room_of(module) not in LIBRARIES.get(imported.partition(".")[0], {room_of(module)})
    ]
    assert found == []
