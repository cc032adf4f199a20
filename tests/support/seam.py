"""A disk that tells of every call before it is made, SQLite's statements included."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from txstore.testing.seam import Seam

T = TypeVar("T")

#: Calls that leave no trace on the disk: what a crash before one of them leaves is what it leaves
#: before the next call that is not of them.
READING = frozenset(
    [
        "acl",
        "boot_id",
        "clock_ahead",
        "default_acl",
        "file_system",
        "fstat",
        "list_folder",
        "names_version",
        "new_file",
        "open",
        "open_folder",
        "pread",
        "read_link",
        "space",
        "stat",
        "umask",
    ]
)


class WatchedDisk(Seam):
    """The real disk, with ``before`` called ahead of each operation.

    Statements of SQLite come as the operation ``sql`` with the statement's text.
    """

    def made(
        self, call: str, act: Callable[..., T], args: tuple[Any, ...], options: dict[str, Any]
    ) -> T:
        facts = args[1:] if call == "sql" else (*args, *options.values())
        if facts != ("CLOSE",):
            self.before(call, *facts)
        return act(*args, **options)

    def before(self, operation: str, *facts: Any) -> None:
        """What a test wants to do ahead of an operation."""


class KillingDisk(WatchedDisk):
    """Kills its process at the N-th operation that changes something: before it; and a write counts
    twice, to be cut off in the middle the second time.  Or at the N-th of one kind.

    :param at: which one; 0: none
    :param operation: the kind; empty: all that change something
    :param words: what one of that kind has in its statement or its names
    :param after: once it was carried out
    """

    def __init__(
        self, at: int = 1, operation: str = "", words: str = "", *, after: bool = False
    ) -> None:
        super().__init__()
        self.at, self.operation, self.words, self.after = at, operation, words, after
        self.count = 0

    def before(self, operation: str, *facts: Any) -> None:
        if self.operation:
            texts = [one for one in facts if isinstance(one, str)]
            if self.count == self.at and self.after:
                kill_this_process()
            if operation == self.operation and self.words in " ".join(texts):
                self._step()
        elif operation not in READING:
            self._step()
            if operation == "pwrite":
                self._step(*facts)

    def _step(self, *write: Any) -> None:
        self.count += 1
        if self.count == self.at and not self.after:
            if write:
                fd, data, offset = write
                os.pwrite(fd, memoryview(data)[: len(data) // 2], offset)
            kill_this_process()


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class PausingDisk(WatchedDisk):
    """Stops at the first statement that begins with some words, until it is told to go on.

    :param words: how the statement begins
    :param folder: where to meet whoever waits for the stop, and lets it go on
    """

    def __init__(self, words: str, folder: Path) -> None:
        super().__init__()
        self.words, self.folder = words, folder

    def before(self, operation: str, *facts: Any) -> None:
        if operation == "sql" and facts[0].lstrip().startswith(self.words):
            self.words = "nothing begins with this"
            (self.folder / "stopped").write_text("")  # opening a FIFO waits for the other side
            (self.folder / "go on").read_text()


class Pause:
    """The other side of a ``PausingDisk``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.mkfifo(folder / "stopped")
        os.mkfifo(folder / "go on")

    def reached(self) -> None:
        """Wait until it has stopped."""
        (self.folder / "stopped").read_text()

    def end(self) -> None:
        (self.folder / "go on").write_text("")


class StoppingDisk(WatchedDisk):
    """Stops one thread at an operation, for as long as the test likes."""

    def __init__(self) -> None:
        super().__init__()
        self.operation, self.words = "", ""
        self.reached, self.go_on = threading.Event(), threading.Event()

    def before(self, operation: str, *facts: Any) -> None:
        if operation == self.operation and (operation != "sql" or self.words in facts[0]):
            self.operation = ""
            self.reached.set()
            self.go_on.wait(60)

    @contextmanager
    def stopped(
        self, operation: str, call: Callable[[], object], *, words: str = ""
    ) -> Iterator[None]:
        """Have a thread make a call, and stop in the middle of it while the body runs.

        :param words: of SQLite's statement, where that is the operation
        """
        self.operation, self.words = operation, words
        thread = threading.Thread(target=call)
        thread.start()
        try:
            assert self.reached.wait(60)
            yield
        finally:
            self.go_on.set()
            thread.join(60)
            assert not thread.is_alive()
