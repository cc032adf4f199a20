"""What the options of several commands have in common."""

from __future__ import annotations

from collections.abc import Callable

import click

from txstore.sizes import parse_duration, parse_size

Command = Callable[..., None]

_LARGEST_SEGMENT = 2**30


def folder(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The path as given, unless it is empty."""
    # An empty path would mean the current folder, which nobody meant who wrote "$UNSET_VARIABLE".
    if value == "":
        raise click.BadParameter("the path is empty.", ctx, param)
    return value


def segment_size(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Bytes a message."""
    try:
        size = parse_size(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", ctx, param) from error
    if not 1 <= size <= _LARGEST_SEGMENT:
        raise click.BadParameter(f"{value!r} is not between 1 byte and 1 GiB.", ctx, param)
    return size


def duration(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """Seconds."""
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", ctx, param) from error
