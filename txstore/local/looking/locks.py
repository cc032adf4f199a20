"""The locks of a store, as one who only looks holds them: shared with others who look, against
those who work."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from txstore.deadline import Deadline
from txstore.errors import LockTimeoutError
from txstore.local.files.disk import Disk
from txstore.local.files.folders import LOCKS
from txstore.local.lockfile import JOURNAL_BYTE, LOCK_FILE, name_byte, transfer_byte
from txstore.local.locks import stripe_of

T = TypeVar("T")

_PAUSE = 0.001  # seconds


class SharedLocks:
    """Holds locks for reading, each for a moment.  For one thread.

    Where there is no lock file nobody works: who begins to makes it first, and it stays.

    :param folder: descriptor of the working dir
    :param path: absolute path of the folder of locks
    """

    def __init__(self, disk: Disk, folder: int, path: str) -> None:
        self._disk, self._folder = disk, folder
        self._name = os.path.join(LOCKS, LOCK_FILE)
        self._path = os.path.join(path, LOCK_FILE)
        self._fd = -1

    def are_there(self) -> bool:
        """Whether there is a lock file, so that somebody may be working."""
        if self._fd < 0:
            try:
                self._fd = self._disk.open(self._name, dir_fd=self._folder, write=False)
            except (FileNotFoundError, NotADirectoryError):
                return False
        return True

    def with_transfer(self, file_id: str, deadline: Deadline, look: Callable[[], T]) -> T:
        """What is seen while no worker can touch a transfer.

        :raises LockTimeoutError: a worker is busy with it for too long
        """
        return self.with_stripe(stripe_of(file_id.encode()), deadline, look)

    def with_stripe(self, stripe: int, deadline: Deadline, look: Callable[[], T]) -> T:
        """Likewise, of all transfers of a stripe."""
        return self._with(transfer_byte(stripe), "transfer", deadline, look)

    def with_name(self, place: bytes, deadline: Deadline, look: Callable[[], T]) -> T:
        """What is seen while no worker can publish at a place."""
        return self._with(name_byte(stripe_of(place)), "name", deadline, look)

    def with_journal(self, deadline: Deadline, look: Callable[[], T]) -> T:
        """What is seen while no worker can write the journal, or make or remove its files."""
        return self._with(JOURNAL_BYTE, "journal", deadline, look)

    def _with(self, byte: int, what: str, deadline: Deadline, look: Callable[[], T]) -> T:
        while True:
            guarded = self.are_there()
            while not self._try_hold(byte):
                self.pause(what, deadline)
            try:
                seen = look()
            finally:
                self._let_go(byte)
            if guarded or not self.are_there():
                return seen

    def try_journal(self) -> bool:
        """Take the journal's lock, if nobody writes; to be let go of by ``let_go_of_journal``."""
        return self._try_hold(JOURNAL_BYTE)

    def let_go_of_journal(self) -> None:
        self._let_go(JOURNAL_BYTE)

    def pause(self, what: str, deadline: Deadline) -> None:
        """Wait for a moment before the next attempt.

        :raises LockTimeoutError: it was the last
        """
        if deadline.left() == 0.0:
            raise LockTimeoutError(self._path, deadline.timeout, what)
        self._disk.pause(min(_PAUSE, deadline.left()))

    def _try_hold(self, byte: int) -> bool:
        return not self.are_there() or self._disk.try_lock_byte(self._fd, byte, shared=True)

    def _let_go(self, byte: int) -> None:
        if self._fd >= 0:
            self._disk.unlock(self._fd, byte)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._disk.close(fd)
