"""What is said on a terminal: sizes, names, lines."""

from __future__ import annotations

from contextlib import suppress

import click


def human(size: float) -> str:
    """A number of bytes as a person reads it: ``12 B``, ``1.5 MiB``."""
    if size < 1024:
        return f"{size:.0f} B"
    units = ["KiB", "MiB", "GiB", "TiB"]
    while (size := size / 1024) >= 1024 and len(units) > 1:
        del units[0]
    return f"{size:.1f} {units[0]}"


def shown(text: str) -> str:
    """`text` for a terminal: what does not print there, or is no character at all, is escaped."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def say(text: str, *, err: bool = False) -> None:
    """Print a line about what is done; where it cannot be shown, what is done counts all the same.

    :param err: on standard error
    """
    with suppress(OSError, UnicodeEncodeError):
        click.echo(text, err=err)
