"""SQLite under a simulated disk: its connection, its statements, and copies of its files."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

_COPIER = """
import sys
for line in sys.stdin.buffer:
    try:
        with open(line[:-1].decode('utf-8', 'surrogateescape'), 'rb') as file:
            data = file.read()
        sys.stdout.buffer.write(b'%d\\n' % len(data) + data)
    except OSError:
        sys.stdout.buffer.write(b'-1\\n')
    sys.stdout.buffer.flush()
"""

_helpers: dict[int, subprocess.Popen[bytes]] = {}


def copy_of(path: str) -> bytes | None:
    """Content of a file, read by another process; ``None`` where there is no file.

    Opening and closing ``journal.db`` in this one would drop all locks that SQLite has on it.
    """
    helper = _helpers.get(os.getpid())
    if helper is None:
        helper = _helpers[os.getpid()] = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _COPIER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
    assert helper.stdin is not None
    assert helper.stdout is not None
    helper.stdin.write(os.fsencode(path) + b"\n")
    helper.stdin.flush()
    size = int(helper.stdout.readline())
    return helper.stdout.read(size) if size >= 0 else None


def kind_of(sql: str) -> str:
    """``"commit"``, ``"checkpoint"``, ``"close"``, ``"read"`` or ``"statement"``."""
    text = sql.lstrip()[:24].upper()
    if text.startswith(("COMMIT", "END")):
        return "commit"
    if text.startswith("PRAGMA WAL_CHECKPOINT"):
        return "checkpoint"
    if text.startswith(("SELECT", "PRAGMA", "BEGIN", "ROLLBACK")):
        return "read"
    return "close" if text == "CLOSE" else "statement"


def looked_at(cursor: Any) -> tuple[Any, bool]:
    """A cursor with the row of a checkpoint, as it was, and whether the checkpoint is complete."""
    row = cursor.fetchone()
    busy, in_log, done = row
    return cursor.execute("SELECT ?, ?, ?", row), not busy and in_log == done


def differences(old: bytes, new: bytes, page: int | None) -> Iterator[tuple[int, bytes]]:
    """The writes that make ``new`` of ``old``: changed pages, or without ``page`` one range.  Does
    not cut."""
    step = page or 512
    if old == new:
        return
    changed = [
        offset
        for offset in range(0, len(new), step)
        if old[offset : offset + step] != new[offset : offset + step]
    ]
    if not changed:
        return
    if page is not None:
        for offset in changed:
            yield offset, new[offset : offset + page]
        return
    first, last = changed[0], min(changed[-1] + step, len(new))
    while old[first : first + 1] == new[first : first + 1]:
        first += 1
    while last <= len(old) and old[last - 1] == new[last - 1]:
        last -= 1
    yield first, new[first:last]


class SimulatedCursor(sqlite3.Cursor):
    """Cursors are what SQLAlchemy, and so Alembic, works with."""

    def execute(self, sql: str, parameters: Any = (), /) -> SimulatedCursor:
        connection = self.connection
        assert isinstance(connection, SimulatedConnection)
        connection.around(connection, sql, lambda: self._execute(sql, parameters))
        return self

    def _execute(self, sql: str, parameters: Any) -> None:
        super().execute(sql, parameters)


class SimulatedConnection(sqlite3.Connection):
    """A connection whose calls go through a simulated disk.

    :ivar file: path of the database
    :ivar writes: whether it can change anything
    :ivar around: carries a call out, and takes down what it did
    """

    file: str
    writes: bool
    around: Callable[[SimulatedConnection, str, Callable[[], Any]], Any]

    def cursor(self, factory: Any = SimulatedCursor) -> Any:
        return super().cursor(factory)

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        cursor: sqlite3.Cursor = self.around(
            self,
            sql,
            lambda: sqlite3.Connection.cursor(self, sqlite3.Cursor).execute(sql, parameters),
        )
        return cursor

    def commit(self) -> None:
        self.around(self, "COMMIT", super().commit)

    def close(self) -> None:
        self.around(self, "CLOSE", super().close)

    def flush_level(self) -> int:
        """What ``PRAGMA synchronous`` really is: 0 OFF, 1 NORMAL, 2 FULL.

        :raises AssertionError: the journal is not in WAL mode, so nothing recorded of it is right;
            but while it is made nothing is flushed, or nothing was written yet
        """
        cursor = sqlite3.Connection.cursor(self, sqlite3.Cursor)
        mode: str = cursor.execute("PRAGMA journal_mode").fetchone()[0]
        level: int = cursor.execute("PRAGMA synchronous").fetchone()[0]
        assert mode == "wal" or level == 0 or not self.total_changes
        return level
