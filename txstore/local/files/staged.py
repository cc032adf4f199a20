"""The bytes of one unfinished transfer, in its staging file; and those files that are kept in hand.

A file with more than one link is never written or cut.  After a power loss in a rename both names
may be there, and a cut would tear the published file.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Callable

from txstore import digest
from txstore.digest import Hasher
from txstore.errors import StagingDamagedError
from txstore.local.files.descriptors import close_ours, inode_of
from txstore.local.files.disk import UNKNOWN, Disk, settled
from txstore.local.files.machine import NO_SPACE
from txstore.local.journal.rows import Transfer
from txstore.process import threads
from txstore.process.strikes import ignored

if sys.version_info >= (3, 11):
    from typing import Self
else:
    from typing_extensions import Self  # which comes with SQLAlchemy

_KEPT_OPEN = 32  # files that a manager keeps in hand
_CHUNK = 1024 * 1024  # bytes per read when staged bytes are hashed again
_MANY, _AHEAD = 256 * 1024, 1024 * 1024  # bytes; see `write_ahead`


class InHand:
    """Open staging files that nobody is using now, by their transfers, for those that come back.
    Each is taken out while it is used.  Thread-safe."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._mutex = threads.new_lock()
        self._files: OrderedDict[str, StagedFile] = OrderedDict()

    def take(self, file_id: str, turn: int) -> tuple[Transfer, StagedFile] | None:
        """A transfer as an earlier call left it, if nobody else has held its lock since.

        :param turn: the lock's
        """
        with self._mutex:
            found = self._files.get(file_id)
            if found is None or found.row is None or found.turn != turn:
                return None
            if self._disk.size(found.fd) != found.size:
                return None  # `Staging.open` finds out what happened to it
            return found.row, self._files.pop(file_id)

    def take_out(self, file_id: str) -> StagedFile | None:
        """A transfer's file, whatever has become of it."""
        with self._mutex:
            return self._files.pop(file_id, None)

    def keep(self, staged: StagedFile) -> None:
        """Keep a file for its transfer's next segment, if it is open."""
        if staged.fd < 0:
            return
        staged.kept_at = time.monotonic()
        with self._mutex:
            unused = self._files.pop(staged.file_id, None)  # of an earlier transfer with that id
            self._files[staged.file_id] = staged
            if len(self._files) > _KEPT_OPEN:
                unused = self._files.popitem(last=False)[1]
        if unused is not None:
            unused.close()

    def close_some(self, goes: Callable[[StagedFile], bool]) -> None:
        """Close those that go."""
        with self._mutex:
            going = [one for one in self._files.values() if goes(one)]
            for one in going:
                del self._files[one.file_id]
        for one in going:
            one.close()

    def let_go(self) -> None:
        """After a call of this thread was cut off."""
        threads.let_go(self._mutex)

    def disown(self) -> None:
        """Let go of files that another process opened, or that were closed by their numbers."""
        while self._files:
            self._files.popitem()[1].disown()


