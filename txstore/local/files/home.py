"""The two folders a store lives in: made, checked to belong together, and made durable.

Below the working dir: ``journal.db`` (with SQLite's ``-wal`` and ``-shm``), ``locks/``,
``staging/`` and ``journal.reserve``.  Below the storage dir: the published files and ``.txstore/``,
the store's hidden folder, with the marker ``store`` (which working dir belongs here) and, where the
working dir cannot be renamed from, ``staging/``.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from stat import S_IMODE, S_ISGID

from txstore.errors import (
    NetworkFileSystemError,
    OptionError,
    PathTooLongError,
    ReplacedError,
    StoreMismatchError,
    UnfitFileSystemError,
    UnsupportedPlatformError,
)
from txstore.local import clock
from txstore.local.clock import Moment
from txstore.local.files.descriptors import Inode, close_ours, inode_of
from txstore.local.files.disk import COPYING_FILE_SYSTEMS, Disk, is_network, is_supported
from txstore.protocol.names import HIDDEN, is_within

DEFAULT_WORKING_DIR = ".workdir"
JOURNAL = "journal.db"
_TEMPORARY_MARKER = re.compile(r"store-[0-9a-f]{32}\Z")
#: What a file system answers that does not have a call.
_NO_SUCH_CALL = (errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
#: Bytes of the longest path that SQLite opens with a log beside it, all links resolved; and the
#: longest name that it opens here: a new journal's, before it has its own.
_SQLITE_PATH, _LONGEST_NAME = 504, "new-" + 32 * "0"
_STAGING, _LOCKS, _MARKER = "staging", "locks", "store"
_GROUP_SHARES = 0o060


@dataclass(frozen=True)
class Marker:
    """What the storage dir says of its working dir.

    :ivar store_id: identity that the journal has too
    :ivar working_dir: path relative to the storage dir
    """

    store_id: str
    working_dir: str


class Home:
    """Descriptors and facts of the two folders.  Thread-safe.

    :ivar storage_dir: absolute path, as given
    :ivar working_dir: absolute path, as given or ``<storage_dir>/.workdir``
    :ivar mode: permission bits of the store's own files
    :ivar copies: whether the working dir's file system copies what is overwritten
    :ivar boot: identity of this boot of the machine and of the devices; empty where it is not known
    """

    def __init__(
        self,
        disk: Disk,
        storage_dir: str | os.PathLike[str],
        working_dir: str | os.PathLike[str] | None,
        *,
        mode: int,
        allow_network_fs: bool,
    ) -> None:
        if not is_supported():
            raise UnsupportedPlatformError(os.name)
        self.disk = disk
        self.mode = mode
        if not os.fspath(storage_dir):
            # It would mean the current folder, which nobody meant whose variable is not set.
            raise OptionError(
                "storage_dir is empty: it must be the path of a folder.",
                option="storage_dir",
                received=storage_dir,
            )
        self.storage_dir = _absolute(storage_dir)
        self.working_dir = (
            _absolute(working_dir)
            if working_dir
            else os.path.join(self.storage_dir, DEFAULT_WORKING_DIR)
        )
        self._check_apart(self.storage_dir, self.working_dir)
        self._check_length()
        self._fds: list[int] = []
        self._locked: list[int] = []
        self._inodes: dict[int, Inode] = {}
        self._durable = False
        self._hidden_staging: int | None = None
        try:
            self._open(allow_network_fs)
        except BaseException:
            self.close()
            raise

    def _open(self, allow_network_fs: bool) -> None:
        make_folders(self.disk, self.storage_dir, 0o777)
        self.storage = self._keep(self.disk.open_folder(self.storage_dir, follow=True))
        journal_mode = self._journal_mode()
        if journal_mode is None:
            # Whoever forgot which working dir it was is to find no folders made for another.
            self.check_marker(self.read_marker(), None, "")
        elif journal_mode & _GROUP_SHARES == _GROUP_SHARES:
            # A group shares it: whoever opens it without saying so must not shut the group out.
            self.mode |= _GROUP_SHARES
        make_folders(self.disk, self.working_dir, self._folder_mode)
        self._check_apart(os.path.realpath(self.storage_dir), os.path.realpath(self.working_dir))
        self.working = self._keep(self.disk.open_folder(self.working_dir, follow=True))
        storage, working = self.disk.fstat(self.storage), self.disk.fstat(self.working)
        if (storage.st_dev, storage.st_ino) == (working.st_dev, working.st_ino):
            raise _not_apart(self.storage_dir, self.working_dir)  # one folder, by a bind mount
        fstype = self.disk.file_system(self.working)
        if is_network(fstype) and not allow_network_fs:
            raise NetworkFileSystemError(self.working_dir, fstype)
        self.copies = fstype in COPYING_FILE_SYSTEMS
        if self.copies:
            # What the journal wrote ahead can be overwritten on a full disk then.  (What is staged
            # is published, and keeps what such a file system does for the user's files.)
            self.disk.overwrite_in_place(self.working)
        for fd in (self.storage, self.working):
            locked = self.disk.lock_folder(fd)
            if locked is not None:
                self._inodes[locked] = self._inodes[fd]
                self._locked.append(locked)
        self.locks = self._subfolder(self.working, _LOCKS)
        self.staging = self._subfolder(self.working, _STAGING)
        if self.copies:
            self.disk.overwrite_in_place(self.staging, wanted=False)
        boot = self.disk.boot_id()
        devices = [self.disk.fstat(fd).st_dev for fd in (self.staging, self.storage)]
        self.boot = ":".join(map(str, (boot, *devices))) if boot else ""
        self._compare_clocks()

    def _compare_clocks(self) -> None:
        ahead = self.disk.clock_ahead()
        self._clock_ahead = ahead or 0.0
        if ahead is None:
            # Nobody could compare their times with ours: then they are those of an unknown boot.
            self.boot = ""

    def _check_length(self) -> None:
        """:raises PathTooLongError: SQLite could not open the journal, or not make it"""
        folder = os.path.realpath(self.working_dir)
        is_there = os.path.exists(os.path.join(folder, JOURNAL))
        length = len(os.fsencode(os.path.join(folder, JOURNAL if is_there else _LONGEST_NAME)))
        if length > _SQLITE_PATH:
            raise PathTooLongError(self.working_dir, length, _SQLITE_PATH)

    @staticmethod
    def _check_apart(storage_dir: str, working_dir: str) -> None:
        if is_within(storage_dir, working_dir):
            raise _not_apart(storage_dir, working_dir)
        if is_within(working_dir, os.path.join(storage_dir, HIDDEN)):
            raise OptionError(
                f"The working dir {working_dir!r} must not lie in the store's hidden folder.",
                option="working_dir",
                received=working_dir,
            )

    def is_this_boot(self, boot: str) -> bool:
        """Whether what a row says of its boot means this one; an unknown boot is always another."""
        return boot == self.boot != ""

    def now(self) -> Moment:
        """The present, as all workers of this boot would have it."""
        return clock.now(self.boot, self._clock_ahead)

    # --- folders -----------------------------------------------------------------------------

    @property
    def journal_path(self) -> str:
        return os.path.join(self.working_dir, JOURNAL)

    @property
    def locks_path(self) -> str:
        return os.path.join(self.working_dir, _LOCKS)

    @property
    def _folder_mode(self) -> int:
        # Whoever may read a file may enter its folder.
        return self.mode | (self.mode & 0o444) >> 2

    def staging_path(self, name: str) -> str:
        """Absolute path of a staging file, for messages to people."""
        return os.path.join(self._staging_folder_path(name[0]), name)

    def _staging_folder_path(self, where: str) -> str:
        if where == "s":
            return os.path.join(self.storage_dir, HIDDEN, _STAGING)
        return os.path.join(self.working_dir, _STAGING)

    def staging_folder(self, name: str) -> int:
        """The folder that a staging file lies in: its name's first letter tells."""
        return self.hidden_staging() if name[0] == "s" else self.staging

    def staging_letter(self) -> str:
        """Where new staging files go: ``w`` (working dir), or ``s`` (the storage dir's hidden
        folder) where the kernel cannot rename from the one to the other."""
        return "s" if self.is_other_mount(self.staging, self.storage) else "w"

    def is_other_mount(self, source: int, target: int) -> bool:
        """Whether the kernel refuses to rename from a staging folder into another folder.

        Asked by renaming a file that does not exist: the kernel compares the mounts first.
        """
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
            staging = self._subfolder(hidden, _STAGING)
            # In the middle of a call, whose `make_durable` is over.
            self.disk.flush_folder(hidden)
            self.disk.flush_folder(self.storage)
            self._hidden_staging = staging
        return self._hidden_staging

    def has_hidden_staging(self) -> bool:
        """Whether the hidden folder for staging was ever made."""
        try:
            self.disk.stat(os.path.join(HIDDEN, _STAGING), dir_fd=self.storage)
        except FileNotFoundError:
            return False
        return True

    def own_folders(self) -> frozenset[tuple[int, int]]:
        """(device, inode) of the folders in which nothing may be stored."""
        found = [self.disk.fstat(self.working)]
        with suppress(FileNotFoundError):  # made later: then its name is what refuses it
            found.append(self.disk.stat(HIDDEN, dir_fd=self.storage))
        return frozenset((one.st_dev, one.st_ino) for one in found)

    def check_storage_in_place(self) -> None:
        """:raises ReplacedError: the storage dir's path no longer leads to the opened folder"""
        self._check_in_place(self.storage_dir, self.storage, "storage dir", follow=True)

    def check_staging_in_place(self, name: str) -> None:
        """:raises ReplacedError: the path of a staging folder no longer leads to the opened one"""
        self._check_in_place(
            self._staging_folder_path(name[0]), self.staging_folder(name), "staging folder"
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
        if self._durable:
            return
        for fd in self._fds:
            with self.needing("fsync of a folder", fd):
                self.disk.flush_folder(fd)
        for path in (self.storage_dir, self.working_dir):
            self._flush_above(path)
        self._durable = True

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
        return self.disk.inode_behind(self.storage) == self._inodes.get(self.storage)

    def disown(self) -> None:
        """Let go of folders that another process opened, or that were closed by their numbers."""
        for fds in (self._fds, self._locked):
            while fds:
                fd = fds.pop()
                close_ours(self.disk, fd, self._inodes.pop(fd, None))

    def _keep(self, fd: int) -> int:
        self._fds.append(fd)
        self._inodes[fd] = inode_of(self.disk.fstat(fd))
        return fd

    def _subfolder(self, folder: int, name: str) -> int:
        try:
            with suppress(FileExistsError):  # by one that may have died before the next step
                self.disk.make_folder(name, self._folder_mode, dir_fd=folder)
            _lift_umask(self.disk, name, self._folder_mode, dir_fd=folder)
            fd = self.disk.open_folder(name, dir_fd=folder)
        except OSError as error:
            # The kernel was given a name in a folder; people need the path.
            above = self.working_dir if folder == self.working else self.storage_dir
            raise type(error)(error.errno, error.strerror, os.path.join(above, name)) from error
        self._durable = False
        return self._keep(fd)

    # --- belonging together ------------------------------------------------------------------

    def _journal_mode(self) -> int | None:
        """The mode of the journal's file; ``None``: there is none."""
        try:
            return self.disk.stat(self.journal_path, follow=True).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None

    def relative_storage_dir(self) -> str:
        """The storage dir as seen from the working dir: stays true when both move together."""
        return os.path.relpath(*self._real())

    def _relative_working_dir(self) -> str:
        storage_dir, working_dir = self._real()
        return os.path.relpath(working_dir, storage_dir)

    def _real(self) -> tuple[str, str]:
        return os.path.realpath(self.storage_dir), os.path.realpath(self.working_dir)

    def read_marker(self) -> Marker | None:
        """What the storage dir says, if it says anything."""
        path = os.path.join(HIDDEN, _MARKER)
        try:
            fd = self.disk.open(path, dir_fd=self.storage, write=False)
        except FileNotFoundError:
            return None
        try:
            text = self.disk.pread(fd, 65536, 0)
        finally:
            self.disk.close(fd)
        try:
            found = json.loads(text)
            return Marker(str(found["store"]), str(found["working_dir"]))
        except (ValueError, KeyError, TypeError):
            return None  # torn by a power loss before the journal was there: written anew

    def check_marker(self, marker: Marker | None, store_id: str | None, recorded: str) -> bool:
        """Whether the marker is right; ``False`` means: write it.

        :param store_id: the journal's; ``None`` where there is no journal yet
        :param recorded: storage dir relative to the working dir, as the journal has it
        :raises StoreMismatchError: the storage dir belongs to another working dir, or the other
            way round
        """
        if store_id is None:
            if marker is None or marker.working_dir == self._relative_working_dir():
                return False
            other = os.path.normpath(
                os.path.join(os.path.realpath(self.storage_dir), marker.working_dir)
            )
            if os.path.exists(os.path.join(other, JOURNAL)):
                raise self._mismatch(f"belongs to the working dir {other!r}")
            return False
        if marker is not None and marker.store_id != store_id:
            raise self._mismatch("belongs to another store")
        if marker is None and recorded != self.relative_storage_dir():
            raise self._mismatch("does not hold this store's files")
        return marker is not None

    def _mismatch(self, what: str) -> StoreMismatchError:
        return StoreMismatchError(
            f"The storage dir {self.storage_dir!r} {what}, so it cannot be used with the working"
            f" dir {self.working_dir!r}. Use the pair of folders that belongs together; to move a"
            " store, move both.",
            storage_dir=self.storage_dir,
            working_dir=self.working_dir,
        )

    def write_marker(self, store_id: str) -> None:
        """Say in the storage dir which store it belongs to; durable when this returns."""
        hidden = self._subfolder(self.storage, HIDDEN)
        for name in list(self.disk.list_folder(hidden)):
            if _TEMPORARY_MARKER.match(name):  # of a worker that died here
                self.disk.unlink(name, dir_fd=hidden)
        text = json.dumps({"store": store_id, "working_dir": self._relative_working_dir()})
        temporary = f"{_MARKER}-{secrets.token_hex(16)}"
        fd = self.disk.create(temporary, self.mode, dir_fd=hidden)
        try:
            self.disk.chmod(fd, self.mode)
            self.disk.pwrite(fd, text.encode(), 0)
            self.disk.flush(fd)
            self.disk.rename(temporary, _MARKER, source_dir=hidden, target_dir=hidden)
        finally:
            self.disk.close(fd)
        with self.needing("fsync of a folder", self.storage):
            self.disk.flush_folder(hidden)


def _not_apart(storage_dir: str, working_dir: str) -> OptionError:
    return OptionError(
        f"The working dir {working_dir!r} must not be or contain the storage dir {storage_dir!r}."
        " Choose another working dir, or none for the default.",
        option="working_dir",
        received=working_dir,
    )


def _absolute(path: str | os.PathLike[str]) -> str:
    """As ``abspath``, which keeps two slashes in front although they name the same folder."""
    return os.sep + os.path.abspath(os.fsdecode(path)).lstrip(os.sep)


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
