"""The journal's connection to SQLite, with our own descriptor of its write-ahead log (WAL).

Opened together, proved, and let go together; used with the journal's mutex held.

No code in this process may open and close ``journal.db`` or its ``-shm`` beside SQLite: closing
any descriptor of a file drops all of the process's POSIX locks on it, SQLite's too.  The ``-wal``
carries no locks.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3

from txstore.deadline import Deadline
from txstore.errors import JournalDamagedError, JournalError, ReplacedError
from txstore.local.files.descriptors import Descriptor, descriptors_of
from txstore.local.files.disk import Disk
from txstore.local.files.machine import Copies
from txstore.local.journal import handles
from txstore.local.journal.files import OpenFiles
from txstore.local.journal.index import Index
from txstore.local.journal.inherited import (
    check_openable,
    give_up,
    put_away,
)
from txstore.local.journal.revision import REVISION
from txstore.local.journal.sqlite import SELECT_VERSION, check_version, translate
from txstore.local.journal.wal import WalFile, give_spare, release_reserve
from txstore.process import forks
from txstore.process.strikes import pass_on

logger = logging.getLogger(__name__)

#: Beyond this size (bytes) the WAL is checkpointed; the next commit then begins it anew and cuts
#: it back to this size, never below.
WAL_LIMIT = 4 * 1024 * 1024
#: Seconds that a flush of the WAL by another thread is waited for before it is written anew.
_SETTLE_TIMEOUT = 5.0

#: What each connection must answer, or it is refused.  ``synchronous`` 1 is NORMAL; never OFF,
#: which also drops the checkpoint's flushes.
_PRAGMAS: tuple[tuple[str, object], ...] = (
    ("journal_mode", "wal"),
    ("synchronous", 1),
    ("wal_autocheckpoint", 0),
    ("journal_size_limit", WAL_LIMIT),
)


class Connection:
    """One manager's way to its journal, opened whenever it is needed and not open.

    :param folder_fd: descriptor of the working dir
    :param moving: whether it is for who moves the store, and whom no fence keeps off
    :ivar files: what SQLite has open
    :ivar copies: when the file system copies what is overwritten
    :ivar patience: seconds that SQLite waits for its own locks
    :ivar lock_timeout: seconds that the call may wait which uses it now
    :ivar index: SQLite's index of the WAL
    :ivar sqlite: SQLite's connection, while there is one
    :ivar wal: the WAL that it writes, likewise
    :ivar witness: one of SQLite's descriptors, and the file that it leads to
    :ivar gave_spares: whether what is kept for the index was given back, to be taken again soon
    """

    def __init__(
        self,
        disk: Disk,
        path: str,
        folder_fd: int,
        patience: float,
        *,
        copies: Copies = Copies.NEVER,
        moving: bool = False,
    ) -> None:
        self._disk, self._path, self._folder_fd = disk, path, folder_fd
        self.lock_timeout = self.patience = patience
        self.files = OpenFiles(disk, path)
        self.copies, self.gave_spares = copies, False
        self._moving = moving
        self.index = Index(disk, path, copies=copies)
        self.sqlite: sqlite3.Connection | None = None
        self.wal: WalFile | None = None
        self._descriptors: tuple[Descriptor, ...] = ()
        self.witness: Descriptor = (-1, (0, 0))

    def open(self, deadline: Deadline) -> sqlite3.Connection:
        """SQLite's connection, opened if need be.

        :raises ReplacedError: the journal is not the one that was opened before
        :raises JournalError: it cannot be opened, or not in the mode that it needs
        """
        self._bound_waiting(deadline)
        if self.sqlite is not None:
            if self.copies:
                self.touch_index()
            return self.sqlite
        released = False
        while True:
            try:
                with forks.indexing:
                    connection = self._open(deadline)
            except (sqlite3.OperationalError, OSError) as error:
                if isinstance(error, OSError):
                    pass_on(error)
                if isinstance(error, JournalDamagedError):
                    raise
                # -shm and -wal need space too, and SQLite calls the lack of it an I/O error.
                if "locked" in str(error) or not release_reserve(self._disk, self._folder_fd):
                    raise
                released = True
                self.gave_spares = bool(self.copies)
                continue
            if released and self.wal is not None:
                self.wal.claim()  # before somebody else takes what was given back
            return connection

    def _open(self, deadline: Deadline) -> sqlite3.Connection:
        inode = self.files.inode()
        check_openable(self._path, inode)
        self.index.hold(deadline)
        connection = wal = None
        try:
            connection = handles.open_writing(self._disk, self._path, self.patience)
            self._prove_mode(connection)
            if self._moving:
                # In the place of the fence, for this connection alone.
                connection.execute("PRAGMA temp_store=MEMORY")
                connection.execute(
                    f"CREATE TEMP TABLE alembic_version AS SELECT '{REVISION}' AS version_num"
                )
            # Reading makes SQLite open the WAL, so that it can be opened here too.
            try:
                self.check_version(connection)
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:  # while it is open: see `translate`
                raise translate(error, self._path, self._disk, self.lock_timeout) from error
            handles.close_left(inode)
            wal = WalFile(self._disk, os.path.basename(self._path) + "-wal", self._folder_fd)
            self.files.were_opened(inode, wal.inode)
            self._descriptors = descriptors_of(self._disk, self.files.opened.values())
        except BaseException:
            if connection is not None:
                handles.close_unsettled(connection)
            if wal is not None:
                wal.close()
            if connection is None or not handles.is_open(connection):
                self.index.let_go()
            raise
        self.sqlite, self.wal = connection, wal
        return connection

    def _prove_mode(self, connection: sqlite3.Connection) -> None:
        for pragma, wanted in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}={wanted}")
            answer = connection.execute(f"PRAGMA {pragma}").fetchone()[0]
            if answer != wanted:
                raise JournalError(
                    errno.EIO,
                    f"SQLite does not go into the mode the journal needs: PRAGMA {pragma} answers"
                    f" {answer!r} instead of {wanted!r}",
                    self._path,
                )

    def check_version(self, connection: sqlite3.Connection) -> None:
        """Called in every write transaction: a newer worker may have upgraded the journal."""
        check_version(self._path, SELECT_VERSION.run(connection, {}).fetchall())

    def close(self, *, locked: bool = True) -> None:
        """Close the connection, if any; the last of all checkpoints, and removes the WAL, if that
        is settled.

        :param locked: whether the journal lock is held: without it somebody else may be writing
            the WAL, and what is written anew would be older than that
        """
        connection, wal, settled = self.sqlite, self.wal, False
        if connection is None:
            return
        if locked:
            try:
                self.files.check_removable()
                self.settle_wal()
                settled = True
            except OSError as error:
                pass_on(error)
                logger.warning("The journal's log could not be flushed: %s", error)
        try:
            self.touch_index()
        except OSError as error:
            pass_on(error)
            # Closing it would kill us.  It stays as it is until the process ends.
            logger.warning("The journal is left open: %s", error)
            self.sqlite = self.wal = None
            if wal is not None:
                wal.close()
            return
        # Forgotten when it is closed: one that is cut off in between could be closed by nobody.
        if settled:
            handles.close_settled(connection)
        else:
            handles.close_unsettled(connection)
        self.sqlite = self.wal = None
        if wal is not None:
            wal.close()
        if not handles.is_open(connection):
            self.index.let_go()

    def is_flushed_here(self) -> bool:
        """Whether this thread is in the middle of a flush of the WAL."""
        return self.wal is not None and self.wal.is_flushed_here()

    def let_go_locks(self) -> None:
        """After a call of this thread was cut off: let go of what is not the journal's mutex."""
        if self.wal is not None:
            self.wal.let_go()
        self.index.let_go_locks()

    def has_descriptors(self) -> bool:
        """Whether SQLite's descriptors are its own still, as far as one of the index tells."""
        if self.sqlite is None:
            return True
        fd, inode = self.witness
        return self._disk.inode_behind(fd) == inode or self._find_witness()

    def _find_witness(self) -> bool:
        """Another one: with several connections in a process, some close theirs before."""
        shm = self.files.opened.get("-shm")
        for fd, inode in self._descriptors:
            if inode == shm and self._disk.inode_behind(fd) == inode:
                self.witness = fd, inode
                return True
        return False

    def disown(self, *, idle: bool) -> None:
        """Let go of a connection that another process opened, or whose descriptors were closed.

        :param idle: whether it is known that nobody is inside SQLite
        """
        connection, wal = self.sqlite, self.wal
        if wal is not None:
            wal.disown()
        if connection is not None and not (idle and put_away(connection, self._descriptors)):
            give_up(self.files.opened[""])
        self.index.abandon()
        self.sqlite = self.wal = None

    def touch_index(self) -> None:
        """Before SQLite is asked anything: what it touches must not kill us.

        :raises JournalError: there is no space for it
        """
        while True:
            try:
                self.index.touch()
            except OSError as error:
                pass_on(error)
                if give_spare(self._disk, self._folder_fd):
                    self.gave_spares = True
                    continue
                number = self._disk.lack_of_space(os.path.dirname(self._path)) or errno.ENOSPC
                raise JournalError(number, os.strerror(number), self._path) from error
            return

    def settle_wal(self) -> None:
        """Before SQLite copies the WAL into the database: have all of it on the device.

        SQLite flushes it too, but after somebody's failed flush that succeeds without the lost
        pages.  The device would hold a newer database and an older WAL, and after a power loss
        SQLite would lay the older over the newer.  The journal lock is held.
        """
        wal, deadline = self.wal, Deadline(_SETTLE_TIMEOUT)
        if wal is not None and not (wal.proven and wal.flush(deadline, self._path)):
            wal.write_anew()

    def _bound_waiting(self, deadline: Deadline) -> None:
        """Have SQLite wait for its own locks (recovery of a WAL, the last close, a program that is
        not txstore) no longer than the call may."""
        left = deadline.left()
        if self.patience <= left < 2 * self.patience:
            return  # telling SQLite each time would cost more than it is worth
        self.patience = 0.9 * left
        if self.sqlite is not None:
            self.sqlite.execute(f"PRAGMA busy_timeout={round(self.patience * 1000)}")

    def explain(self, error: sqlite3.Error) -> Exception:
        """SQLite's error as the contract names it; doubts what was not flushed."""
        if self.wal is not None:
            self.wal.doubt()
        # A journal that was moved away looks read-only to SQLite.
        try:
            self.files.check_one_in_place()
        except ReplacedError as reason:
            return reason
        if "no such" in str(error) and self.sqlite is not None:
            # A newer worker may have taken a table or a column away.
            try:
                self.check_version(self.sqlite)
            except JournalError as reason:
                return reason
        return translate(error, self._path, self._disk, self.lock_timeout)
