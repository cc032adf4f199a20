"""What a person sees while a file is put: a bar on a terminal, else plain lines, or nothing."""

from __future__ import annotations

import sys
import time
from typing import Protocol

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

_SECONDS_BETWEEN_LINES = 5.0
_LINES_A_FILE = 10


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


class Display(Protocol):
    """Shows the way of one file."""

    def note(self, text: str) -> None:
        """Say something that happened on the way."""

    def restart(self, offset: int, text: str) -> None:
        """Go on from `offset`, which took no time to reach, for the reason that `text` says."""

    def reached(self, offset: int) -> None:
        """The store has the first `offset` bytes."""

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

    def close(self) -> None:
        """Nothing."""


class PlainDisplay:
    """A line at the start, then one whenever another tenth or some seconds are done."""

    def __init__(self, name: str, size: int, doing: str) -> None:
        self._name = name
        self._size = size
        self._tenths = 0
        self._next = time.monotonic() + _SECONDS_BETWEEN_LINES
        self.note(f"{doing} {human(size)}")

    def note(self, text: str) -> None:
        """Print a line."""
        click.echo(f"{shown(self._name)}: {text}", err=True)

    def restart(self, offset: int, text: str) -> None:
        """Print a line."""
        self._tenths = self._tenths_of(offset)
        self.note(text)

    def reached(self, offset: int) -> None:
        """Print a line if one is due."""
        tenths = self._tenths_of(offset)
        now = time.monotonic()
        if offset < self._size and (tenths > self._tenths or now >= self._next):
            self._next = now + _SECONDS_BETWEEN_LINES
            self.note(f"{human(offset)} of {human(self._size)} ({offset * 100 // self._size} %)")
        self._tenths = tenths

    def close(self) -> None:
        """Lines stay."""

    def _tenths_of(self, offset: int) -> int:
        return offset * _LINES_A_FILE // max(self._size, 1)


class BarDisplay:
    """A bar with bytes, rate and time left, gone when the file is done."""

    def __init__(self, name: str, size: int) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True, markup=False, highlight=False),
            transient=True,
        )
        self._name = shown(name)
        self._task = self._progress.add_task(self._name, total=size)
        self._progress.start()

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(f"{self._name}: {text}")

    def restart(self, offset: int, text: str) -> None:
        """Print a line and let the rate count from here."""
        self.note(text)
        self._progress.reset(self._task, completed=offset)

    def reached(self, offset: int) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=offset)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()


def display(name: str, size: int, *, quiet: bool, doing: str = "putting") -> Display:
    """The display that fits where standard error goes."""
    if quiet:
        return NoDisplay()
    if sys.stderr.isatty():
        return BarDisplay(name, size)
    return PlainDisplay(name, size, doing)
