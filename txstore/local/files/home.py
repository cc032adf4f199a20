"""The two folders a store lives in: made, checked to belong together, and made durable."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from stat import S_IMODE, S_ISGID

from txstore.errors import (
    NetworkFileSystemError,
    PathTooLongError,
    ReplacedError,
    UnfitFileSystemError,
)
from txstore.local.files.descriptors import Descriptor, close_ours
from txstore.local.files.disk import Disk
from txstore.local.files.folders import (
    JOURNAL,
    LOCKS,
    MARKER,
    STAGING,
    TEMPORARY_MARKER,
    Folders,
    check_apart,
    not_apart,
)
from txstore.local.files.machine import Copies, copies_of, is_network
from txstore.process.strikes import pass_on
from txstore.protocol.names import HIDDEN

#: What a file system answers that does not have a call.
_NO_SUCH_CALL = (errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
#: Bytes of the longest path that SQLite opens with a log beside it, all links resolved; and the
#: longest name that it opens here: a new journal's, before it has its own.
_SQLITE_PATH, _LONGEST_NAME = 504, "new-" + 32 * "0"
_GROUP_SHARES = 0o060


class Home(Folders):
    """Descriptors and facts of the two folders.  Thread-safe.

    :ivar mode: permission bits of the store's own files
    :ivar copies: when the working dir's file system copies what is overwritten
    :ivar is_durable: whether ``make_durable`` has nothing to do
    :ivar witness: the first descriptor, and the folder that it leads to
    """

    witness: Descriptor

    def __init__(
        self,
        disk: Disk,
        storage_dir: str | os.PathLike[str],
        working_dir: str | os.PathLike[str] | None,
        *,
        mode: int,
        allow_network_fs: bool,
    ) -> None:
        super().__init__(disk, storage_dir, working_dir)
        self.mode = mode
        self._check_length()
        self._locked: list[int] = []
        self.is_durable = False
        self._hidden_staging: int | None = None
        try:
            self._open(allow_network_fs)
        except BaseException:
            self.close()
            raise

    def _open(self, allow_network_fs: bool) -> None:
        make_folders(self.disk, self.storage_dir, 0o777)
        self.storage = self._keep(self.disk.open_folder(self.storage_dir, follow=True))
        self.witness = self.storage, self._inodes[self.storage]
        journal_mode = self._journal_mode()
        if journal_mode is None:
            # Whoever forgot which working dir it was is to find no folders made for another.
            self.check_marker(self.read_marker(), None, "")
        elif journal_mode & _GROUP_SHARES == _GROUP_SHARES:
            # A group shares it: whoever opens it without saying so must not shut the group out.
            self.mode |= _GROUP_SHARES
        make_folders(self.disk, self.working_dir, self._folder_mode)
        self._resolved = self._real()
        check_apart(*self._resolved)
        self.working = self._keep(self.disk.open_folder(self.working_dir, follow=True))
        storage, working = self.disk.fstat(self.storage), self.disk.fstat(self.working)
        if (storage.st_dev, storage.st_ino) == (working.st_dev, working.st_ino):
            raise not_apart(self.storage_dir, self.working_dir)  # one folder, by a bind mount
        fstype = self.disk.file_system(self.working)
        if is_network(fstype) and not allow_network_fs:
            raise NetworkFileSystemError(self.working_dir, fstype)
        self.copies = copies_of(fstype)
        if self.copies is Copies.ALWAYS:
            # What the journal wrote ahead can be overwritten on a full disk then.  (What is staged
            # is published, and keeps what such a file system does for the user's files.)
            self.disk.overwrite_in_place(self.working)
        for fd in (self.storage, self.working):
            locked = self.disk.lock_folder(fd)
            if locked is not None:
                self._inodes[locked] = self._inodes[fd]
                self._locked.append(locked)
        self.locks = self._subfolder(self.working, LOCKS)
        self.staging = self._subfolder(self.working, STAGING)
        if self.copies is Copies.ALWAYS:
            self.disk.overwrite_in_place(self.staging, wanted=False)
        self._find_boot(self.staging)

    def _check_length(self) -> None:
        """:raises PathTooLongError: SQLite could not open the journal, or not make it"""
        folder = os.path.realpath(self.working_dir)
        is_there = os.path.exists(os.path.join(folder, JOURNAL))
        length = len(os.fsencode(os.path.join(folder, JOURNAL if is_there else _LONGEST_NAME)))
        if length > _SQLITE_PATH:
            raise PathTooLongError(self.working_dir, length, _SQLITE_PATH)

    # --- folders -----------------------------------------------------------------------------

    @property
    def _folder_mode(self) -> int:
        # Whoever may read a file may enter its folder.
        return self.mode | (self.mode & 0o444) >> 2

    def staging_folder(self, name: str) -> int:
        """The folder that a staging file lies in: its name's first letter tells."""
        return self.hidden_staging() if name[0] == "s" else self.staging

    def staging_letter(self) -> str:
        """Where new staging files go: ``w`` (working dir), or ``s`` (the storage dir's hidden
        folder) where the kernel cannot rename from the one to the other."""
        return "s" if self.is_other_mount(self.staging, self.storage) else "w"

    def is_other_mount(self, source: int, target: int) -> bool:
        """Whether the kernel refuses to rename from a staging folder into another folder.

        Asked by renaming a file that does not exist: the kernel compares the mounts first.  Two
        subvolumes under one mount it tells apart only by the file; they are other devices.
        """
        if self.disk.fstat(source).st_dev != self.disk.fstat(target).st_dev:
            return True
        try:
            name = secrets.token_hex(16)
            self.disk.rename(name, name, source_dir=source, target_dir=target)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.ENOENT):
                raise  # that was no answer
            return error.errno == errno.EXDEV
        return False

    def hidden_staging(self) -> int:
        """The hidden folder for staging, made at first use."""
        if self._hidden_staging is None:
            hidden = self._subfolder(self.storage, HIDDEN)
            staging = self._subfolder(hidden, STAGING)
            # In the middle of a call, whose `make_durable` is over.
            self.disk.flush_folder(hidden)
            self.disk.flush_folder(self.storage)
            self._hidden_staging = staging
        return self._hidden_staging

    def check_storage_in_place(self) -> None:
        """:raises ReplacedError: the storage dir's path no longer leads to the opened folder"""
        self._check_in_place(self.storage_dir, self.storage, "storage dir", follow=True)

    def check_staging_in_place(self, name: str) -> None:
        """:raises ReplacedError: the path of a staging folder no longer leads to the opened one"""
        self._check_in_place(
            self.staging_folder_path(name[0]), self.staging_folder(name), "staging folder"
        )

    def _check_in_place(self, path: str, fd: int, what: str, *, follow: bool = False) -> None:
        opened = self.disk.fstat(fd)
        try:
            found = self.disk.stat(path, follow=follow)
        except (FileNotFoundError, NotADirectoryError):
            raise ReplacedError(path, what) from None
        if (found.st_dev, found.st_ino) != (opened.st_dev, opened.st_ino):
            raise ReplacedError(path, what)

    def make_durable(self) -> None:
        """Flush the names of all the store's folders, up to the root of the file system.

        Once for each manager: a name is durable only if this process flushed its folder after
        seeing it; whoever made it may have died before its own flush.
        """
        if self.is_durable:
            return
        for fd in self._fds:
            with self.needing("fsync of a folder", fd):
                self.disk.flush_folder(fd)
        for path in (self.storage_dir, self.working_dir):
            self._flush_above(path)
        self.is_durable = True

    @contextmanager
    def needing(self, call: str, fd: int) -> Iterator[None]:
        """Say of a call on a folder that its file system does not have which one that is.

        :raises UnfitFileSystemError: it does not
        """
        try:
            yield
        except OSError as error:
            if error.errno not in _NO_SUCH_CALL:
                raise
            fstype = self.disk.file_system(fd)
            path = self.storage_dir if fd == self.storage else self.working_dir
            raise UnfitFileSystemError(error.errno, path, fstype, call) from error

    def _flush_above(self, path: str) -> None:
        real = os.path.realpath(path)
        device = self.disk.stat(real).st_dev
        own = self.storage if path == self.storage_dir else self.working
        while real != (real := os.path.dirname(real)):
            if self.disk.stat(real).st_dev != device:
                return  # a mount point: its name is another file system's business
            fd = self.disk.open_folder(real, follow=True)
            try:
                if not self.flush_folder(fd, own):
                    return
            finally:
                self.disk.close(fd)

    def flush_folder(self, fd: int, own: int | None = None) -> bool:
        """Make the names in a folder durable; ``False``: it had to be all of its file system.

        :param own: a folder on the same file system that this user may list; ``None``: it is the
            storage dir's
        """
        try:
            self.disk.flush_folder(fd)
        except PermissionError:
            # A folder that is not ours to list, like a drop box, may be ours to make others in.
            self.disk.flush_file_system(self.storage if own is None else own)
            return False
        return True

    def close(self) -> None:
        for fds in (self._fds, self._locked):
            while fds:
                self.disk.close(fds.pop())

    def has_descriptors(self) -> bool:
        """Whether they are its own still, as far as the first of them tells, which has the lowest
        number: who closes descriptors that he does not know begins there."""
        fd, inode = self.witness
        return self.disk.inode_behind(fd) == inode

    def disown(self) -> None:
        """Let go of folders that another process opened, or that were closed by their numbers."""
        for fds in (self._fds, self._locked):
            while fds:
                fd = fds.pop()
                close_ours(self.disk, fd, self._inodes.pop(fd, None))

    def _subfolder(self, folder: int, name: str) -> int:
        try:
            with suppress(FileExistsError):  # by one that may have died before the next step
                self.disk.make_folder(name, self._folder_mode, dir_fd=folder)
            _lift_umask(self.disk, name, self._folder_mode, dir_fd=folder)
            fd = self.disk.open_folder(name, dir_fd=folder)
        except OSError as error:
            pass_on(error)
            # The kernel was given a name in a folder; people need the path.
            above = self.working_dir if folder == self.working else self.storage_dir
            raise type(error)(error.errno, error.strerror, os.path.join(above, name)) from error
        self.is_durable = False
        return self._keep(fd)

    # --- belonging together ------------------------------------------------------------------

    def _journal_mode(self) -> int | None:
        """The mode of the journal's file; ``None``: there is none."""
        try:
            return self.disk.stat(self.journal_path, follow=True).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write_marker(self, store_id: str) -> None:
        """Say in the storage dir which store it belongs to; durable when this returns."""
        hidden = self._subfolder(self.storage, HIDDEN)
        for name in list(self.disk.list_folder(hidden)):
            if TEMPORARY_MARKER.match(name):  # of a worker that died here
                self.disk.unlink(name, dir_fd=hidden)
        text = json.dumps({"store": store_id, "working_dir": self.relative_working_dir()})
        temporary = f"{MARKER}-{secrets.token_hex(16)}"
        fd = self.disk.create(temporary, self.mode, dir_fd=hidden)
        try:
            self.disk.chmod(fd, self.mode)
            self.disk.pwrite(fd, text.encode(), 0)
            self.disk.flush(fd)
            self.disk.rename(temporary, MARKER, source_dir=hidden, target_dir=hidden)
        finally:
            self.disk.close(fd)
        with self.needing("fsync of a folder", self.storage):
            self.disk.flush_folder(hidden)


