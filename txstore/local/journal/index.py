"""SQLite's index of its write-ahead log: the file ``journal.db-shm``, with all of its blocks there.

SQLite maps this file into memory.  A page of it may have no block behind it, or one that is copied
when it is written.  Touching such a page on a full disk is a SIGBUS: it kills the process, whose
only mistake was to embed us.  SQLite itself writes one byte into each 4 KiB of the file, which
leaves holes where blocks are smaller.  And it cuts the file to nothing whenever it is the first to
open it.  So the file is filled here, before SQLite opens it, and kept from being cut.

SQLite finds out who is first by a lock on one byte of the file, which each connection holds shared
(its "dead man switch").  We take the same lock, for our open file, not for the process.  If we get
it exclusively nobody has the index, and it is begun anew.  If we get it shared somebody has, and it
is left as it is.  While we hold it SQLite finds that it is not the first.

Closing any descriptor of the file drops all of the process's POSIX locks on it, SQLite's too.  So
this process has one descriptor of it, closed when none of its managers has a connection any more.
"""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from txstore.deadline import Deadline
from txstore.errors import JournalError, LockTimeoutError
from txstore.local.files.descriptors import Inode, close_ours, inode_of, leads_to
from txstore.local.files.disk import Disk
from txstore.local.files.machine import Copies
from txstore.process import threads
from txstore.process.strikes import pass_on

#: Byte of the file on which each connection holds a shared lock, for as long as it has it open.
_IN_USE = 128
#: Bytes of index for so many pages in the WAL, and bytes of a page there at the least.
_REGION, _PAGES, _PAGE = 32 * 1024, 4096, 1024 + 24
_PAUSE = 0.001
#: Bytes that must be left where the file system copies what is overwritten, and seconds for which
#: it is taken for granted that they are.
ROOM, _GOOD_FOR = 1024 * 1024, 0.01


