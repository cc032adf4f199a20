"""The bytes of unfinished transfers.

A staging file's name is 128 random bits, never the sender's id (which could escape or clash) and
never a row key (which SQLite uses again).  Before them stand a letter for the folder it lies in
and the stripe of its transfer's lock, so that whoever finds an orphan knows which lock to take::

    w3f-0123456789abcdef0123456789abcdef

A file with more than one link is never written or cut: after a power loss in a rename both names
may be there, and a cut would tear the published file.
"""

from __future__ import annotations

import errno
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from txstore import digest
from txstore.digest import Hasher
from txstore.disk import NO_SPACE, Disk
from txstore.errors import StagingDamagedError
from txstore.home import Home
from txstore.journal.rows import Transfer
from txstore.locks import stripe_of
from txstore.paths import is_staging_name
from txstore.unchanged import version_of

_CHUNK = 1024 * 1024  # bytes per read when staged bytes are hashed again
_MANY, _AHEAD = 256 * 1024, 1024 * 1024  # bytes; see `write_ahead`
_KEPT_OPEN = 32  # staging files that a manager keeps open for transfers that come back to it
#: Mode with which a one-segment file is made: an ordinary new file's, since it is published at
#: once; its folder is the owner's alone.
PUBLISHED_MODE = 0o666


def stripe_in(name: str) -> int | None:
    """The stripe of the lock that guards a staging file; ``None``: not a name of ours."""
    return int(name[1:3], 16) if is_staging_name(name) else None


