"""Changes of the package's code that are found by what stands there, not by where it stands.

A place is named by a symbol (``Appender.begin``, ``stripe_of``) and by what stands in it.  Layout,
comments, and the module that the symbol is in do not count, so code can be moved and formatted.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple


class Patch(NamedTuple):
    """Something else in the place of some code.

    :ivar symbol: qualified name of a function, method or class, or a name that a module assigns
    :ivar old: statements that follow each other there, once; or one expression that is there once
    :ivar new: what takes their place; empty: nothing does
    """

    symbol: str
    old: str
    new: str


class NoPlaceError(Exception):
    """A patch does not say which code it is about."""


class _Place(NamedTuple):
    """Where in a module's text something stands."""

    path: Path
    first: ast.AST
    last: ast.AST


def apply(package: Path, *patches: Patch) -> None:
    """Change the modules below a folder.

    :raises NoPlaceError: a patch has no place there, or more than one; earlier ones were applied
    """
    for patch in patches:
        place = find(package, patch)
        text = place.path.read_bytes()
        place.path.write_bytes(_replaced(text, place, patch.new))


def find(package: Path, patch: Patch) -> _Place:
    """The one place that a patch is about.

    :raises NoPlaceError: there is none, or more than one
    """
    symbols = [
        (path, node)
        for path in sorted(package.rglob("*.py"))
        for name, node in _all_symbols(path.read_bytes())
        if name == patch.symbol
    ]
    if not symbols:
        raise NoPlaceError(f"there is no {patch.symbol}")
    wanted = ast.parse(textwrap.dedent(patch.old)).body
    found = [_Place(path, *span) for path, node in symbols for span in _statements(node, wanted)]
    if not found and len(wanted) == 1 and isinstance(wanted[0], ast.Expr):
        value = wanted[0].value
        found = [
            _Place(path, part, part)
            for path, node in symbols
            for part in ast.walk(node)
            if _same(part, value)
        ]
    if len(found) != 1:
        raise NoPlaceError(f"{patch.symbol} has {len(found)} places with {patch.old!r}")
    return found[0]


@cache
def _all_symbols(text: bytes) -> list[tuple[str, ast.AST]]:
    """The symbols of a module; kept, since one package is looked through for a hundred patches."""
    return list(_symbols(ast.parse(text), ""))


def _symbols(node: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield prefix + child.name, child
            yield from _symbols(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.Assign | ast.AnnAssign) and not isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef
        ):
            targets = child.targets if isinstance(child, ast.Assign) else [child.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    yield prefix + target.id, child


def _statements(node: ast.AST, wanted: list[ast.stmt]) -> Iterator[tuple[ast.AST, ast.AST]]:
    """The first and the last of each run of statements that are the wanted ones."""
    for within in ast.walk(node):
        for block in ("body", "orelse", "finalbody"):
            body = getattr(within, block, None)
            if not isinstance(body, list):
                continue  # a lambda's
            for start in range(len(body) - len(wanted) + 1):
                part = body[start : start + len(wanted)]
                if all(map(_same, part, wanted)):
                    yield part[0], part[-1]


def _same(one: ast.AST, other: ast.AST) -> bool:
    return type(one) is type(other) and ast.dump(one) == ast.dump(other)


def _replaced(text: bytes, place: _Place, new: str) -> bytes:
    first, last = place.first, place.last
    assert isinstance(first, ast.stmt | ast.expr)
    assert isinstance(last, ast.stmt | ast.expr)
    assert last.end_lineno is not None
    assert last.end_col_offset is not None
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    begin = starts[first.lineno - 1] + first.col_offset
    end = starts[last.end_lineno - 1] + last.end_col_offset
    if isinstance(first, ast.expr):
        instead = f"({new})"
    else:
        indented = textwrap.indent(textwrap.dedent(new) or "pass", " " * first.col_offset)
        instead = indented.lstrip()
    return text[:begin] + instead.encode() + text[end:]
