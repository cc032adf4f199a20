"""What ``put`` shows of its files on their way, and what it says became of them."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import Literal

from txstore.cli.display import Display, display
from txstore.cli.put import Acked, Checked, Event, NameTaken, Resumed, StartedOver, Stored
from txstore.cli.text import human, say, shown

#: Seconds after which files of one step each are shown, too.
_A_MOMENT = 0.5

Status = Literal[
    "stored", "already_stored", "stored_by_another", "name_taken", "failed", "interrupted"
]

_WORDS: dict[Status, str] = {
    "stored": "stored",
    "stored_by_another": "stored by another run",
    "already_stored": "already stored",
    "name_taken": "not stored since a file has the name",
    "failed": "failed",
}


@dataclass(frozen=True)
class Outcome:
    """What became of a file, and a line of ``--json``.

    :ivar path: the file, as the command line says it, or below a folder that it says
    :ivar name: what it is stored as
    :ivar size: its bytes; of what failed, as far as they are known
    :ivar sent: bytes that were sent now
    :ivar seconds: that it took
    :ivar sha256: of what is stored
    :ivar error: what went wrong
    """

    path: str
    name: str
    status: Status
    size: int | None = None
    sent: int = 0
    seconds: float = 0.0
    sha256: str | None = None
    error: str | None = None


class Batch:
    """The files of one command: one display for all of them, made where one takes a moment.

    :param files: how many there are
    :param size: their bytes; ``None``: not known
    :param quiet: whether nothing is shown but errors
    :param lines: whether there is a line for each file that is stored
    :param as_json: whether there is a line in JSON for each file
    """

    def __init__(
        self, files: int, size: int | None, *, quiet: bool, lines: bool, as_json: bool
    ) -> None:
        self._files, self._size = files, size
        self._quiet, self._lines, self._as_json = quiet, lines, as_json
        self._view: Display | None = None
        self._started = time.monotonic()
        self._name, self._of_file, self._before = "", size, 0
        self._checking = False
        self._counts: Counter[Status] = Counter()
        self._sent = 0

    @property
    def failed(self) -> int:
        """How many files were not stored."""
        return self._counts["failed"]

    def begin(self, name: str, size: int | None) -> None:
        """The next file's turn."""
        self._name, self._of_file, self._checking = name, size, False
        if self._files > 1:
            if self._view is None and time.monotonic() - self._started > _A_MOMENT:
                self._open()
            self._title(checking=False)

    def show(self, event: Event) -> None:
        """A step of it."""
        if isinstance(event, Stored | NameTaken):
            return
        # A file that takes one step has no way that could be shown.
        view = self._view or self._open()
        match event:
            case Checked(offset, total):
                if self._files == 1:
                    view.checked(offset, total)
                else:
                    self._title(checking=True)
                    view.reached(self._before + min(offset, self._of_file or 0))
            case Resumed(offset):
                self._title(checking=False)
                text = f"resuming at {human(offset)} of {human(self._of_file or 0)}"
                view.restart(self._before + offset, text)
            case StartedOver(reason):
                self._title(checking=False)
                view.restart(self._before, f"starting over: {reason}")
            case Acked(offset):
                self._title(checking=False)
                view.reached(self._before + offset)

    def end(self, outcome: Outcome) -> None:
        """What became of it."""
        self._counts[outcome.status] += 1
        self._sent += outcome.sent
        self._before += self._of_file or 0
        if self._view is not None and outcome.error is None:
            self._title(checking=False)
            self._view.reached(self._before)
        if self._files == 1:
            self.close()
        if outcome.error is not None:
            self.say(f"Error: {shown(outcome.path)} was not stored: {outcome.error}", err=True)
        if self._as_json:
            self.say(json.dumps(asdict(outcome)))
        elif self._lines and outcome.error is None:
            self.say(_line(outcome))

    def interrupted(self, outcome: Outcome, kept: str) -> None:
        """Ctrl-C came, and what became of the file is that.

        :param kept: what is kept of it
        """
        self.close()
        say(f"Interrupted at {shown(outcome.path)}. {kept}", err=True)
        if self._as_json:
            say(json.dumps(asdict(replace(outcome, status="interrupted"))))

    def say(self, text: str, *, err: bool = False) -> None:
        """Print a line that stays."""
        if self._view is None:
            say(text, err=err)
        else:
            self._view.say(text, err=err)

    def close(self) -> None:
        """Take the display away."""
        if self._view is not None:
            self._view.close()
            self._view = None

    def summary(self) -> str:
        """All of it, in a line."""
        seconds = time.monotonic() - self._started
        parts = [
            f"{self._counts[one]} {words}" for one, words in _WORDS.items() if self._counts[one]
        ]
        files = f"{self._files} file{'' if self._files == 1 else 's'}"
        sent = f"sent {human(self._sent)} {_in_time(self._sent, seconds)}"
        return f"{files}: {', '.join([*parts, sent])}"

    def _open(self) -> Display:
        name = self._name if self._files == 1 else f"{self._files} files"
        view = display(name, self._size, quiet=self._quiet, files=self._files)
        self._view = view
        self._title(checking=self._checking)
        return view

    def _title(self, *, checking: bool) -> None:
        if self._files > 1 and self._view is not None:
            name = f"checking {self._name}" if checking else self._name
            self._view.turn(name, self._counts.total())
        self._checking = checking


def _line(outcome: Outcome) -> str:
    name, size = shown(outcome.name), human(outcome.size or 0)
    how = f" {_in_time(outcome.sent, outcome.seconds)}"
    match outcome.status:
        case "already_stored":
            return f"already stored {name}: {size}"
        case "stored_by_another":
            return f"stored {name}: {size} by another run of this command"
        case "name_taken":
            return f"not stored {name}: a file has that name already"
        case _ if outcome.size is not None and outcome.sent < outcome.size:
            return f"stored {name}: {size} ({human(outcome.sent)} of it now){how}"
        case _:
            return f"stored {name}: {size}{how}"


def _in_time(sent: int, seconds: float) -> str:
    return f"in {seconds:.2f} s ({human(sent / max(seconds, 1e-6))}/s)"