class StagedFile:
    """An open staging file.  Used only by whoever holds its transfer's lock.

    :ivar path: absolute
    :ivar folder: that it lies in
    :ivar size: bytes in the file
    :ivar inode: its inode number
    :ivar foreign: whether it belongs to another user, of a group that shares the store
    :ivar writable: whether it may be written: not one that has a second name, which may be that of
        a published file or of a backup, nor another user's that has a published file's mode
    :ivar hasher: hash of the first ``hasher.total`` bytes, kept for a transfer that comes back
    :ivar setbacks: how often the transfer had gone back when ``hasher`` was right
    :ivar own_from: from this offset on all recorded bytes were written through ``fd``, and no flush
        of them failed.  Others' bytes must not be flushed as they are: if their flush failed, the
        kernel may hold them for clean, and ours would succeed without them
    :ivar verified: version of its folder in which its path was last seen to lead to it
    :ivar row: the transfer's row as it was last recorded here; ``own_from`` is right for that one
    :ivar turn: the turn of the transfer's lock in which the file was last used
    """

    def __init__(
        self, disk: Disk, file_id: str, name: str, path: str, fd: int, found: os.stat_result
    ) -> None:
        self._disk, self.file_id, self.name, self.path, self.fd = disk, file_id, name, path, fd
        self.folder = os.path.dirname(path)
        self.inode, self.size, self.foreign = (
            found.st_ino,
            found.st_size,
            found.st_uid != os.geteuid(),
        )
        self.writable = True
        self.hasher: Hasher | None = None
        self.setbacks = 0
        self.own_from = 0
        self.verified: tuple[int, int, int] | None = None
        self._zeros_end = 0
        self.row: Transfer | None = None
        self.turn = 0
        self.kept_at = 0.0

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
            with suppress(OSError):
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
        """Make the mode durable too."""
        self._disk.flush_all(self.fd)

    def set_mode(self, mode: int) -> None:
        self._disk.chmod(self.fd, mode)

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

    def taken_over(self, row: Transfer) -> None:
        """All that is recorded now is others'."""
        self.own_from, self._zeros_end = row.offset, 0

    def close(self) -> None:
        """Close the descriptor, once."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self._disk.close(fd)


class Staging:
    """The staging folders of one manager.  Thread-safe; ``forget`` in a forked child."""

    def __init__(self, home: Home) -> None:
        self._home, self._disk = home, home.disk
        self._letter: str | None = None
        self._mutex = threading.Lock()
        # Files nobody is using now, by their transfers: they are taken out while they are used.
        self._idle: OrderedDict[str, StagedFile] = OrderedDict()

    @property
    def letter(self) -> str:
        """Where new files go; found out at first use."""
        if self._letter is None:
            self._letter = self._home.staging_letter()
        return self._letter

    @property
    def current(self) -> int:
        """Descriptor of the folder that new files go to."""
        return self._home.staging_folder(self.letter)

    def create(self, file_id: str, mode: int | None = None) -> StagedFile:
        """A new, empty staging file for a transfer.  Its name is not durable yet.

        :param mode: less the umask; ``None``: the store's own mode, whatever the umask
        """
        name = f"{self.letter}{stripe_of(file_id.encode()):02x}-{secrets.token_hex(16)}"
        fd = self._disk.create(name, mode or self._home.mode, dir_fd=self.folder(name))
        try:
            if mode is None and self._home.mode & 0o077:
                self._disk.chmod(fd, self._home.mode)
            found = self._disk.fstat(fd)
        except BaseException:
            self._disk.close(fd)
            self._disk.unlink(name, dir_fd=self.folder(name))
            raise
        return StagedFile(self._disk, file_id, name, self._home.staging_path(name), fd, found)

    def kept(self, file_id: str, turn: int) -> tuple[Transfer, StagedFile] | None:
        """A transfer as an earlier call left it, if nobody else has held its lock since.

        :param turn: the lock's
        """
        with self._mutex:
            idle = self._idle.get(file_id)
            if idle is None or idle.row is None or idle.turn != turn:
                return None
            if self._disk.size(idle.fd) != idle.size:
                return None  # `open` finds out what happened to it
            return idle.row, self._idle.pop(file_id)

    def open(self, row: Transfer) -> StagedFile:
        """The staging file of a recorded transfer.

        :raises StagingDamagedError: it is gone, or too short
        """
        path = self._home.staging_path(row.staging)
        with self._mutex:
            idle = self._idle.pop(row.file_id, None)
        try:
            found = self._find(row, path)
        except BaseException:
            if idle is not None:
                idle.close()
            raise
        alone = found.st_nlink == 1
        if idle is not None:
            if idle.name == row.staging and idle.inode == found.st_ino and alone:
                idle.size = found.st_size
                if idle.row is None or idle.row.change != row.change:
                    idle.taken_over(row)  # another worker went on meanwhile
                idle.row = None
                return idle
            idle.close()
        folder = self.folder(row.staging)
        try:
            fd = self._disk.open(row.staging, dir_fd=folder, write=alone)
        except PermissionError:
            if found.st_uid == os.geteuid():
                raise
            alone = False
            fd = self._disk.open(row.staging, dir_fd=folder, write=False)
        staged = StagedFile(self._disk, row.file_id, row.staging, path, fd, found)
        staged.writable = alone
        staged.taken_over(row)
        return staged

    def _find(self, row: Transfer, path: str) -> os.stat_result:
        try:
            found = self._disk.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            self._home.verify_staging(row.staging)
            raise StagingDamagedError(path, row.file_id, "is missing") from None
        if found.st_ino != row.inode:
            self._home.verify_staging(row.staging)
        if found.st_size < row.offset:
            raise StagingDamagedError(path, row.file_id, "is shorter than the journal says")
        return found

    def verify(self, staged: StagedFile, file_id: str) -> None:
        """Check, before something is recorded of a file, that others find the same one: by its
        whole path, so that a folder which was moved or replaced is noticed too.

        :raises ReplacedError: the staging folder is another
        :raises StagingDamagedError: the file is another, or gone
        """
        version = version_of(self._disk, staged.folder)
        if version is not None and version == staged.verified:
            return
        try:
            same = self._disk.stat(staged.path).st_ino == staged.inode
        except (FileNotFoundError, NotADirectoryError):
            same = False
        if not same:
            self._home.verify_staging(staged.name)
            raise StagingDamagedError(staged.path, file_id, "was removed or replaced")
        staged.verified = version

    @contextmanager
    def lent(self, staged: StagedFile) -> Iterator[StagedFile]:
        """Keep a file open for its transfer's next segment, unless the body fails: then its hash
        may be ahead of what was recorded."""
        try:
            yield staged
        except BaseException:
            staged.close()
            raise
        if staged.fd >= 0:
            self._keep(staged)

    def trim(self, before: float) -> None:
        """Close files that were kept before a time (monotonic): another worker may have finished
        or dropped their transfers, and their space comes back only when nobody has them open."""
        with self._mutex:
            old = [one for one in self._idle.values() if one.kept_at < before]
            for one in old:
                del self._idle[one.file_id]
        for one in old:
            one.close()

    def _keep(self, staged: StagedFile) -> None:
        staged.kept_at = time.monotonic()
        with self._mutex:
            unused = self._idle.pop(staged.file_id, None)  # of an earlier transfer with that id
            self._idle[staged.file_id] = staged
            if len(self._idle) > _KEPT_OPEN:
                unused = self._idle.popitem(last=False)[1]
        if unused is not None:
            unused.close()

    def remove(self, name: str) -> None:
        """Take a staging file's name away, if it is there."""
        with self._mutex:
            idle = [one for one in self._idle.values() if one.name == name]
            for one in idle:
                del self._idle[one.file_id]
        for one in idle:
            one.close()
        with suppress(FileNotFoundError):  # a power loss, or the worker before, took it
            self._disk.unlink(name, dir_fd=self.folder(name))

    def discard(self, name: str) -> None:
        """Take a staging file away with its bytes, also where another worker has it open still."""
        with suppress(OSError):  # then its space comes back when that worker lets go of it
            fd = self._disk.open(name, dir_fd=self.folder(name))
            try:
                if self._disk.fstat(fd).st_nlink == 1:
                    self._disk.truncate(fd, 0)
            finally:
                self._disk.close(fd)
        self.remove(name)

    def has(self, name: str) -> bool:
        """Whether a staging file's name is there."""
        try:
            self._disk.stat(name, dir_fd=self.folder(name))
        except FileNotFoundError:
            return False
        return True

    def folder(self, name: str) -> int:
        """Descriptor of the folder that a staging file lies in."""
        return self._home.staging_folder(name)

    def flush_folder(self, name: str) -> None:
        """Make the name of a staging file, or its absence, durable."""
        self._disk.flush_folder(self.folder(name))

    def names(self) -> Iterator[str]:
        """The names in all staging folders."""
        yield from self._disk.list_folder(self._home.staging)
        if self.letter == "s" or self._home.has_hidden_staging():
            yield from self._disk.list_folder(self._home.hidden_staging())

    def published_mode(self) -> int:
        """The mode that an ordinary new file would get."""
        return PUBLISHED_MODE & ~self._disk.umask()

    def close(self) -> None:
        with self._mutex:
            while self._idle:
                self._idle.popitem()[1].close()

    def forget(self) -> None:
        """In a forked child: close what was inherited."""
        self._mutex = threading.Lock()
        self.close()
