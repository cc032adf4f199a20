"""The journal, read without writing a byte: beside running workers, after a crash, or at rest.

To open it for reading only (``mode=ro``) is not enough:

- SQLite makes the log (``-wal``) and its index (``-shm``) where they are missing, and writes the
  index.  Told ``readonly_shm=1`` it does not: where nobody alive has the index it makes one in
  memory, from the log.
- The log it makes all the same, if it finds none.  So without one the journal is read as
  ``immutable=1``, as it stands in its file.  That takes no lock and knows no log, so it is right
  only as long as nobody works.
- The last worker that closes removes the log.

So whether there is one is found out with the journal lock held, shared.  It is held on for as long
as a journal at rest is read; beside a log only until SQLite has its own lock, which keeps that in
place, and workers go on writing.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from typing import Any, TypeVar

from txstore.deadline import Deadline
from txstore.errors import JournalDamagedError, JournalError, JournalLinkedError
from txstore.local.files.descriptors import inode_of
from txstore.local.files.disk import Disk
from txstore.local.files.machine import Copies
from txstore.local.journal import schema
from txstore.local.journal.index import Index
from txstore.local.journal.inherited import check_openable
from txstore.local.journal.sqlite import (
    BUSY_TIMEOUT,
    SELECT_VERSION,
    Row,
    Statement,
    check_version,
    connect,
    translate,
)
from txstore.local.journal.upgrade import OLDER, migrate
from txstore.local.looking.locks import SharedLocks
from txstore.process import forks

T = TypeVar("T")


class JournalReader:
    """Reads a journal.  Every call opens and closes its own connection, so that nothing is left
    for a fork, and no reader keeps the log from being begun anew.

    :param path: absolute path
    """

    def __init__(self, disk: Disk, path: str, locks: SharedLocks) -> None:
        self._disk, self.path, self._locks = disk, path, locks

    def read(
        self, statement: Statement, values: Mapping[str, Any], deadline: Deadline
    ) -> list[Row]:
        """All rows of a SELECT.  A journal of an earlier revision is upgraded in memory."""

        def select(connection: sqlite3.Connection) -> list[Row]:
            [(revision,)] = SELECT_VERSION.run(connection, {}).fetchall()
            if revision == schema.REVISION:
                return statement.run(connection, values).fetchall()
            with closing(sqlite3.connect(":memory:", isolation_level=None)) as upgraded:
                connection.backup(upgraded)
                migrate(upgraded)
                return statement.run(upgraded, values).fetchall()

        return self.run(select, deadline)

    def problems(self, deadline: Deadline) -> list[str]:
        """What SQLite itself finds wrong with the journal; reads all of it."""

        def check(connection: sqlite3.Connection) -> list[str]:
            rows = connection.execute("PRAGMA integrity_check").fetchall()
            return [str(text) for (text,) in rows if text != "ok"]

        return self.run(check, deadline)

    def run(self, work: Callable[[sqlite3.Connection], T], deadline: Deadline) -> T:
        """Have something done within one transaction, which sees the journal of one moment.

        :raises FileNotFoundError: there is no journal
        :raises JournalDamagedError: SQLite cannot read it
        :raises JournalVersionError: a newer txstore wrote it
        :raises JournalError: it cannot be opened, or not without writing
        :raises LockTimeoutError: somebody else had it for too long
        """
        while True:
            with ExitStack() as held:
                guarded = self._hold(held, deadline)
                try:
                    found = self._run(work, held, deadline)
                except sqlite3.Error as error:
                    if "readonly" not in str(error) and guarded == self._locks.are_there():
                        waited = deadline.timeout
                        raise translate(error, self.path, self._disk, waited) from error
                else:
                    if guarded == self._locks.are_there():
                        return found
            # A worker came where none was; or one died while it wrote the index, and another one
            # that is alive has to write it anew.
            self._locks.pause("journal", deadline)

    def _hold(self, held: ExitStack, deadline: Deadline) -> bool:
        """Take the journal lock; ``False``: there is none yet.

        Forks wait for whoever has a connection, so nobody else's lock is waited for meanwhile.
        """
        while True:
            with ExitStack() as attempt:
                attempt.enter_context(forks.opening)
                attempt.enter_context(forks.indexing)
                guarded = self._locks.are_there()
                if self._locks.try_journal():
                    attempt.callback(self._locks.let_go_of_journal)
                    held.enter_context(attempt.pop_all())
                    return guarded
            self._locks.pause("journal", deadline)

    def _run(
        self, work: Callable[[sqlite3.Connection], T], held: ExitStack, deadline: Deadline
    ) -> T:
        access, at_rest = self._access()
        index = Index(self._disk, self.path, copies=Copies.NEVER)
        index.join()
        held.callback(index.let_go)
        waiting = min(BUSY_TIMEOUT, deadline.left())
        connection = held.enter_context(closing(connect(self._disk, self.path, access, waiting)))
        connection.execute("BEGIN")
        rows = SELECT_VERSION.run(connection, {}).fetchall()
        if not at_rest:
            self._locks.let_go_of_journal()
        if len(rows) != 1 or rows[0][0] not in OLDER:
            check_version(self.path, rows)
        return work(connection)

    def _access(self) -> tuple[str, bool]:
        """How SQLite is to open the journal, and whether it is at rest."""
        found = self._disk.stat(self.path)
        if found.st_size == 0:
            raise JournalDamagedError(self.path, "it is empty")
        check_openable(self.path, inode_of(found))
        if not self._exists("-wal"):
            return "ro&immutable=1", True
        if found.st_nlink > 1:
            raise JournalLinkedError(self.path)  # whose log it is nobody knows
        if not self._exists("-shm"):
            raise JournalError(
                errno.ENOENT,
                "The journal's log has no index beside it (journal.db-shm), and to read it one has"
                " to be written. Nothing was changed. Open the store where it can be written, or"
                " copy the index too",
                self.path,
            )
        return "ro&readonly_shm=1", False

    def _exists(self, suffix: str) -> bool:
        try:
            self._disk.stat(self.path + suffix)
        except FileNotFoundError:
            return False
        return True
