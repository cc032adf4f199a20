"""What a person sees while a file is put: a bar on a terminal, else plain lines, or nothing."""

from __future__ import annotations

import sys
import time
from typing import Protocol

from txstore.cli.text import human, say, shown

_SECONDS_BETWEEN_LINES = 5.0
_LINES_A_FILE = 10


class Display(Protocol):
    """Shows the way of one file."""

    def note(self, text: str) -> None:
        """Say something that happened on the way."""

    def restart(self, offset: int, text: str) -> None:
        """Go on from `offset`, which took no time to reach, for the reason that `text` says."""

    def reached(self, offset: int) -> None:
        """The store has the first `offset` bytes."""

    def checked(self, offset: int, total: int) -> None:
        """Of `total` bytes that are read to compare them, `offset` were read."""

    def close(self) -> None:
        """Take away what should not stay."""


class NoDisplay:
    """``--quiet``."""

    def note(self, text: str) -> None:
        """Nothing."""

    def restart(self, offset: int, text: str) -> None:
        """Nothing."""

    def reached(self, offset: int) -> None:
        """Nothing."""

    def checked(self, offset: int, total: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class PlainDisplay:
    """A line at the start, then one whenever another tenth or some seconds are done."""

    def __init__(self, name: str, size: int, doing: str) -> None:
        self._name = name
        self._size = size
        self._tenths = 0
        self._next = time.monotonic() + _SECONDS_BETWEEN_LINES
        self._checking = False
        self.note(f"{doing} {human(size)}")

    def note(self, text: str) -> None:
        """Print a line."""
        say(f"{shown(self._name)}: {text}", err=True)

    def restart(self, offset: int, text: str) -> None:
        """Print a line."""
        self._checking = False
        self._tenths = _tenths_of(offset, self._size)
        self.note(text)

    def reached(self, offset: int) -> None:
        """Print a line if one is due."""
        if self._checking:
            self._checking, self._tenths = False, -1
        self._show("", offset, self._size)

    def checked(self, offset: int, total: int) -> None:
        """Print a line if one is due."""
        if not self._checking or _tenths_of(offset, total) < self._tenths:  # the next file's turn
            self._checking, self._tenths = True, -1
        self._show("checking, ", offset, total)

    def _show(self, what: str, offset: int, total: int) -> None:
        tenths = _tenths_of(offset, total)
        now = time.monotonic()
        if offset < total and (tenths > self._tenths or now >= self._next):
            self._next = now + _SECONDS_BETWEEN_LINES
            self.note(f"{what}{human(offset)} of {human(total)} ({offset * 100 // total} %)")
        self._tenths = tenths

    def close(self) -> None:
        """Lines stay."""


def _tenths_of(offset: int, total: int) -> int:
    return offset * _LINES_A_FILE // max(total, 1)


def display(name: str, size: int, *, quiet: bool, doing: str = "putting") -> Display:
    """The display that fits where standard error goes."""
    if quiet or sys.stderr is None:  # None: the command was started without it
        return NoDisplay()
    if sys.stderr.isatty():
        # Nothing else needs rich, which takes longer to import than all that ``put`` is.
        from txstore.cli.bar import BarDisplay

        return BarDisplay(name, size)
    return PlainDisplay(name, size, doing)
