"""The files that a command line names, and the names that they are stored under."""

from __future__ import annotations

import os
from collections import Counter

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
    counts = Counter(target for _, target in named)
    twice = [target for target, count in counts.items() if count > 1]
    if twice:
        raise click.UsageError(
            f"more than one FILE would be stored as {', '.join(map(shown, twice))}."
            f" Store them one by one, with {option}."
        )
    return named
