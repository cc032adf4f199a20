"""Who may touch a transfer, a name in the storage, or the journal.

Three classes of lock, always taken in this order: **transfer**, **name**, **journal**; never two
of one class, so no two workers can wait for each other.  Transfers and names share 64 stripes a
class, picked by CRC-32 of the text (``hash()`` differs from process to process).

A lock is a thread lock and then the kernel's lock on one byte of the lock file, one byte for each
lock.  It belongs to the open file, not to the process (``F_OFD_SETLK``, see ``fcntl(2)``): managers
of one process exclude each other too.  The kernel frees it when its holder dies.  The lock file
is never removed: who holds a lock in a removed file excludes nobody who opens the name anew.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Generic, TypeVar

from txstore.deadline import Deadline
from txstore.errors import LockTimeoutError, ReplacedError
from txstore.local.files.descriptors import Descriptor
from txstore.local.files.disk import Disk
from txstore.local.lockfile import (
    JOURNAL_BYTE,
    STRIPES,
    TOKEN_SIZE,
    LockFile,
    Waiting,
    name_byte,
    transfer_byte,
)
from txstore.process import threads
from txstore.process.strikes import pass_on

_L = TypeVar("_L", bound="Lock")
#: So many attempts at a kernel lock are made with nothing but a yield between them: the shortest
#: sleep lasts longer than a commit.
_YIELDS = 20
#: Pauses between the later attempts, in seconds: growing, so that a long holder is not hammered.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.00005, 0.002


class Lock:
    """One thread lock and one byte of the lock file.

    :ivar name: which lock it is, for messages to people
    :ivar held_by: the descriptor by which the kernel's lock was last taken
    """

    def __init__(self, file: LockFile, byte: int, name: str) -> None:
        self._file, self._disk, self._byte, self.name = file, file.disk, byte, name
        self._mutex = threads.new_lock()
        self.held_by: Descriptor | None = None

    def acquire(self, deadline: Deadline) -> None:
        """Wait for the lock, at most until ``deadline``.

        :raises LockTimeoutError: it was not had in time
        :raises ReplacedError: the lock's file is not the one that others would open
        """
        # A thread waits here without asking the kernel: its lock on the same descriptor would
        # succeed at once, whoever else in this process holds it.
        mutex, file = self._mutex, self._file
        # As `threads.acquire` does it, where nobody has it.
        is_free = not mutex._is_owned() and mutex.acquire(blocking=False)
        if not (is_free or self.await_thread(mutex, deadline)):
            raise self._timeout(deadline)
        try:
            self.held_by = held = file.opened or file.open()
            if not self._disk.try_lock(held[0], self._byte):
                with file.waiting():
                    self._wait(held[0], deadline)
            file.holders.add(self)
            self.check_in_place()
            self._taken(held[0])
        except BaseException as error:
            # What a signal handler raises may come right after the kernel's lock was taken.
            self.release()
            if isinstance(error, ReplacedError):
                file.was_replaced()
            raise

    def await_thread(self, mutex: Any, deadline: Deadline) -> bool:
        """Wait for another thread of this process; ``False``: not in time."""
        with self._file.waiting():
            return threads.acquire(mutex, deadline.left())

    def _wait(self, fd: int, deadline: Deadline) -> None:
        """Wait for the kernel's lock."""
        yields, pause = _YIELDS, _FIRST_PAUSE
        while True:
            if deadline.left() == 0.0:
                raise self._timeout(deadline)
            if yields:
                yields -= 1
                self._disk.pause(0.0)
            else:
                self._disk.pause(min(pause * (0.5 + random.random()), deadline.left()))
                pause = min(pause * 2, _LONGEST_PAUSE)
            if self._disk.try_lock(fd, self._byte):
                return

    def _timeout(self, deadline: Deadline) -> LockTimeoutError:
        return LockTimeoutError(self._file.path, deadline.timeout, self.name)

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it."""
        try:
            self.acquire(Deadline(0.0))
        except LockTimeoutError:
            return False
        return True

    def release(self) -> None:
        # Cut off in between, it stays signed by its thread: so `let_go` finds it.
        self._unlock()
        self._mutex.release()

    def held(self: _L, deadline: Deadline) -> _Held[_L]:
        """``with``: hold the lock; what ``acquire`` raises."""
        return _Held(self, deadline)

    def check_in_place(self) -> None:
        """Check, while holding the lock, that its path still leads to the locked file.

        :raises ReplacedError: it does not, so others may hold "the same" lock
        """
        assert self.held_by is not None
        path = self._file.path
        try:
            # By its whole path: a folder that was moved or replaced is noticed too.
            found = self._disk.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            raise ReplacedError(path, "lock file") from None
        if (found.st_dev, found.st_ino) != self.held_by[1]:
            raise ReplacedError(path, "lock file")

    def let_go(self) -> None:
        """After a call of this thread was cut off: let go of the lock, if the thread has it.  May
        be cut off itself, and called again."""
        if threads.is_mine(self._mutex):
            self._unlock()
            threads.let_go(self._mutex)

    def _unlock(self) -> None:
        held, file = self.held_by, self._file
        if held is not None and held in file.all:
            try:
                self._disk.unlock(held[0], self._byte)
            except OSError as error:
                pass_on(error)
                file.give_up(held)
            file.holders.discard(self)
            if file.stuck:
                file.close_stuck()

    def _taken(self, fd: int) -> None:
        """Called when the lock was just taken."""


class TransferLock(Lock):
    """A lock of which the file tells the next holder, among the living, who the last one was.

    That is said by a random token, which is not flushed.  Rows of transfers are changed only under
    their lock (but for intents, see ``Intents.settle``).  So a row that was read or written in an
    earlier call is current as long as ``turn`` is the same.

    :ivar turn: goes up each time somebody else may have held the lock in between
    """

    turn = 0

    def __init__(self, file: LockFile, stripe: int) -> None:
        super().__init__(file, transfer_byte(stripe), f"transfer-{stripe:02x}")
        self._token_at = TOKEN_SIZE * stripe

    def begin_turn(self) -> None:
        """For a holder that changes rows otherwise than segment by segment, or may fail half way:
        nothing that was kept before is current."""
        self.turn += 1

    def _taken(self, fd: int) -> None:
        token = self._file.token
        try:
            found = self._disk.last_holder(fd, self._token_at)
        except OSError as error:
            pass_on(error)
            found = b""
        if found != token:
            self.begin_turn()
            try:
                self._disk.sign(fd, token, self._token_at)
            except OSError as error:
                pass_on(error)
                # On a full disk nothing is taken for current; whoever held the lock before must
                # not take it for its own still.  All tokens go: others read their rows again.
                self._disk.truncate(fd, 0)


class _Held(Generic[_L]):
    """Holds a lock; written out, since a generator costs more than what it guards."""

    __slots__ = ("_deadline", "_lock")

    def __init__(self, lock: _L, deadline: Deadline) -> None:
        self._lock, self._deadline = lock, deadline

    def __enter__(self) -> _L:
        self._lock.acquire(self._deadline)
        return self._lock

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Locks:
    """All locks of one manager.  Thread-safe; ``disown`` in a forked child.

    :param waiting: makes what is entered for as long as one is waited for
    """

    def __init__(
        self, disk: Disk, folder: str, folder_fd: int, mode: int, waiting: Waiting = nullcontext
    ) -> None:
        # Opened once for each class: where a lock cannot be freed, closing its descriptor frees it,
        # and no lock of another class that the same call holds.
        self._files = [LockFile(disk, folder, folder_fd, mode, waiting) for _ in range(3)]
        self._of_transfers, self._of_names, of_journal = self._files
        for file in self._files:
            file.classes = self._files
        self.journal = Lock(of_journal, JOURNAL_BYTE, "journal")
        # By stripe, made when they are first asked for.
        self._transfers: dict[int, TransferLock] = {}
        self._names: dict[int, Lock] = {}

    def make_file(self) -> None:
        """Make the lock file, with space for all tokens, while there is an inode for it."""
        self._of_transfers.make(TOKEN_SIZE * STRIPES)

    def transfer(self, file_id: str) -> TransferLock:
        """The lock of a transfer."""
        return self.stripe(stripe_of(file_id.encode()))

    def stripe(self, stripe: int) -> TransferLock:
        """The lock of the transfers of a stripe."""
        lock = self._transfers.get(stripe)
        if lock is None:  # `setdefault`: two threads that make it get the same one
            lock = self._transfers.setdefault(stripe, TransferLock(self._of_transfers, stripe))
        return lock

    def name(self, place: bytes) -> Lock:
        """The lock of a canonical place in the storage."""
        stripe = stripe_of(place)
        lock = self._names.get(stripe)
        if lock is None:
            made = Lock(self._of_names, name_byte(stripe), f"name-{stripe:02x}")
            lock = self._names.setdefault(stripe, made)
        return lock

    @contextmanager
    def try_stripe(self, stripe: int) -> Iterator[bool]:
        """Hold a stripe of the transfers' locks if it is free; the housekeeper never waits."""
        lock = self.stripe(stripe)
        held = lock.try_acquire()
        try:
            yield held
        finally:
            if held:
                lock.release()

    def own_file(self) -> LockFile:
        """The lock file once more, to be opened for a lock that is held from call to call."""
        return self._of_transfers.again()

    def let_go(self) -> None:
        """After a call of this thread was cut off: let go of all that it has."""
        for lock in (self.journal, *list(self._transfers.values()), *list(self._names.values())):
            lock.let_go()

    def disown(self) -> None:
        for file in self._files:
            file.disown()

    def close(self) -> None:
        for file in self._files:
            file.close()


def stripe_of(text: bytes) -> int:
    """The stripe that every process picks for ``text``."""
    return zlib.crc32(text) % STRIPES
