"""What is said on a terminal: sizes, names, lines."""

from __future__ import annotations

from contextlib import suppress

import click

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_LARGE = 2**30


def human(size: float) -> str:
    """A number of bytes as a person reads it: ``12 B``, ``1.5 MiB``, ``3.25 GiB``."""
    power = _power(size)
    return f"{_in_unit(size, power)} {_UNITS[power]}"


def human_part(done: float, total: float | None) -> str:
    """How much of it is done: ``1.5/3.0 MiB``.

    :param total: ``None``: not known
    """
    if total is None:
        return human(done)
    power = _power(total)
    return f"{_in_unit(done, power)}/{_in_unit(total, power)} {_UNITS[power]}"


def percent(done: float, total: float) -> str:
    """The share that is done.  That of a large file would stand still for long without decimals."""
    share = done * 100 / max(total, 1)
    return f"{int(share)} %" if total < _LARGE else f"{int(share * 100) / 100:.2f} %"


def _power(size: float) -> int:
    power = 0
    while size >= 1024 and power < len(_UNITS) - 1:
        size, power = size / 1024, power + 1
    return power


def _in_unit(size: float, power: int) -> str:
    decimals = (0, 1, 1, 2, 2)[power]
    return f"{size / 1024**power:.{decimals}f}"


def lasting(seconds: float) -> str:
    """A length of time as a person reads it: ``12 s``, ``90 min``."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


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
