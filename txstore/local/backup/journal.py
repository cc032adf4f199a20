"""The journal of a backup: SQLite's own copy of one moment, in which transfers are then brought to
where their copied bytes are.

A journal of an earlier revision stays one, so all columns are taken as they are.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from txstore.deadline import Deadline
from txstore.errors import JournalDamagedError
from txstore.local.backup.destination import Destination
from txstore.local.files.disk import Disk
from txstore.local.journal.making import WAL_MODE, WAL_MODE_AT
from txstore.local.journal.sqlite import connect, translate
from txstore.local.looking.reader import JournalReader

#: A transfer: its columns by their names.
Row = dict[str, Any]
#: What a database's header says of one that is written without a WAL.
_NO_WAL = b"\1\1"


class JournalCopy:
    """A copy of the journal beside its place in the backup.  Nobody else has it open.

    :ivar name: its name in the backup's working dir
    """

    def __init__(self, disk: Disk, destination: Destination, like: os.stat_result) -> None:
        self._disk, self._destination, self._like = disk, destination, like
        self.name = ""

    def take(self, reader: JournalReader, deadline: Deadline) -> None:
        """Copy the journal as it is now, in place of an earlier copy.

        :raises JournalDamagedError: SQLite finds something wrong with it
        """
        self.remove()
        name = f"new-{uuid.uuid4().hex}"
        fd = self._disk.create(name, 0o600, dir_fd=self._destination.working)
        try:
            self.name = name
            self._disk.give(fd, self._like)
        finally:
            self._disk.close(fd)
        reader.run(self._fill, deadline)
        # It is changed alone from here on.
        self._write_header(_NO_WAL)
        with self._opened() as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise JournalDamagedError(reader.path, verdict)

    def _fill(self, source: sqlite3.Connection) -> None:
        with closing(self._connect()) as target:
            try:
                source.backup(target)
            except sqlite3.Error as error:
                if "full" in str(error):  # not the source
                    raise translate(error, self._path, self._disk) from error
                raise

    def rows(self) -> list[Row]:
        """All transfers, oldest first."""
        with self._opened() as connection:
            found = connection.execute("SELECT * FROM transfer ORDER BY id")
            names = _columns(found)
            return [dict(zip(names, row, strict=True)) for row in found]

    def change(self, rows: list[Row], storage_dir: str) -> None:
        """Have these transfers and no other; say where the files are; and say of what was stored
        that it is durable, as the backup is, and that nobody knows what came there since, as after
        a power loss: the files are newer.

        :param rows: by their ``id``
        :param storage_dir: relative to the working dir
        """
        with self._opened() as connection:
            connection.execute("BEGIN")
            connection.execute("UPDATE store SET storage_dir = ?", (os.fsencode(storage_dir),))
            # Of an earlier revision, those that have it.
            tables = "SELECT m.name FROM sqlite_master AS m, pragma_table_info(m.name) AS c"
            for (table,) in connection.execute(f"{tables} WHERE c.name = 'durable'").fetchall():
                connection.execute(f"UPDATE {table} SET boot = '', durable = 1")
            kept = {row["id"] for row in rows}
            gone = connection.execute("SELECT id FROM transfer").fetchall()
            for (number,) in gone:
                if number not in kept:
                    connection.execute("DELETE FROM transfer WHERE id = ?", (number,))
            for row in rows:
                # Names of columns, which SQLite gave us.
                columns = ", ".join(f'"{name}" = :{name}' for name in row)
                connection.execute(f"UPDATE transfer SET {columns} WHERE id = :id", row)
            connection.execute("COMMIT")
        self._write_header(WAL_MODE)

    def remove(self) -> None:
        """Take the copy away, if there is one."""
        name, self.name = self.name, ""
        if name:
            self._disk.unlink(name, dir_fd=self._destination.working)

    @property
    def _path(self) -> str:
        return os.path.join(self._destination.working_path, self.name)

    def _connect(self) -> sqlite3.Connection:
        connection = connect(self._disk, self._path, "rw")
        # No file beside it, and one flush at the end.
        # Until all of its answer is fetched it counts as a statement that writes.
        connection.execute("PRAGMA journal_mode=MEMORY").fetchall()
        connection.execute("PRAGMA synchronous=OFF")
        return connection

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(self._connect()) as connection:
                yield connection
        except sqlite3.Error as error:
            raise translate(error, self._path, self._disk) from error

    def _write_header(self, mode: bytes) -> None:
        fd = self._disk.open(self.name, dir_fd=self._destination.working)
        try:
            self._disk.pwrite(fd, mode, WAL_MODE_AT)
            self._disk.flush(fd)
        finally:
            self._disk.close(fd)


def _columns(found: sqlite3.Cursor) -> list[str]:
    return [column[0] for column in found.description]
