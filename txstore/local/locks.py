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

import os
import random
import secrets
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

from txstore.deadline import Deadline
from txstore.errors import LockTimeoutError, ReplacedError
from txstore.local.files.descriptors import close_ours, inode_of
from txstore.local.files.disk import Disk
from txstore.process import forks, threads

STRIPES = 64

#: The lock file, below the folder of locks.
LOCK_FILE = "locks"
#: Bytes of a holder's token.  The tokens of all stripes stand in the file one after the other.
_TOKEN_SIZE = 16
#: Byte of the lock file that is the journal's lock.
JOURNAL_BYTE = 0
#: Each lock's byte is two behind the one before: the kernel joins locks that touch, and parting
#: them again may fail.
_STEP = 2

_L = TypeVar("_L", bound="Lock")

#: Pauses between attempts at a kernel lock, in seconds: short enough that a lock held for one
#: commit costs about that, growing so that a long holder is not hammered.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.00005, 0.002


def _nothing() -> None:
    pass


class Lock:
    """One thread lock and one byte of the lock file, which is opened at first use and kept open.

    A forked child's copy of the descriptor shares the parent's lock: unlocking it would free the
    parent's, and keeping it open holds the lock beyond the parent's death (``disown``).

    :ivar name: which lock it is, for messages to people
    :ivar on_replaced: called where the lock file was found to be another one
    """

    on_replaced: Callable[[], None] = staticmethod(_nothing)

    def __init__(
        self, disk: Disk, folder: str, folder_fd: int, mode: int, byte: int, name: str
    ) -> None:
        self._disk, self._folder_fd, self._mode, self._byte = disk, folder_fd, mode, byte
        self.name = name
        self.path = os.path.join(folder, LOCK_FILE)
        self._mutex = threads.new_lock()
        self._fd: int | None = None
        self._inode: tuple[int, int] | None = None
        self._process = forks.here()

    def acquire(self, deadline: Deadline) -> None:
        """Wait for the lock, at most until ``deadline``.

        :raises LockTimeoutError: it was not had in time
        :raises ReplacedError: the lock's file is not the one that others would open
        """
        # A thread waits here without asking the kernel: its lock on a shared descriptor would
        # succeed at once, whoever else in this process holds it.
        if not threads.acquire(self._mutex, deadline.left()):
            raise LockTimeoutError(self.path, deadline.timeout, self.name)
        try:
            fd = self._descriptor()
            pause = _FIRST_PAUSE
            while not self._disk.try_lock(fd, self._byte):
                if deadline.left() == 0.0:
                    raise LockTimeoutError(self.path, deadline.timeout, self.name)
                self._disk.pause(min(pause * (0.5 + random.random()), deadline.left()))
                pause = min(pause * 2, _LONGEST_PAUSE)
            try:
                self.check_in_place()
                self._taken(fd)
            except ReplacedError:
                self._drop()
                self.on_replaced()
                raise
            except BaseException:
                self._drop()
                raise
        except BaseException:
            self._mutex.release()
            raise

    def try_acquire(self) -> bool:
        """Take the lock if nobody has it."""
        try:
            self.acquire(Deadline(0.0))
        except LockTimeoutError:
            return False
        return True

    def release(self) -> None:
        try:
            if self._fd is not None:
                self._disk.unlock(self._fd, self._byte)
        except OSError:
            self._drop()  # that frees it, too; kept, nobody else would ever have it
        finally:
            self._mutex.release()

    def held(self, deadline: Deadline) -> _Held[Lock]:
        """``with``: hold the lock; what ``acquire`` raises."""
        return _Held(self, deadline)

    def check_in_place(self) -> None:
        """Check, while holding the lock, that its path still leads to the locked file.

        :raises ReplacedError: it does not, so others may hold "the same" lock
        """
        try:
            # By its whole path: a folder that was moved or replaced is noticed too.
            found = self._disk.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            raise ReplacedError(self.path, "lock file") from None
        if inode_of(found) != self._inode:
            raise ReplacedError(self.path, "lock file")

    def let_go(self) -> None:
        """After a call of this thread was cut off: let go of the lock, if the thread has it.  May
        be cut off itself, and called again."""
        if threads.is_mine(self._mutex):
            if self._fd is not None:
                with suppress(OSError):
                    self._disk.unlock(self._fd, self._byte)
            threads.let_go(self._mutex)

    def disown(self) -> None:
        """Close an inherited descriptor; one that was closed already may be another file's now."""
        fd, self._fd = self._fd, None
        if fd is not None:
            close_ours(self._disk, fd, self._inode)

    def close(self) -> None:
        """Close the lock's file.  Nobody waits here: a manager can be collected in the middle of a
        fork that is letting go of its journal, by the thread that holds this lock."""
        if threads.acquire(self._mutex, 0):
            self._drop()
            self._mutex.release()

    def __del__(self) -> None:
        if forks.is_here(self._process):
            self._drop()  # where `close` found it held

    def make_file(self, size: int) -> None:
        """Have the lock file, of so many bytes; what stands in it stays."""
        fd = self._descriptor()
        if self._disk.size(fd) < size:
            with suppress(OSError):  # then nothing is kept in hand
                self._disk.allocate(fd, size)

    def _taken(self, fd: int) -> None:
        """Called when the lock was just taken."""

    def _descriptor(self) -> int:
        return self._open() if self._fd is None else self._fd

    def _open(self) -> int:
        try:
            fd = self._disk.open_or_create(LOCK_FILE, self._mode, dir_fd=self._folder_fd)
        except FileNotFoundError:  # the folder itself is gone
            raise ReplacedError(self.path, "lock file") from None
        try:
            found = self._disk.fstat(fd)
            if self._mode & ~found.st_mode and found.st_uid == os.geteuid():
                # The umask took bits that a group needs.
                self._disk.chmod(fd, found.st_mode & 0o777 | self._mode)
        except BaseException:
            self._disk.close(fd)
            raise
        self._fd, self._inode = fd, inode_of(found)
        return fd

    def _drop(self) -> None:
        if self._fd is not None:
            with suppress(OSError):
                # First: cut off in between, the lock is free.
                self._disk.unlock(self._fd, self._byte)
        fd, self._fd, self._inode = self._fd, None, None
        if fd is not None:
            self._disk.close(fd)