class StagedFile:
    """An open staging file.  Used only by whoever holds its transfer's lock.

    ``with`` it, it is kept in hand at the end; unless the body fails: then its hash may be ahead of
    what was recorded, and it is closed.

    :ivar path: absolute
    :ivar size: bytes in the file
    :ivar inode: its inode number
    :ivar group: id of its group
    :ivar foreign: whether it belongs to another user, of a group that shares the store
    :ivar private: whether a group that shares the store is kept out of it
    :ivar checked_path: the one that ``Publisher.check_early`` let pass last
    :ivar made_there: whether it was made as if in the folder that it is to be renamed into
    :ivar writable: whether it may be written.  Not one that has a second name: that may be a
        published file's or a backup's.  Nor another user's that has a published file's mode
    :ivar hasher: hash of the first ``hasher.total`` bytes, kept for a transfer that comes back
    :ivar setbacks: how often the transfer had gone back when ``hasher`` was right
    :ivar own_from: from this offset on all recorded bytes were written through ``fd``, and no flush
        of them failed.  Others' bytes must not be flushed as they are: if their flush failed, the
        kernel may hold them for clean, and ours would succeed without them
    :ivar row: the transfer's row as it was last recorded here; ``own_from`` is right for that one
    :ivar turn: the turn of the transfer's lock in which the file was last used
    """

    def __init__(
        self,
        disk: Disk,
        file_id: str,
        name: str,
        path: str,
        fd: int,
        found: os.stat_result,
        in_hand: InHand | None = None,
    ) -> None:
        self._disk, self._in_hand = disk, in_hand
        self.file_id, self.name, self.path, self.fd = file_id, name, path, fd
        self._folder = os.path.dirname(path)
        # Version of its folder in which its path was last seen to lead to it.
        self._seen_in_place = UNKNOWN
        self.inode, self.size, self.group = found.st_ino, found.st_size, found.st_gid
        self.foreign = found.st_uid != os.geteuid()
        self.private = not found.st_mode & 0o060
        self.made_there = False
        self._opened = inode_of(found)
        self.checked_path: str | None = None
        self.writable = True
        self.hasher: Hasher | None = None
        self.setbacks = 0
        self.own_from = 0
        self._zeros_end = 0
        self.row: Transfer | None = None
        self.turn = 0
        self.kept_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._in_hand is not None:
            self._in_hand.keep(self)
        else:
            self.close()

    def is_in_place(self) -> bool:
        """Whether others find the same one: by its whole path, so that a folder which was moved or
        replaced is noticed too."""
        version = self._disk.names_version(self._folder)
        if version == self._seen_in_place:
            return True
        try:
            same = self._disk.stat(self.path).st_ino == self.inode
        except (FileNotFoundError, NotADirectoryError):
            same = False
        if same:
            self._seen_in_place = settled(version)
        return same

    def write(self, offset: int, data: bytes) -> None:
        """Put ``data`` at ``offset`` as the file's end.  Not durable before ``flush``."""
        # A worker that died, or a call that failed, may have left bytes past the journal's offset.
        if self.size > offset and self.size != self._zeros_end:
            self.cut(offset)
        end = offset + len(data)
        try:
            self._put(offset, data)
        except OSError:
            # A refused segment must not hold the space that its cancel needs.
            with ignored:
                self._disk.truncate(self.fd, offset)
            self.size = offset
            raise
        self.size = max(self.size, end)

    def cut(self, size: int) -> None:
        """Make ``size`` the file's end."""
        if self.size > size:
            self._disk.truncate(self.fd, size)
        self.size = size

    def write_ahead(self, received: int) -> None:
        """Have zeros after the bytes received so far: the flush of a file that grows costs twice
        that of an overwrite, since the file system commits its own journal, too."""
        if received < _MANY or self._zeros_end > received:
            return
        size = min(received, _AHEAD)
        try:
            self._put(received, bytes(size))
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            self._disk.truncate(self.fd, received)  # others need what is left
        else:
            self.size = self._zeros_end = received + size

    def _put(self, offset: int, data: bytes) -> None:
        done = self._disk.pwrite(self.fd, data, offset) if data else 0
        while done < len(data):
            step = self._disk.pwrite(self.fd, memoryview(data)[done:], offset + done)
            if step == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO), self.path)
            done += step

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``; fewer where the file ends."""
        parts = []
        while size > 0:
            part = self._disk.pread(self.fd, size, offset)
            if not part:
                break
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)

    def start_flush(self) -> None:
        """Have the kernel begin what the next ``flush`` waits for."""
        self._disk.start_flush(self.fd)

    def flush(self) -> None:
        """Make the bytes and the length durable."""
        self._disk.flush(self.fd)

    def flush_all(self) -> None:
        """Make mode, group and time durable too."""
        self._disk.flush_all(self.fd)

    def hash_to(self, hasher: Hasher, end: int, *, rewrite_from: int | None = None) -> bool:
        """Hash the staged bytes from ``hasher.total`` to ``end``.

        :param rewrite_from: bytes from here on are written again as they were read, so that the
            next flush takes them to the device even if an earlier one failed
        :return: whether there were that many
        """
        while hasher.total < end:
            offset = hasher.total
            part = self.read(offset, min(_CHUNK, end - offset))
            if not part:
                return False
            hasher.update(part)
            if rewrite_from is not None and offset + len(part) > rewrite_from:
                self._put(offset, part)
        return True

    def hasher_new(self) -> Hasher:
        """The hash of no bytes, kept from now on."""
        self.hasher = digest.new()
        return self.hasher

    def hasher_at(self, row: Transfer) -> Hasher:
        """The hash of all recorded bytes.

        The state that the journal keeps, or our own of an earlier segment, whichever is further;
        bytes are read again only if the workers since then had no OpenSSL to save the state with.

        :raises StagingDamagedError: the file is too short
        """
        kept = self.hasher if self.setbacks == row.setbacks else None
        if kept is not None and kept.total == row.offset:
            return kept
        candidates = [one for one in (kept, digest.load(row.state)) if one is not None]
        fitting = [one for one in candidates if one.total <= row.offset]
        hasher = max(fitting, key=lambda one: one.total, default=None) or digest.new()
        if not self.hash_to(hasher, row.offset):
            raise StagingDamagedError(self.path, row.file_id, "is shorter than the journal says")
        self.hasher, self.setbacks = hasher, row.setbacks
        return hasher

    def count_as_others(self, row: Transfer) -> None:
        """All that is recorded now is others'."""
        self.own_from, self._zeros_end = row.offset, 0

    def close(self) -> None:
        """Close the descriptor, once."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self._disk.close(fd)

    def disown(self) -> None:
        """Close the descriptor if it is this file's still."""
        fd, self.fd = self.fd, -1
        close_ours(self._disk, fd, self._opened)
