"""The bar that shows the way of a file on a terminal."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any, TextIO, cast

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

from txstore.cli.text import human, shown

_NARROW = 60  # columns that all of the bar needs


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
