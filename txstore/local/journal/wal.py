"""The journal's write-ahead log as a file of our own: flushed, kept large enough.

SQLite writes it.  It carries none of SQLite's locks, so it may be opened and closed beside it.
"""

from __future__ import annotations

import errno

from txstore.deadline import Deadline
from txstore.errors import LockTimeoutError
from txstore.local.files.descriptors import close_ours, inode_of
from txstore.local.files.disk import Disk
from txstore.local.files.machine import NO_SPACE, Copies
from txstore.process import forks, threads

#: Bytes of the WAL that are written ahead, so that a cancel still commits on a full disk; and bytes
#: kept in the file ``journal.reserve``, for a store that is opened on one.
RESERVE = 256 * 1024

_LEAST = 16 * 1024
_PATIENCE = 60.0  # seconds that closing waits for a flush
_CHUNK = 1024 * 1024
_RESERVE_FILE = "journal.reserve"
#: Empty files, for their inodes: SQLite makes the WAL and its index when a store is opened.
_INODES = ("journal.spare-0", "journal.spare-1")
#: Bytes kept in each of some more files, where the index needs space when it is changed.
_SPARE = 2 * 1024 * 1024
_SPARES = tuple(f"journal.spare-{number}" for number in range(2, 6))


class WalFile:
    """Our own descriptor of the WAL, closed when the last user lets go of it.

    After a flush that failed the kernel holds pages for clean that the device never got, and tells
    each open file of it only once.  So a descriptor is **proven** only after all of the WAL was
    written anew and flushed through it (where it was empty when this was opened, flushed alone),
    and its name flushed; from then on any failure is told to it, and it is flushed by one thread at
    a time, since of two only one would be told.

    :ivar proven: see above
    :ivar extended: whether it was written ahead through this descriptor
    """

    def __init__(self, disk: Disk, name: str, folder_fd: int) -> None:
        self._disk, self._folder_fd = disk, folder_fd
        self._named = False
        self._process = forks.here()
        self.fd = -1
        self.proven = False
        self.extended = False
        self._flushing = threads.new_lock()
        self._begun = 0
        self._succeeded = 0
        self.fd = disk.open(name, dir_fd=folder_fd)
        found = disk.fstat(self.fd)
        self.inode = inode_of(found)
        # Of an empty one nothing was lost; what fails from now on this descriptor is told.
        self._in_doubt = found.st_size > 0

    def flush(self, deadline: Deadline, path: str) -> bool:
        """Make durable what is in the WAL now; one flush serves all who waited for it to begin.

        :return: ``False`` where the descriptor is not proven (any more): nothing is known
        :raises OSError: the flush failed
        """
        needed = self._begun + 1
        flushing = self._flushing
        if not (flushing.acquire(blocking=False) or flushing.acquire(timeout=deadline.left())):
            raise LockTimeoutError(path, deadline.timeout)
        try:
            if not self.proven:
                return False
            if self._succeeded < needed:
                self._begun = this = self._begun + 1
                try:
                    self._disk.flush(self.fd)
                except BaseException:
                    self.doubt()
                    raise
                self._succeeded = this
            return True
        finally:
            self._flushing.release()

    def is_flushed_here(self) -> bool:
        """Whether this thread is in the middle of a flush."""
        return threads.is_mine(self._flushing)

    def doubt(self) -> None:
        """Take nothing that is in it for flushed."""
        self.proven, self._in_doubt = False, True

    def write_anew(self) -> None:
        """Write all of the WAL as it is read, and flush it and its name.  The journal lock is
        held: nobody else writes, and readers see the same bytes.

        SQLite flushes the name of a WAL that it makes, and says nothing where that fails.  Without
        the name a power loss takes all that is in the WAL, or brings an older WAL back.
        """
        with self._flushing:
            if not self._named:
                self._disk.flush_folder(self._folder_fd)
                self._named = True
            if self._in_doubt:
                size, offset = self._disk.fstat(self.fd).st_size, 0
                while part := self._disk.pread(self.fd, min(_CHUNK, size - offset), offset):
                    offset += self._disk.pwrite(self.fd, part, offset)
            self._in_doubt = True  # until the flush says otherwise
            self._disk.flush(self.fd)
            self._in_doubt, self.proven = False, True

    def extend(self) -> None:
        """Write ahead, to a multiple of the reserve.  Zeros are no frames: SQLite ends its reading
        there.  The journal lock is held.

        The first reserve is for a full disk.  More of it is for speed, as in
        ``StagedFile.write_ahead``.
        """
        size = self._disk.fstat(self.fd).st_size
        end = max(RESERVE, size + -size % RESERVE)
        try:
            while size < end:
                size += self._disk.pwrite(self.fd, bytes(end - size), size)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
        self.extended = True

    def unshare(self) -> None:
        """Have the reserve for itself again where a snapshot, or a copy, has it too: what is
        overwritten then needs space.  The same bytes are written over it; the journal lock is held,
        or they would go over what another worker commits.

        They are not flushed: on the device the old blocks have them, too.
        """
        if not self._disk.shares_blocks(self.fd):
            return
        part, done = self._disk.pread(self.fd, RESERVE, 0), 0
        try:
            while done < len(part):
                done += self._disk.pwrite(self.fd, part[done:], done)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise

    def claim(self) -> None:
        """Allocate as much of the reserve as there is space for.  Changes no byte, so it needs no
        lock."""
        size = RESERVE
        while size >= _LEAST:
            try:
                self._disk.allocate(self.fd, size)
                return
            except OSError as error:
                if error.errno not in NO_SPACE:
                    raise
            size //= 2

    def close(self) -> None:
        """Close the descriptor, once; never under somebody who flushes it, or who waits to."""
        if not self._flushing.acquire(timeout=_PATIENCE):
            return  # a Ctrl-C cut off a flush at a bad moment: it stays open
        fd, self.fd, self.proven = self.fd, -1, False
        self._flushing.release()
        if fd >= 0:
            self._disk.close(fd)

    def let_go(self) -> None:
        """After a call of this thread was cut off: nothing is known of what it was flushing."""
        if threads.is_mine(self._flushing):
            self.doubt()
            threads.let_go(self._flushing)

    def disown(self) -> None:
        """Let go of a descriptor that another process opened, or that was closed by its number."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            close_ours(self._disk, fd, self.inode)

    def __del__(self) -> None:
        if self.fd >= 0 and forks.is_here(self._process):
            self.close()


def make_reserve(disk: Disk, folder_fd: int, mode: int, *, copies: Copies = Copies.NEVER) -> None:
    """Keep space for the WAL's first pages, and inodes for the files that SQLite makes; if there
    is none now, another time.

    :param copies: when the file system copies what is overwritten: then the index needs space
        again (``Index.touch``), and what a snapshot, or a copy, has too is kept anew
    """
    wanted = [(_RESERVE_FILE, RESERVE), *((name, 0) for name in _INODES)]
    if copies:
        wanted += [(name, _SPARE) for name in _SPARES]
    for name, size in wanted:
        if copies and size:
            _drop_shared(disk, folder_fd, name)
        _keep(disk, folder_fd, name, mode, size)


def _keep(disk: Disk, folder_fd: int, name: str, mode: int, wanted: int) -> None:
    try:
        if disk.stat(name, dir_fd=folder_fd).st_size >= wanted:
            return
        fd = disk.open(name, dir_fd=folder_fd)
    except FileNotFoundError:
        try:
            fd = disk.create(name, mode, dir_fd=folder_fd)
        except OSError as error:
            if error.errno in (*NO_SPACE, errno.EEXIST):
                return
            raise
    try:
        size = disk.fstat(fd).st_size
        if size == 0:
            disk.chmod(fd, mode)
        if wanted > RESERVE:
            disk.allocate(fd, wanted)
            return
        while size < wanted:
            size += disk.pwrite(fd, bytes(wanted - size), size)
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        disk.unlink(name, dir_fd=folder_fd)
    finally:
        disk.close(fd)


def _drop_shared(disk: Disk, folder_fd: int, name: str) -> None:
    """Remove what a snapshot, or a copy, has too: it would give nothing back."""
    try:
        fd = disk.open(name, dir_fd=folder_fd, write=False)
    except FileNotFoundError:
        return
    try:
        shared = disk.shares_blocks(fd)
    finally:
        disk.close(fd)
    if shared:
        _give(disk, folder_fd, name)


def release_reserve(disk: Disk, folder_fd: int) -> bool:
    """Give back what is kept for a full disk; ``False`` where there is nothing."""
    given = [_give(disk, folder_fd, name) for name in (_RESERVE_FILE, *_INODES)]
    return any(given) or give_spare(disk, folder_fd)


def give_spare(disk: Disk, folder_fd: int) -> bool:
    """Give back a part of what is kept for the index; ``False`` where nothing is left."""
    return any(_give(disk, folder_fd, name) for name in _SPARES)


def _give(disk: Disk, folder_fd: int, name: str) -> bool:
    try:
        disk.unlink(name, dir_fd=folder_fd)
    except (FileNotFoundError, IsADirectoryError):
        return False
    return True
