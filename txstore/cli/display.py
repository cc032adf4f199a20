"""What a person sees while files are put: a bar on a terminal, else plain lines, or nothing."""

from __future__ import annotations

import os
import sys
import time
from typing import Protocol, TextIO

from txstore.cli.text import human, percent, say, shown

_SECONDS_BETWEEN_LINES = 5.0
_LINES_A_FILE = 10


class Display(Protocol):
    """Shows the way of one file, or of several as one."""

    def turn(self, name: str, done: int) -> None:
        """Of several files, the turn is that file's, after so many."""

    def note(self, text: str) -> None:
        """Say something that happened on the way."""

    def say(self, text: str, *, err: bool = False) -> None:
        """Print a line that stays; on standard error, if so asked."""

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

    def turn(self, name: str, done: int) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def say(self, text: str, *, err: bool = False) -> None:
        """Print a line."""
        say(text, err=err)

    def restart(self, offset: int, text: str) -> None:
        """Nothing."""

    def reached(self, offset: int) -> None:
        """Nothing."""

    def checked(self, offset: int, total: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class PlainDisplay:
    """A line at the start, then one whenever another tenth or some seconds are done.

    :param size: bytes; ``None``: not known
    :param files: how many; where there are several, ``name`` says so
    """

    def __init__(self, name: str, size: int | None, doing: str, files: int = 1) -> None:
        self._name = self._label = name
        self._size = size
        self._files = files
        self._tenths = 0
        self._next = time.monotonic() + _SECONDS_BETWEEN_LINES
        self._checking = False
        self.note(f"{doing} {human(size)}" if size is not None else doing)

    def turn(self, name: str, done: int) -> None:
        """Remember it."""
        self._name, self._label = name, f"{done} of {self._files} files"

    def note(self, text: str) -> None:
        """Print a line."""
        say(f"{shown(self._name)}: {text}", err=True)

    def say(self, text: str, *, err: bool = False) -> None:
        """Print a line."""
        say(text, err=err)

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

    def _show(self, what: str, offset: int, total: int | None) -> None:
        tenths = _tenths_of(offset, total)
        now = time.monotonic()
        if offset != total and (tenths > self._tenths or now >= self._next):
            self._next = now + _SECONDS_BETWEEN_LINES
            text = human(offset)
            if total is not None:
                text += f" of {human(total)} ({percent(offset, total)})"
            say(f"{shown(self._label)}: {what}{text}", err=True)
        self._tenths = tenths

    def close(self) -> None:
        """Lines stay."""


def _tenths_of(offset: int, total: int | None) -> int:
    return 0 if total is None else offset * _LINES_A_FILE // max(total, 1)


def display(
    name: str, size: int | None, *, quiet: bool, doing: str = "putting", files: int = 1
) -> Display:
    """The display that fits where standard error goes.

    :param size: bytes; ``None``: not known
    :param files: how many files it is for
    """
    if quiet or sys.stderr is None:  # None: the command was started without it
        return NoDisplay()
    if moves_its_cursor(sys.stderr):
        # Nothing else needs rich, which takes longer to import than all that ``put`` is.
        from txstore.cli.bar import BarDisplay

        return BarDisplay(name, size, files)
    return PlainDisplay(name, size, doing, files)


def moves_its_cursor(stream: TextIO) -> bool:
    """Whether a stream is a terminal that can draw, and whose user wants that."""
    plain = os.environ.get("TERM", "") in ("", "dumb", "unknown") or os.environ.get("NO_COLOR")
    return stream.isatty() and not plain
