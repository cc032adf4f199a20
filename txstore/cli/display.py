"""What a person sees while a file is put: a bar on a terminal, else plain lines, or nothing."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Any, Protocol, TextIO, cast

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

_SECONDS_BETWEEN_LINES = 5.0
_LINES_A_FILE = 10
_NARROW = 60  # columns that all of the bar needs


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


class _Lenient:
    """A stream that takes what it can: a terminal that is gone stops nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write it, or not."""
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Likewise."""
        with suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Console(Console):
    """Standard error, with its cursor: a killed command could not bring back a hidden one."""

    def __init__(self) -> None:
        super().__init__(file=cast(TextIO, _Lenient(sys.stderr)), markup=False, highlight=False)

    def show_cursor(self, show: bool = True) -> bool:
        """Leave it as it is."""
        return show


class _Name(ProgressColumn):
    """The task's description, cut where there is no room."""

    def render(self, task: Task) -> Text:
        """One line."""
        return Text(task.description, no_wrap=True, overflow="ellipsis")


class Rate(ProgressColumn):
    """Bytes a second, in the units of all other sizes."""

    def render(self, task: Task) -> Text:
        """What is known of it."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{human(speed)}/s")


def _columns(width: int) -> list[ProgressColumn]:
    """What there is room for, in one line.  Only the name and the bar give way."""
    if width < _NARROW:
        return [_Name(), BarColumn(), TaskProgressColumn(table_column=Column(no_wrap=True))]
    return [
        _Name(),
        BarColumn(),
        DownloadColumn(binary_units=True, table_column=Column(no_wrap=True)),
        Rate(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
    ]


class BarDisplay:
    """A bar with bytes, rate and time left, gone when the file is done."""

    def __init__(self, name: str, size: int) -> None:
        console = _Console()
        self._progress = Progress(*_columns(console.width), console=console, transient=True)
        self._name = shown(name)
        self._size = size
        self._checking = False
        self._task = self._progress.add_task(self._name, total=size)
        self._progress.start()

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(f"{self._name}: {text}")

    def restart(self, offset: int, text: str) -> None:
        """Print a line and let the rate count from here."""
        self.note(text)
        self._begin(offset, self._size, checking=False)

    def reached(self, offset: int) -> None:
        """Move the bar."""
        if self._checking:
            self._begin(offset, self._size, checking=False)
        self._progress.update(self._task, completed=offset)

    def checked(self, offset: int, total: int) -> None:
        """Have the bar show this for as long as it takes."""
        if not self._checking or offset < self._progress.tasks[0].completed:
            self._begin(0, total, checking=True)
        self._progress.update(self._task, completed=offset)

    def _begin(self, offset: int, total: int, *, checking: bool) -> None:
        """Let bytes and rate count from here."""
        self._checking = checking
        name = f"checking {self._name}" if checking else self._name
        self._progress.reset(self._task, total=total, completed=offset, description=name)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()


def display(name: str, size: int, *, quiet: bool, doing: str = "putting") -> Display:
    """The display that fits where standard error goes."""
    if quiet or sys.stderr is None:  # None: the command was started without it
        return NoDisplay()
    if sys.stderr.isatty():
        return BarDisplay(name, size)
    return PlainDisplay(name, size, doing)
