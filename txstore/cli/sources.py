"""The files that a command line names, and the names that they are stored under."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import click

from txstore.cli.problems import CommandError
from txstore.cli.text import shown
from txstore.source import Source


def source_at(path: str, name: str) -> Source:
    """The file at a path, to be stored under a name.

    :raises CommandError: it cannot be read, or is no regular file
    """
    try:
        return Source(path, name)
    except OSError as error:
        raise CommandError(f"cannot read {path!r}: {error.strerror}.") from error


@dataclass(frozen=True)
class Target:
    """A file that is to be stored, and what as.

    :ivar size: bytes that it had when it was found; ``None``: not known
    """

    path: str
    name: str
    size: int | None


@dataclass(frozen=True)
class Found:
    """What a command line stands for.

    :ivar errors: folders that cannot be read
    :ivar skipped: what is no file, and no folder: symbolic links, pipes and the like
    """

    targets: list[Target]
    errors: list[OSError]
    skipped: list[str]


def targets(files: tuple[str, ...], name: str | None, option: str) -> list[tuple[str, str]]:
    """Each source and the name it is stored under; no two under one.

    :param name: what the option says; ``None`` where it is not given
    :param option: how that option is called
    """
    if name == "":
        raise click.UsageError(f"{option} is empty: it must be the name of a file.")
    if name is not None and not name.endswith("/"):
        if len(files) > 1:
            raise click.UsageError(f"{option} goes with one FILE only, unless it ends with a /.")
        return [(files[0], name)]
    below = name or ""
    named = [(path, below + os.path.basename(os.path.abspath(path))) for path in files]
    _refuse_doubles((target for _, target in named), option)
    return named


def with_trees(named: list[tuple[str, str]], option: str, except_for: Iterable[str]) -> Found:
    """The same, with what is below each folder in its place.

    :param except_for: folders that are left out, such as the storage itself
    """
    left_out = {_identity(folder) for folder in except_for} - {None}
    found = Found([], [], [])
    for path, name in named:
        if os.path.isdir(path):
            _walk(path, name, left_out, found)
        else:
            found.targets.append(Target(path, name, size_of(path)))
    _refuse_doubles((target.name for target in found.targets), option)
    return found


def _walk(top: str, below: str, left_out: set[tuple[int, int] | None], found: Found) -> None:
    """In the order of names; no symbolic link is followed."""
    folders = [(top, below)]
    while folders:
        folder, name = folders.pop()
        try:
            if _identity(folder) in left_out:
                continue
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            found.errors.append(error)
            continue
        below_it = []
        for entry in inside:
            inner = os.path.join(name, entry.name)
            if entry.is_dir(follow_symlinks=False):
                below_it.append((entry.path, inner))
            elif entry.is_file(follow_symlinks=False):
                found.targets.append(Target(entry.path, inner, size_of(entry.path)))
            else:
                found.skipped.append(entry.path)
        folders += reversed(below_it)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def size_of(path: str) -> int | None:
    """Bytes of a file, as far as it is one."""
    try:
        return os.stat(path).st_size
    except OSError:
        return None  # what is wrong is said in its turn


def sum_of(found: list[Target]) -> int | None:
    """Bytes of all of them, as far as they are known; ``None``: of none."""
    sizes = [target.size for target in found if target.size is not None]
    return sum(sizes) if sizes else None


def _refuse_doubles(names: Iterable[str], option: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        shown_ones = ", ".join(map(shown, twice[:3])) + (", ..." if len(twice) > 3 else "")
        raise click.UsageError(
            f"more than one FILE would be stored as {shown_ones}. Store them one by one, with"
            f" {option}."
        )
