"""What the options of several commands have in common."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import click
from click.shell_completion import CompletionItem

from txstore.sizes import parse_duration, parse_size, parse_size_or_share

Command = Callable[..., None]

_LARGEST_SEGMENT = 2**30


class _Path(click.ParamType[str]):
    """A path as given, unless it is empty; the shell completes it."""

    def __init__(self, kind: str) -> None:
        self.name = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        # An empty path would mean the current folder, which nobody meant who wrote
        # "$UNSET_VARIABLE".
        if value == "":
            self.fail("the path is empty.", param, ctx)
        return str(value)

    def shell_complete(
        self, _ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        return [CompletionItem(incomplete, type=self.name)]


FOLDER, FILE = _Path("dir"), _Path("file")


def examples(*lines: str) -> str:
    """The end of a command's help: how it is used."""
    # What follows this character is shown as it stands.
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def folders(*, required: bool = True) -> Callable[[Command], Command]:
    """The options that say which store is meant."""
    storage = click.option(
        "--storage-dir",
        required=required,
        type=FOLDER,
        metavar="DIR",
        help="Folder that finished files appear in.",
    )
    working = click.option(
        "--working-dir",
        type=FOLDER,
        metavar="DIR",
        help="Folder of the journal and of unfinished transfers. [default: .workdir in the former]",
    )
    return lambda command: storage(working(command))


def segment_size(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    """Bytes a message; ``None``: what fits best."""
    return None if value == "auto" else _size(ctx, param, value)


def rate(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Bytes a second."""
    return None if value is None else _size(ctx, param, value)


def _size(ctx: click.Context, param: click.Parameter, value: str) -> int:
    try:
        size = parse_size(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", ctx, param) from error
    if not 1 <= size <= _LARGEST_SEGMENT:
        raise click.BadParameter(f"{value!r} is not between 1 byte and 1 GiB.", ctx, param)
    return size


def limits(command: Command) -> Command:
    """The options that limit what a store takes; the command gets them as ``limits``."""

    @wraps(command)
    def limited(**given: Any) -> None:
        from txstore.limits import Limits

        command(limits=Limits(**{name: given.pop(name) for name in _LIMITS}), **given)

    for name, (metavar, read, text) in reversed(_LIMITS.items()):
        option = f"--{name.replace('_', '-')}"
        limited = click.option(option, callback=partial(_limit, read), metavar=metavar, help=text)(
            limited
        )
    return limited


def _limit(
    read: Callable[[str], Any], ctx: click.Context, param: click.Parameter, value: str | None
) -> Any:
    try:
        return None if value is None else read(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", ctx, param) from error


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"{text!r} is no whole number from 0")
    return int(text)


_LIMITS: dict[str, tuple[str, Callable[[str], Any], str]] = {
    "max_file_size": ("BYTES", parse_size, "Refuse a larger file."),
    "max_transfers": ("NUMBER", _number, "Begin no transfer while so many are unfinished."),
    "max_unfinished_bytes": (
        *("BYTES", parse_size),
        "Take no segment while unfinished transfers have so many bytes together.",
    ),
    "min_free": (
        *("BYTES", parse_size_or_share),
        "Keep so much of the storage's file system free, also as 5%.",
    ),
}


def duration(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """Seconds."""
    try:
        return parse_duration(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", ctx, param) from error


def topic_option(**settings: Any) -> Callable[[Command], Command]:
    """``--topic``: one that messages can be sent to."""
    return click.option("--topic", callback=_topic, metavar="TOPIC", **settings)


def _topic(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    from txstore.dxl.protocol import checked_topic

    try:
        return checked_topic(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.", ctx, param) from error
