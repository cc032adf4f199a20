"""The bar that ``txstore put`` shows on a terminal."""

from __future__ import annotations

import errno
import io
import sys

import pytest
from rich.progress import Task, TaskID

from txstore.cli.bar import BarDisplay, Rate
from txstore.cli.display import PlainDisplay

MIB = 2**20


class Terminal(io.StringIO):
    """What was written to a terminal."""

    def isatty(self) -> bool:
        return True


class GoneTerminal(Terminal):
    """One that was closed."""

    def write(self, _text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")

    def flush(self) -> None:
        raise OSError(errno.EIO, "Input/output error")


def show(monkeypatch: pytest.MonkeyPatch, terminal: Terminal, width: int, name: str) -> str:
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    view = BarDisplay(name, 1000 * MIB)
    view.restart(0, "a note")
    for done in (1, 500, 999):
        view.reached(done * MIB)
    view.close()
    return terminal.getvalue()


@pytest.mark.parametrize("name", ["f", "long" * 50])
@pytest.mark.parametrize("width", [10, 20, 39, 40, 59, 60, 80, 120])
def test_the_bar_is_one_line_at_any_width(
    monkeypatch: pytest.MonkeyPatch, width: int, name: str
) -> None:
    written = show(monkeypatch, Terminal(), width, name)
    # How rich goes back over a bar of more than one line.
    assert "\x1b[1A\x1b[2K\x1b[1A" not in written
    assert "%" in written or "MiB" in written


@pytest.mark.parametrize("width", [10, 40, 60, 80, 200])
def test_comparing_has_a_bar_of_its_own_total(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    view = BarDisplay("f", 1000 * MIB)
    for done in (100, 200, 300):
        view.checked(done * MIB, 400 * MIB)
    view._progress.refresh()
    text = terminal.getvalue()
    assert ("75%" if width < 60 else "300.0/400.0 MiB") in text
    assert ("checking" in text) == (width >= 40)
    view.reached(600 * MIB)
    view._progress.refresh()
    assert ("60%" if width < 60 else "600.0/1,000.0 MiB") in terminal.getvalue()
    view.close()


def test_off_a_terminal_comparing_is_a_line_each_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    view = PlainDisplay("f", 1000 * MIB, "putting")
    for _ in range(2):  # two files that are compared with each other
        for done in range(8, 401, 8):
            view.checked(done * MIB, 400 * MIB)
    view.reached(500 * MIB)
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == "f: checking, 8.0 MiB of 400.0 MiB (2 %)"
    assert lines[1:11] == lines[11:21]
    assert lines[21:] == ["f: 500.0 MiB of 1000.0 MiB (50 %)"]
    view.checked(8 * MIB, 8 * MIB)
    assert capsys.readouterr().err == ""  # it is over already


def test_the_cursor_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[?25" not in show(monkeypatch, Terminal(), 80, "f")


def test_a_terminal_that_is_gone_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    show(monkeypatch, GoneTerminal(), 80, "f")


@pytest.mark.parametrize(("speed", "text"), [(None, ""), (1500.0, "1.5 KiB/s"), (3e6, "2.9 MiB/s")])
def test_rates_are_in_the_units_of_sizes(speed: float | None, text: str) -> None:
    task = Task(TaskID(0), "f", 10, 0, _get_time=lambda: 0.0)
    task.finished_speed = speed
    assert Rate().render(task).plain == text