def make_folders(disk: Disk, path: str, mode: int) -> None:
    """Make a folder and its missing parents (those with an ordinary new folder's mode).

    :raises NotADirectoryError: the path or one of its parents is a file
    :raises PermissionError: it cannot be made for lack of permission
    """
    missing: list[str] = []
    step = path
    while True:
        try:
            found = disk.stat(step, follow=True)
            break
        except FileNotFoundError:
            missing.append(step)
            step = os.path.dirname(step)
    if found.st_mode & 0o170000 != 0o040000:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), step)
    for step in reversed(missing):
        try:
            disk.make_folder(step, mode if step == path else 0o777)
        except FileExistsError:
            continue  # another worker was first, or a dangling link: opening it will tell
        if step == path and mode != 0o777:
            _lift_umask(disk, step, mode)


def _lift_umask(disk: Disk, name: str, mode: int, *, dir_fd: int | None = None) -> None:
    """Give a folder of ours what the umask took from it when it was made.

    Only where it took something, and with the setgid bit that it has from the folder above: by
    that bit what is made in it belongs to the group that shares the store.
    """
    found = disk.stat(name, dir_fd=dir_fd)
    if found.st_uid == os.geteuid() and mode & ~found.st_mode:
        bits = S_IMODE(found.st_mode) & (0o777 | S_ISGID)
        disk.chmod_folder(name, bits | mode, dir_fd=dir_fd)
