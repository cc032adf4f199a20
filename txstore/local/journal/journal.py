"""The journal: read, written under a lock, flushed, checkpointed, let go of at forks and ends.

All writers, in all processes, hold the **journal lock** around a transaction, and checkpoints run
only under it.  SQLite before 3.51.3 can corrupt the database when a checkpoint races a commit on
another connection ("WAL-reset bug"); and the kernel's lock queues better than SQLite's busy
handler, which sleeps a millisecond at least.

Commits are made at ``synchronous=NORMAL``, which does not flush; ``flush`` then flushes the
write-ahead log (WAL) itself.  Together they are what ``synchronous=FULL`` does, but the flush is
taken only where the level asks for it, needs no lock, and goes through ``disk``.  A WAL that was
checkpointed and begun anew in between has been flushed by SQLite into the database first.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from txstore.deadline import Deadline
from txstore.errors import JournalError, LockTimeoutError
from txstore.local.files.disk import Disk
from txstore.local.files.machine import NO_SPACE, Copies
from txstore.local.journal.connection import WAL_LIMIT, Connection
from txstore.local.journal.sqlite import Row, Statement, Values
from txstore.local.journal.wal import RESERVE, make_reserve, release_reserve
from txstore.local.locks import Lock
from txstore.process import forks, threads
from txstore.process.strikes import ignored, is_strike, pass_on

logger = logging.getLogger(__name__)

#: How much the WAL must grow (bytes) before a checkpoint that a reader held up is tried again.
_RETRY_GROWTH = 1024 * 1024
#: Seconds that closing waits for the journal lock before it goes on without.
_CLOSE_TIMEOUT = 5.0


class Write(NamedTuple):
    """One statement of a transaction.

    :ivar guarded: whether it must touch exactly one row, or the transaction is rolled back
    """

    statement: Statement
    values: Values
    guarded: bool = False


class Journal:
    """A journal of the current revision.  Thread-safe; usable on both sides of a fork.

    :param folder_fd: descriptor of the working dir
    :param lock: the journal lock
    :param mode: permission bits of the journal's files
    :param lock_timeout: seconds that a call may wait, and SQLite for its own locks
    :param copies: when the file system copies what is overwritten
    :raises JournalError: it cannot be opened, or not in the mode that it needs
    """

    def __init__(
        self,
        disk: Disk,
        path: str,
        folder_fd: int,
        lock: Lock,
        mode: int,
        lock_timeout: float,
        *,
        copies: Copies = Copies.NEVER,
        moving: bool = False,
    ) -> None:
        self._disk, self.path, self._folder_fd = disk, path, folder_fd
        self._lock, self._mode, self._copies = lock, mode, copies
        # Held around every use of the connection; `before_fork` takes it to know that nobody is
        # inside SQLite.
        self.mutex = threads.new_lock()
        self.connection = Connection(
            disk, path, folder_fd, lock_timeout, copies=copies, moving=moving
        )
        self._checkpoint_at = WAL_LIMIT
        forks.let_go(self)
        deadline = Deadline(lock_timeout)
        with _Using(self, deadline):
            self._open(deadline)

    # --- reading and writing -----------------------------------------------------------------

    def read(
        self, statement: Statement, values: Mapping[str, Any], deadline: Deadline
    ) -> list[Row]:
        """All rows of a SELECT, fetched whole: no read transaction stays open."""
        with _Using(self, deadline):
            sqlite = self._open(deadline)
            try:
                return statement.run(sqlite, values).fetchall()
            except sqlite3.Error as error:
                raise self.connection.explain(error) from error

    def write(self, deadline: Deadline, *writes: Write, frees: bool = False) -> bool:
        """One transaction; not durable before ``flush``.

        :param frees: whether it removes something: then it gets the reserve on a full disk
        :return: ``False`` where a guarded statement found its row changed; nothing was written
        :raises JournalVersionError: a newer txstore upgraded the journal meanwhile
        :raises ReplacedError: the journal or its WAL is no longer the file that was opened
        :raises JournalError: SQLite failed; whether it was written shows when the row is read
        """
        with _Using(self, deadline):
            self._lock.acquire(deadline)
            try:
                return self._transaction(writes, deadline)
            except JournalError as error:
                if error.errno not in NO_SPACE:
                    raise
                # The WAL's own space may be written over once it is checkpointed; a cancel, which
                # must work on a full disk, gets what is kept for it besides.
                if frees:
                    release_reserve(self._disk, self._folder_fd)
                try:
                    self._checkpoint(deadline)
                except JournalError as reason:
                    logger.warning("The journal's log could not be checkpointed: %s", reason)
                return self._transaction(writes, deadline)
            finally:
                self._lock.release()

    def _transaction(self, writes: tuple[Write, ...], deadline: Deadline) -> bool:
        connection = self.connection
        try:
            sqlite = self._open(deadline)
            # With an index that is not the others' it would overwrite their commits.
            self._check_in_place()
            wal = connection.wal
            assert wal is not None
            if not wal.extended:
                wal.extend()
            size = self._disk.size(wal.fd)
            if size > connection.index.enough_for:
                connection.index.grow(size)  # for what this may add to the WAL
            try:
                if len(writes) == 1 and writes[0].guarded:
                    # A statement of its own is a transaction of its own.
                    statement, values, _ = writes[0]
                    if statement.in_order:
                        done = sqlite.execute(statement.sql, values).rowcount == 1
                    else:
                        done = statement.run(sqlite, values).rowcount == 1
                    if not done:
                        connection.check_version(sqlite)
                else:
                    done = self._run_all(sqlite, writes)
            except sqlite3.Error as error:
                raise connection.explain(error) from error
        except BaseException:
            # Whatever SQLite did or did not do is found out by a new connection; closing this
            # one rolls back what was not committed.
            connection.close()
            raise
        self._check_in_place()
        size = self._disk.size(wal.fd)
        if size % RESERVE:
            wal.extend()
        self._checkpoint_if_large(size, deadline)
        return done

    def _run_all(self, connection: sqlite3.Connection, writes: tuple[Write, ...]) -> bool:
        connection.execute("BEGIN IMMEDIATE")
        self.connection.check_version(connection)
        for write in writes:
            cursor = write.statement.run(connection, write.values)
            if write.guarded and cursor.rowcount != 1:
                connection.execute("ROLLBACK")
                return False
        connection.execute("COMMIT")
        return True

    def await_mutex(self, deadline: Deadline) -> bool:
        """Wait for another thread that uses the connection; ``False``: not in time."""
        return self._lock.await_thread(self.mutex, deadline)

    def _open(self, deadline: Deadline) -> sqlite3.Connection:
        """SQLite's connection, opened if need be; the mutex is held."""
        connection = self.connection
        connection.lock_timeout = deadline.timeout
        sqlite, patience = connection.sqlite, connection.patience
        # Asked here too, since it is nearly always so.
        left = deadline.end - time.monotonic()
        if sqlite is not None and not connection.copies and patience <= left < 2 * patience:
            return sqlite
        try:
            return connection.open(deadline)
        except sqlite3.Error as error:
            raise connection.explain(error) from error

    def _check_in_place(self) -> None:
        """:raises ReplacedError: the journal's paths do not lead to the open files any more"""
        files = self.connection.files
        if self._disk.names_version(files.folder) != files.version:
            files.check_in_place()

    def check_in_place(self, deadline: Deadline) -> None:
        """Check, before an answer that wrote nothing, that what was read is still the journal.

        :raises ReplacedError: it is not
        """
        with _Using(self, deadline):
            self._open(deadline)  # a fork in another thread may have closed it since
            self._check_in_place()

    def flush(self, deadline: Deadline) -> None:
        """Make durable all that was committed before, by whomever.

        Needs no lock, so that other transfers commit meanwhile.

        :raises OSError: the flush failed; nothing that rests on those commits may be answered
        """
        while True:
            with _Using(self, deadline):
                self._open(deadline)
                self._check_in_place()
                wal = self.connection.wal
                assert wal is not None
                if not wal.proven:
                    with self._lock.held(deadline):
                        wal.write_anew()
                    return
            try:
                if wal.flush(deadline, self.path):
                    return
            except LockTimeoutError:
                raise  # another thread is at it; waiting for it once more would know no bound
            except OSError:
                # While the kernel still has the pages: once it has dropped them SQLite's index
                # leads to nothing, and a checkpoint would copy that into the database.
                with ignored, _Using(self, deadline), self._lock.held(deadline):
                    if self.connection.wal is wal:
                        wal.write_anew()
                raise

    # --- the WAL -----------------------------------------------------------------------------

    def _checkpoint_if_large(self, size: int, deadline: Deadline) -> None:
        if size <= WAL_LIMIT:
            self._checkpoint_at = WAL_LIMIT
        elif size > self._checkpoint_at:
            self._checkpoint_at = size + _RETRY_GROWTH
            try:
                self._checkpoint(deadline)
            except OSError as error:
                pass_on(error)
                # What was committed is committed; the WAL grows until it works again.
                logger.warning("The journal's log could not be checkpointed: %s", error)

    def _checkpoint(self, deadline: Deadline) -> None:
        """Copy the WAL into the database, as far as no reader is in the way, and flush that.  The
        journal lock is held."""
        self.connection.settle_wal()
        sqlite = self._open(deadline)
        try:
            sqlite.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            raise self.connection.explain(error) from error

    def make_reserve(self) -> None:
        """Keep space for the WAL's first pages, for a store that is opened on a full disk."""
        make_reserve(self._disk, self._folder_fd, self._mode, copies=self._copies)

    def make_ready(self, deadline: Deadline) -> None:
        """Have what a full disk needs, also after a snapshot or a copy that shares blocks."""
        self.make_reserve()
        if self._copies:
            with _Using(self, deadline):
                self._open(deadline)
                wal = self.connection.wal
                assert wal is not None
                with self._lock.held(deadline):
                    wal.unshare()

    def take_spares(self) -> None:
        """Keep again what a call needed for itself, before somebody else takes it."""
        self.connection.gave_spares = False
        with ignored:
            self.make_reserve()

    # --- ends and forks ----------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the journal.  The last connection of all checkpoints it."""
        # No call is inside; but a fork may be.
        if not threads.acquire(self.mutex, _CLOSE_TIMEOUT):
            logger.warning("The journal stays open until the process ends: a call was cut off")
            return
        try:
            self._close_locked(_CLOSE_TIMEOUT)
        finally:
            self.mutex.release()

    def abandon(self) -> None:
        """Let go of the journal without waiting for anybody: its manager was collected, at whatever
        moment of whatever thread.  Where the mutex is not free, a fork has let go of it already."""
        if threads.acquire(self.mutex, 0):
            try:
                self._close_locked(0.0)
            finally:
                self.mutex.release()

    def _close_locked(self, timeout: float) -> None:
        """:param timeout: seconds to wait for the journal lock; without it the WAL cannot be
        settled, and the connection is closed without a checkpoint"""
        if self.connection.sqlite is None:
            return
        try:
            with self._lock.held(Deadline(timeout)):
                self.connection.close()
        except BaseException as error:
            self.connection.close(locked=False)
            if is_strike(error):
                raise  # a Ctrl-C, say; but no fork may take the connection along
            if timeout:
                logger.warning("The journal is closed without its lock: %s", error)
        # The WAL may be gone, and with it the space that it kept.
        with ignored:
            self.make_reserve()

    def before_fork(self) -> None:
        in_use = threads.is_mine(self.mutex) or self.connection.is_flushed_here()
        self.mutex.acquire()
        if in_use:
            # A handler forks in the middle of this thread's call, which goes on with the
            # connection.  The child takes it for what a fork from C leaves, and does not.
            return
        try:
            self._close_locked(_CLOSE_TIMEOUT)
        except BaseException:
            self.mutex.release()
            raise

    def after_fork_in_parent(self) -> None:
        self.mutex.release()

    def let_go(self) -> None:
        """After a call of this thread was cut off: if it was in the middle of using the connection,
        that is closed.  A transaction that was open would keep all other workers out."""
        self.connection.let_go_locks()
        if threads.is_mine(self.mutex):
            try:
                # Not knowing whether the journal lock is held.
                self.connection.close(locked=False)
            finally:
                threads.let_go(self.mutex)

    def disown(self) -> None:
        """Let go of what another process opened, or what was closed by its descriptors' numbers."""
        idle = threads.acquire(self.mutex, 0)
        self.connection.disown(idle=idle)
        if idle:
            self.mutex.release()


class _Using:
    """Holds a journal's mutex; written out, since a generator costs more than what it guards."""

    __slots__ = ("_deadline", "_journal", "_mutex")

    def __init__(self, journal: Journal, deadline: Deadline) -> None:
        self._journal, self._deadline = journal, deadline

    def __enter__(self) -> None:
        self._mutex = mutex = self._journal.mutex
        # As `threads.acquire` does it, where nobody has it.
        if not mutex._is_owned() and mutex.acquire(blocking=False):
            return
        if not self._journal.await_mutex(self._deadline):
            raise LockTimeoutError(self._journal.path, self._deadline.timeout)

    def __exit__(self, *_: object) -> None:
        try:
            if self._journal.connection.gave_spares:
                self._journal.take_spares()
        finally:
            self._mutex.release()
