"""The file that all of a store's locks are in: what stands where, and how a manager has it open."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from txstore.errors import ReplacedError
from txstore.local.files.descriptors import Descriptor, close_ours, inode_of
from txstore.local.files.disk import Disk
from txstore.process import forks
from txstore.process.strikes import ignored

STRIPES = 64

#: The lock file, below the folder of locks.
LOCK_FILE = "locks"
#: Bytes of a holder's token.  The tokens of all stripes stand in the file one after the other.
TOKEN_SIZE = 16
#: Byte of the lock file that is the journal's lock.
JOURNAL_BYTE = 0
#: Each lock's byte is two behind the one before: the kernel joins locks that touch, and parting
#: them again may fail.
_STEP = 2

#: Makes what is entered for as long as a lock is waited for.
Waiting = Callable[[], AbstractContextManager[object]]


class Holder(Protocol):
    """A lock in the file.

    :ivar held_by: the descriptor by which it was last taken
    """

    held_by: Descriptor | None


class LockFile:
    """The lock file, as one manager opened it for one class of its locks, at first use; kept open.

    A forked child's copy of the descriptor shares the parent's locks: unlocking one would free the
    parent's, and keeping it open holds them beyond the parent's death (``disown``).

    :param folder: absolute path of the folder that it lies in
    :ivar opened: its descriptor, and the file that it leads to
    :ivar token: another one each time it is opened
    :ivar all: all descriptors that are open, with those of files that were replaced
    :ivar stuck: of these, those by which a lock is held that could not be freed
    :ivar holders: locks that are held
    :ivar classes: the same file, as it was opened for each class of locks
    :ivar waiting: makes what is held around a wait
    """

    def __init__(
        self, disk: Disk, folder: str, folder_fd: int, mode: int, waiting: Waiting = nullcontext
    ) -> None:
        self.disk, self._folder, self._folder_fd, self._mode = disk, folder, folder_fd, mode
        self.waiting = waiting
        self.path = os.path.join(folder, LOCK_FILE)
        self.opened: Descriptor | None = None
        self.holders: set[Holder] = set()
        self.classes = [self]
        self.token = b"-"
        self.all: list[Descriptor] = []
        self.stuck: list[Descriptor] = []
        self._process = forks.here()

    def open(self) -> Descriptor:
        """Its descriptor, and the file that it leads to; made if there is none.

        :raises ReplacedError: its folder is gone
        """
        try:
            fd = self.disk.open_or_create(LOCK_FILE, self._mode, dir_fd=self._folder_fd)
        except FileNotFoundError:
            raise ReplacedError(self.path, "lock file") from None
        try:
            found = self.disk.fstat(fd)
            if self._mode & ~found.st_mode and found.st_uid == os.geteuid():
                # The umask took bits that a group needs.
                self.disk.chmod(fd, found.st_mode & 0o777 | self._mode)
        except BaseException:
            self.disk.close(fd)
            raise
        # Not noted above: cut off right after that, it would be closed here and once more later.
        opened = fd, inode_of(found)
        self.all.append(opened)
        self.token = secrets.token_bytes(TOKEN_SIZE)
        self.opened = opened
        return opened

    def again(self) -> LockFile:
        """The same file, with a descriptor of its own."""
        return LockFile(self.disk, self._folder, self._folder_fd, self._mode, self.waiting)

    def was_replaced(self) -> None:
        """Have each class of locks open it anew: one error is enough.  The descriptors stay open
        until ``close``, for the locks that are held by them."""
        for file in self.classes:
            file.opened = None

    def give_up(self, opened: Descriptor) -> None:
        """A lock could not be freed: kept, nobody else would ever have it.  Closing the descriptor
        frees it, once no other lock is held by it, since that frees them all."""
        if self.opened is opened:
            self.opened = None
        if opened not in self.stuck:
            self.stuck.append(opened)

    def close_stuck(self) -> None:
        """Close what was given up, as soon as that frees no lock that is held."""
        for opened in list(self.stuck):
            if not any(other.held_by is opened for other in list(self.holders)):
                self.stuck.remove(opened)
                self.all.remove(opened)
                self.disk.close(opened[0])

    def make(self, size: int) -> None:
        """Have the lock file, of so many bytes; what stands in it stays."""
        fd, _ = self.opened or self.open()
        if self.disk.size(fd) < size:
            with ignored:  # then nothing is kept in hand
                self.disk.allocate(fd, size)

    def disown(self) -> None:
        """Close inherited descriptors; one that was closed already may be another file's now."""
        for fd, inode in self._taken_away():
            close_ours(self.disk, fd, inode)

    def close(self) -> None:
        """Close it, and with it all locks.  Waits for nobody: a manager can be collected in the
        middle of a fork that is letting go of its journal, by the thread that holds that lock."""
        for fd, _ in self._taken_away():
            self.disk.close(fd)

    def __del__(self) -> None:
        if forks.is_here(self._process):
            self.close()

    def _taken_away(self) -> Iterator[Descriptor]:
        """All descriptors, each before it is closed."""
        self.opened = None
        self.stuck.clear()
        while self.all:
            yield self.all.pop()


def transfer_byte(stripe: int) -> int:
    """Byte of the lock file that is the lock of a stripe of transfers."""
    return JOURNAL_BYTE + _STEP * (1 + stripe)


def name_byte(stripe: int) -> int:
    """Byte of the lock file that is the lock of a stripe of names."""
    return transfer_byte(STRIPES + stripe)


def consumer_byte(key: int) -> int:
    """Byte of the lock file that is the turn of a consumer, by the key of its row: it is held for
    long, so none is shared.  There need be no such byte in the file."""
    return name_byte(STRIPES + key)
