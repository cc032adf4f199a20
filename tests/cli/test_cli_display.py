"""The bar that ``txstore put`` shows on a terminal."""

from __future__ import annotations

import errno
import io
import sys
from typing import Any

import pytest
from rich.progress import Task, TaskID

from txstore.cli.bar import BarDisplay, Rate
from txstore.cli.batch import Batch, Outcome, Status
from txstore.cli.display import PlainDisplay, display
from txstore.cli.put import Acked, Checked, Resumed, StartedOver, Stored
from txstore.cli.text import percent

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
    assert ("75 %" if width < 60 else "300.0/400.0 MiB") in text
    assert ("checking" in text) == (width >= 40)
    view.reached(600 * MIB)
    view._progress.refresh()
    assert ("60 %" if width < 60 else "600.0/1000.0 MiB") in terminal.getvalue()
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


# Several files


@pytest.mark.parametrize("width", [10, 20, 39, 40, 60, 75, 80, 120, 200])
def test_many_files_have_one_bar_of_one_line(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    view = BarDisplay("300 files", 3000 * MIB, files=300)
    for done in (0, 12, 299):
        view.turn("some/quite/long/name/of/a/file", done)
        view.reached(done * 10 * MIB)
        view._progress.refresh()
    text = terminal.getvalue()
    assert "\x1b[1A\x1b[2K\x1b[1A" not in text
    if width >= 20:
        assert "99.66 %" in text
    if width >= 60:
        assert "299/300 files" in text
        assert "2.92/2.93 GiB" in text
    view.close()


def outcome(status: Status, name: str = "f", **more: Any) -> Outcome:
    return Outcome(f"path/{name}", name, status, size=10, **more)


def test_many_files_are_shown_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    batch = Batch(3, 30, quiet=False, lines=False, as_json=False)
    for name in "abc":
        batch.begin(name, 10)
        for event in (Checked(5, 10), Resumed(5), Acked(6, 1), StartedOver("so"), Acked(9, 1)):
            batch.show(event)
        batch.show(Stored(1))
        batch.end(outcome("stored", name, sent=10, seconds=1))
    batch.close()
    assert capsys.readouterr().err.splitlines()[:9] == [
        "3 files: putting 30 B",
        "0 of 3 files: 5 B of 30 B (16 %)",
        "a: resuming at 5 B of 10 B",
        "0 of 3 files: 6 B of 30 B (20 %)",
        "a: starting over: so",
        "0 of 3 files: 9 B of 30 B (30 %)",
        "1 of 3 files: 15 B of 30 B (50 %)",
        "b: resuming at 5 B of 10 B",
        "b: starting over: so",
    ]


def test_files_of_one_step_are_shown_if_they_take_a_moment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Batch(3, 30, quiet=False, lines=True, as_json=False)
    for name in "abc":
        batch.begin(name, 10)
        monkeypatch.setattr("txstore.cli.batch._A_MOMENT", -1)
        batch.end(outcome("stored", name, sent=10, seconds=1))
    assert capsys.readouterr().err.splitlines() == [
        "3 files: putting 30 B",
        "2 of 3 files: 20 B of 30 B (66 %)",
    ]


def test_the_summary_counts_what_became_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    batch = Batch(5, 50, quiet=False, lines=True, as_json=False)
    batch.begin("f", 10)
    batch.end(outcome("stored", sent=5, seconds=1))
    batch.end(outcome("stored_by_another"))
    batch.end(outcome("already_stored"))
    batch.end(outcome("name_taken"))
    batch.end(outcome("failed", error="the reason"))
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        "stored f: 10 B (5 B of it now) in 1.00 s (5 B/s)",
        "stored f: 10 B by another run of this command",
        "already stored f: 10 B",
        "not stored f: a file has that name already",
    ]
    assert shown.err == "Error: path/f was not stored: the reason\n"
    assert batch.failed == 1
    assert batch.summary().startswith(
        "5 files: 1 stored, 1 stored by another run, 1 already stored,"
        " 1 not stored since a file has the name, 1 failed, sent 5 B in "
    )


@pytest.mark.parametrize("to_terminal", [True, False])
def test_lines_that_stay_go_above_the_bar_or_where_standard_output_goes(
    monkeypatch: pytest.MonkeyPatch, to_terminal: bool
) -> None:
    out, err = Terminal() if to_terminal else io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    line = "a line that is longer than the terminal is wide"
    view = display("f", 10, quiet=False)
    view.say(line)
    view.say("an error", err=True)
    view.close()
    assert (line in err.getvalue()) == to_terminal
    assert (out.getvalue() == f"{line}\n") == (not to_terminal)
    assert "an error" in err.getvalue()


def test_what_has_no_known_size_has_no_percent(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    view = BarDisplay("f", None)
    view.reached(5 * MIB)
    view._progress.refresh()
    view.close()
    assert "5.0 MiB" in terminal.getvalue()
    assert "%" not in terminal.getvalue()
    plain = PlainDisplay("f", None, "putting")
    monkeypatch.setattr(plain, "_next", 0)
    plain.reached(5 * MIB)
    assert terminal.getvalue().endswith("f: putting\nf: 5.0 MiB\n")


# Which display


@pytest.mark.parametrize(
    ("variables", "bar"),
    [
        ({}, True),
        ({"TERM": "dumb"}, False),
        ({"TERM": ""}, False),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),
    ],
    ids=str,
)
def test_a_dumb_terminal_gets_plain_lines(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], bar: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    view = display("f", 10, quiet=False)
    view.close()
    assert isinstance(view, BarDisplay if bar else PlainDisplay)


def test_quiet_shows_nothing_but_what_stays(capsys: pytest.CaptureFixture[str]) -> None:
    view = display("f", 10, quiet=True)
    view.turn("f", 0)
    view.note("a note")
    view.restart(0, "a note")
    view.reached(1)
    view.checked(1, 2)
    view.close()
    assert capsys.readouterr() == ("", "")
    view.say("an error", err=True)
    assert capsys.readouterr().err == "an error\n"


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [(1, 3, "33 %"), (0, 0, "0 %"), (2**30 - 1, 2**30, "99.99 %"), (2**30, 2**30, "100.00 %")],
)
def test_percents_of_large_files_have_decimals(done: int, total: int, text: str) -> None:
    assert percent(done, total) == text
