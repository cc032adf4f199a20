"""The bar that shows the way of a file on a terminal."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any, TextIO, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from txstore.cli.text import human, human_part, percent, say, shown

#: Columns of a terminal that bytes and rate need, and the time left, too.
_NARROW, _WIDE = 60, 76


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


class _Files(ProgressColumn):
    """How many of several files are done."""

    def render(self, task: Task) -> Text:
        """``12/300 files``."""
        return Text(f"{task.fields['done']}/{task.fields['files']} files")


class _Percent(ProgressColumn):
    """The share that is done."""

    def render(self, task: Task) -> Text:
        """Nothing where the size is not known."""
        if task.total is None:
            return Text("")
        # As wide as it gets, or the bar would change its width.
        widest = len(percent(task.total, task.total))
        return Text(percent(task.completed, task.total).rjust(widest))


class _Bytes(ProgressColumn):
    """How many bytes are done."""

    def render(self, task: Task) -> Text:
        """``1.5/3.0 MiB``."""
        return Text(human_part(task.completed, task.total))


class Rate(ProgressColumn):
    """Bytes a second, in the units of all other sizes."""

    def render(self, task: Task) -> Text:
        """What is known of it."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{human(speed)}/s")


def _columns(width: int, files: int) -> list[ProgressColumn]:
    """What there is room for, in one line.  Only the name and the bar give way."""
    whole = Column(no_wrap=True)
    if width < _NARROW:
        return [_Name(), BarColumn(), _Percent(table_column=whole)]
    columns = [_Name(), BarColumn(), _Percent(table_column=whole)]
    if files > 1:
        columns.append(_Files(table_column=whole))
    columns += [_Bytes(table_column=whole), Rate(table_column=whole)]
    if width >= _WIDE:
        columns.append(TimeRemainingColumn(table_column=whole))
    return columns


class BarDisplay:
    """A bar with bytes, rate and time left, gone when all is done.

    :param size: bytes; ``None``: not known
    :param files: how many files it is for
    """

    def __init__(self, name: str, size: int | None, files: int = 1) -> None:
        console = _Console()
        self._progress = Progress(
            *_columns(console.width, files),
            console=console,
            transient=True,
            redirect_stdout=False,  # it would go where standard error goes
            redirect_stderr=False,
        )
        self._name = shown(name)
        self._size = size
        self._checking = False
        self._task = self._progress.add_task(self._name, total=size, done=0, files=files)
        self._progress.start()

    def turn(self, name: str, done: int) -> None:
        """Show it."""
        self._name = shown(name)
        self._progress.update(self._task, description=self._name, done=done)

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(f"{self._name}: {text}")

    def say(self, text: str, *, err: bool = False) -> None:
        """Print a line, above the bar if it goes to a terminal."""
        if err or (sys.stdout is not None and sys.stdout.isatty()):
            self._progress.console.print(text, soft_wrap=True)
        else:
            say(text)

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

    def _begin(self, offset: int, total: int | None, *, checking: bool) -> None:
        """Let bytes and rate count from here."""
        self._checking = checking
        name = f"checking {self._name}" if checking else self._name
        self._progress.reset(self._task, total=total, completed=offset, description=name)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()