def size_for(wal: int) -> int:
    """Bytes of index that a WAL of so many bytes needs, and one region more to grow into."""
    # The index's own header stands in the place of 34 pages.
    return _REGION * ((wal // _PAGE + 34) // _PAGES + 2)


@dataclass
class _Open:
    """This process's descriptors of one index (mostly one), and how many connections need them."""

    disk: Disk
    fds: list[int]
    size: int = 0
    users: int = 0


@dataclass
class _Process:
    """What one process has open.  A forked child has its own: its parent's is not its to close.

    :ivar left: indexes that a connection was let go of; by the collector too, which runs at any
        moment of any thread and so waits for nobody
    """

    pid: int = field(default_factory=os.getpid)
    mutex: Any = field(default_factory=threads.new_lock)
    indexes: dict[Inode, _Open] = field(default_factory=dict)
    left: deque[Inode] = field(default_factory=deque)

    def settle(self) -> None:
        """Close what nobody needs any more; whoever holds the mutex does it after that."""
        while self.left and threads.acquire(self.mutex, 0):
            try:
                while self.left:
                    inode = self.left.popleft()
                    one = self.indexes.get(inode)
                    if one is not None:
                        one.users -= 1
                        self.close_unused(inode)
            finally:
                self.mutex.release()

    def close_unused(self, inode: Inode) -> None:
        one = self.indexes[inode]
        if one.users == 0:
            del self.indexes[inode]
            for fd in one.fds:
                close_ours(one.disk, fd, inode)


_processes = [_Process()]


def _this_process() -> _Process:
    if _processes[-1].pid != os.getpid():
        _processes.append(_Process())
    return _processes[-1]


class Index:
    """One connection's part in the index of its journal; held from before SQLite opens it until
    after it has closed it.

    :param path: of the journal
    :param copies: when the file system copies what is overwritten (``Home.copies``)
    :ivar enough_for: bytes of a WAL for which ``grow`` has nothing to do
    """

    def __init__(self, disk: Disk, path: str, *, copies: Copies) -> None:
        self._disk, self._journal, self._path = disk, path, path + "-shm"
        self._copies = copies
        self._held: tuple[_Process, Inode] | None = None
        self.enough_for = 0
        self._mapped: list[tuple[int, int]] = []
        self._good_until = 0.0

    def hold(self, deadline: Deadline, *, growth: int = 0) -> None:
        """Have all blocks of the index, before SQLite opens it.

        :param growth: bytes that one transaction may add to the WAL, if that is much
        :raises JournalError: there is no space for them
        """
        process = _this_process()
        try:
            size = size_for(self._wal_size() + growth)
            with process.mutex:
                while (inode := self._try(process, size, deadline)) is None:
                    pass  # the last connection of another process took the file away
                process.indexes[inode].users += 1
                self._held = process, inode
            process.settle()
        except LockTimeoutError:
            raise
        except OSError as error:
            pass_on(error)
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                return  # SQLite cannot write it either, and says so better
            number = error.errno or errno.EIO
            raise JournalError(number, os.strerror(number), self._path) from error

    def join(self) -> None:
        """For a connection that may only read: if this process has the index open, keep it so.  To
        close it would drop that connection's locks."""
        process = _this_process()
        with process.mutex:
            inode = self._known(process)
            if inode is not None:
                process.indexes[inode].users += 1
                self._held = process, inode

    def _wal_size(self) -> int:
        try:
            return self._disk.stat(self._journal + "-wal").st_size
        except FileNotFoundError:
            return 0

    def _try(self, process: _Process, size: int, deadline: Deadline) -> Inode | None:
        known = self._known(process)
        if known is not None:
            self._grow(process.indexes[known], size)
            return known
        owner = self._disk.stat(self._journal)
        fd = self._disk.open_index(self._path, owner.st_mode & 0o777)
        try:
            found = self._disk.fstat(fd)
        except BaseException:
            self._disk.close(fd)
            raise
        inode = inode_of(found)
        one = process.indexes.setdefault(inode, _Open(self._disk, []))
        one.fds.append(fd)
        try:
            if found.st_size == 0:
                self._disk.give(fd, owner)
            self._fill(fd, size, deadline)
            if self._copies:
                # What SQLite does next; here it is an error, and no signal.
                self._want_room()
                self._disk.touch_file(fd, size)
            one.size = size
            if self._inode() == inode:
                return inode
        except BaseException:
            process.close_unused(inode)
            raise
        process.close_unused(inode)
        return None

    def _known(self, process: _Process) -> Inode | None:
        """The index at the path, if this process has it open already."""
        inode = self._inode()
        if inode is None or inode not in process.indexes:
            return None
        known = process.indexes[inode]
        if leads_to(known.disk, known.fds[0], inode):
            return inode
        del process.indexes[inode]  # somebody closed our descriptors: they are not ours any more
        return None

    def _inode(self) -> Inode | None:
        try:
            return inode_of(self._disk.stat(self._path))
        except FileNotFoundError:
            return None

    def _fill(self, fd: int, size: int, deadline: Deadline) -> None:
        while not self._disk.try_lock_byte(fd, _IN_USE, shared=False):
            if self._disk.try_lock_byte(fd, _IN_USE, shared=True):
                # Somebody uses it: the blocks that it lacks are added, no byte is changed.
                self._disk.allocate(fd, size)
                return
            if deadline.left() == 0.0:
                raise LockTimeoutError(self._path, deadline.timeout)
            self._disk.pause(min(_PAUSE, deadline.left()))  # somebody is filling it
        if self._copies is Copies.ALWAYS:
            self._disk.overwrite_in_place(fd)
        # Zeros are an index that SQLite makes anew.  Written over what is there, so that blocks
        # that the file has are not given up on a full disk.
        done = 0
        while done < size:
            done += self._disk.pwrite(fd, bytes(size - done), done)
        self._disk.try_lock_byte(fd, _IN_USE, shared=True)

    def grow(self, wal: int) -> None:
        """Have the blocks for a WAL of so many bytes; changes no byte, so it needs no lock.

        :raises OSError: there is no space for them
        """
        if self._held is not None:
            process, inode = self._held
            one = process.indexes.get(inode)
            if one is not None:
                self._grow(one, size_for(wal))
                self.enough_for = wal

    def _grow(self, one: _Open, size: int) -> None:
        if size > one.size:
            self._disk.allocate(one.fds[0], size)
            one.size = size

    def touch(self) -> None:
        """Before SQLite touches what it mapped: have the kernel find room for copies of its pages,
        which is an error here and a signal there.

        They need room again as soon as they are written out, which a write to any file on a full
        disk may cause, SQLite's own to the WAL too.  So this is done before each use, and wants
        more room than that takes.

        :raises OSError: there is no room
        """
        now = time.monotonic()
        if not self._copies or self._held is None or now < self._good_until:
            return
        self._want_room()
        if not self._mapped:
            self._mapped = self._disk.mapped(self._held[1][1])
        for address, size in self._mapped:
            self._disk.touch_memory(address, size)
        self._good_until = now + _GOOD_FOR

    def _want_room(self) -> None:
        if self._copies is not Copies.ALWAYS:
            return  # what was copied once is nobody else's any more
        lacking = self._disk.lack_of_space(os.path.dirname(self._path), ROOM)
        if lacking:
            raise OSError(lacking, os.strerror(lacking))

    def let_go(self) -> None:
        """After SQLite has closed it."""
        self._mapped = []
        held, self._held, self.enough_for = self._held, None, 0
        if held is not None and held[0] is _this_process():
            held[0].left.append(held[1])
            held[0].settle()

    def let_go_locks(self) -> None:
        """After a call of this thread was cut off."""
        threads.let_go(_this_process().mutex)

    def abandon(self) -> None:
        """Forget it without a call to the kernel: nobody knows what its descriptors lead to."""
        self._held, self._mapped = None, []


@contextmanager
def held(
    disk: Disk, path: str, deadline: Deadline, *, copies: Copies, growth: int = 0
) -> Iterator[None]:
    """Hold the index of a journal while a connection of the body's own is open."""
    index = Index(disk, path, copies=copies)
    index.hold(deadline, growth=growth)
    try:
        yield
    finally:
        index.let_go()