class TransferLock(Lock):
    """A lock of which the file tells the next holder, among the living, who the last one was.

    That is said by a random token, which is not flushed.  Rows of transfers are changed only under
    their lock (but for intents, see ``Intents.settle``), so a row that was read or written in an
    earlier call is current for as long as ``turn`` is the same.

    :ivar turn: goes up each time somebody else may have held the lock in between
    """

    turn = 0
    _token = b"-"

    def __init__(self, disk: Disk, folder: str, folder_fd: int, mode: int, stripe: int) -> None:
        byte, name = transfer_byte(stripe), f"transfer-{stripe:02x}"
        super().__init__(disk, folder, folder_fd, mode, byte, name)
        self._token_at = _TOKEN_SIZE * stripe

    def begin_turn(self) -> None:
        """For a holder that changes rows otherwise than segment by segment, or may fail half way:
        nothing that was kept before is current."""
        self.turn += 1

    def _taken(self, fd: int) -> None:
        try:
            found = self._disk.last_holder(fd, self._token_at)
        except OSError:
            found = b""
        if found != self._token:
            self.begin_turn()
            try:
                self._disk.sign(fd, self._token, self._token_at)
            except OSError:
                # On a full disk nothing is taken for current; whoever held the lock before must
                # not take it for its own still.  All tokens go: others read their rows again.
                self._disk.truncate(fd, 0)

    def _open(self) -> int:
        # Each descriptor has its own: a forked child has let go of its parent's.
        self._token = secrets.token_bytes(_TOKEN_SIZE)
        return super()._open()


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
    """All locks of one manager.  Thread-safe; ``disown`` in a forked child."""

    def __init__(self, disk: Disk, folder: str, folder_fd: int, mode: int) -> None:
        where = disk, folder, folder_fd
        self.journal = Lock(*where, mode, JOURNAL_BYTE, "journal")
        self._transfers = [TransferLock(*where, mode, stripe) for stripe in range(STRIPES)]
        self._names = [
            Lock(*where, mode, name_byte(stripe), f"name-{stripe:02x}") for stripe in range(STRIPES)
        ]

        close = weakref.WeakMethod(self.close)  # no cycle, which only the collector ends

        def open_anew() -> None:
            (close() or _nothing)()

        for lock in self._all():
            lock.on_replaced = open_anew  # one error for all of them

    def make_file(self) -> None:
        """Make the lock file, with space for all tokens, while there is an inode for it."""
        self.journal.make_file(_TOKEN_SIZE * STRIPES)

    def transfer(self, file_id: str, deadline: Deadline) -> _Held[TransferLock]:
        """``with``: hold the lock of a transfer."""
        return _Held(self._transfers[stripe_of(file_id.encode())], deadline)

    def name(self, place: bytes, deadline: Deadline) -> _Held[Lock]:
        """``with``: hold the lock of a canonical place in the storage."""
        return _Held(self._names[stripe_of(place)], deadline)

    @contextmanager
    def try_stripe(self, stripe: int) -> Iterator[bool]:
        """Hold a stripe of the transfers' locks if it is free; the housekeeper never waits."""
        lock = self._transfers[stripe]
        held = lock.try_acquire()
        try:
            yield held
        finally:
            if held:
                lock.release()

    def let_go(self) -> None:
        """After a call of this thread was cut off: let go of all that it has."""
        for lock in self._all():
            lock.let_go()

    def disown(self) -> None:
        for lock in self._all():
            lock.disown()

    def close(self) -> None:
        for lock in self._all():
            lock.close()

    def _all(self) -> Iterator[Lock]:
        yield self.journal
        yield from self._transfers
        yield from self._names


def stripe_of(text: bytes) -> int:
    """The stripe that every process picks for ``text``."""
    return zlib.crc32(text) % STRIPES


def transfer_byte(stripe: int) -> int:
    """Byte of the lock file that is the lock of a stripe of transfers."""
    return JOURNAL_BYTE + _STEP * (1 + stripe)


def name_byte(stripe: int) -> int:
    """Byte of the lock file that is the lock of a stripe of names."""
    return transfer_byte(STRIPES + stripe)
