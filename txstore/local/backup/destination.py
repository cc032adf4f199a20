"""Where a backup is made: a storage dir with its working dir in it, which no worker has opened.

A new backup is made beside its place, under a name of its own (``DEST.unfinished``), and gets its
name when it is whole and durable.  One that is there already is brought up to date in its place: it
is whole at every moment, since nothing of it goes before the new journal has taken the old one's
place.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from contextlib import suppress
from stat import S_ISDIR

from txstore.errors import BackupRefusedError
from txstore.local.files.disk import Disk
from txstore.local.files.folders import (
    JOURNAL,
    LOCKS,
    MARKER,
    STAGING,
    TEMPORARY_MARKER,
)
from txstore.local.journal.making import TEMPORARY
from txstore.local.looking.found import Found
from txstore.protocol.names import DEFAULT_WORKING_DIR, HIDDEN, is_within

#: How the name of a backup ends that is not finished.
UNFINISHED = ".unfinished"
_PRIVATE = 0o700


class Destination:
    """Descriptors of a backup's folders.  For one thread; nobody else makes a backup there, and no
    worker has it open.

    :param path: where the backup is to be
    :param store_id: of the store that is copied
    :ivar path: absolute
    :ivar root: descriptor of the storage dir
    :ivar working: likewise, of the working dir
    :ivar staging: likewise, of the folder of staging files
    :raises BackupRefusedError: there is something else
    """

    def __init__(self, disk: Disk, path: str, found: Found, store_id: str) -> None:
        self._disk, self._found, self._store_id = disk, found, store_id
        self.path = path
        self._fds: list[int] = []
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._check_place()
        folder = os.path.dirname(self.path)
        try:
            self._above = self._keep(self._disk.open_folder(folder, follow=True))
        except FileNotFoundError:
            raise self._refused(f"there is no folder {folder!r}") from None
        name = os.path.basename(self.path)
        self._is_new = self._check_new(name)
        self._name = name + UNFINISHED if self._is_new else name
        self.root = self._subfolder(self._name, self._above)
        if self._is_new:
            self._check_unfinished()
        locked = self._disk.lock_folder(self.root, shared=False)
        if locked is None:
            raise self._refused("another process makes a backup there, or uses it as a store")
        self._keep(locked)
        self._hidden = self._subfolder(HIDDEN, self.root)
        # First of all: an unfinished backup is known by it.
        self._write_marker()
        if not self._is_new:
            self._check_backup()
        self.working = self._subfolder(DEFAULT_WORKING_DIR, self.root)
        self.staging = self._subfolder(STAGING, self.working)
        self._remove_leftovers()

    # --- what is there -----------------------------------------------------------------------

    def _check_place(self) -> None:
        real = os.path.join(
            os.path.realpath(os.path.dirname(self.path)), os.path.basename(self.path)
        )
        for path in (self._found.storage_dir, self._found.working_dir):
            if is_within(real, os.path.realpath(path)):
                raise self._refused(f"it lies in the store itself, below {path!r}")
        try:
            found = self._disk.stat(DEFAULT_WORKING_DIR, dir_fd=self._found.storage)
        except FileNotFoundError:
            return
        working = self._disk.fstat(self._found.working)
        if (found.st_dev, found.st_ino) != (working.st_dev, working.st_ino):
            raise self._refused(
                f"the store has files in a folder {DEFAULT_WORKING_DIR!r}, where a backup has its"
                " working dir"
            )

    def _check_new(self, name: str) -> bool:
        """Whether nothing is there yet."""
        try:
            found = self._disk.stat(name, dir_fd=self._above)
        except FileNotFoundError:
            return True
        if not S_ISDIR(found.st_mode):
            raise self._refused("it is a file, or a link")
        folder = self._disk.open_folder(name, dir_fd=self._above)
        try:
            is_empty = next(iter(self._disk.list_folder(folder)), None) is None
            if not is_empty and self._read_marker(folder) != self._store_id:
                raise self._refused("it has something else than a backup of this store")
        finally:
            self._disk.close(folder)
        if is_empty and found.st_dev != self._disk.fstat(self._above).st_dev:
            raise self._refused("it is a mount point: name a folder in it")
        return is_empty

    def _check_backup(self) -> None:
        """Of what has our marker: whether it is a backup, and nobody worked with it."""
        names = self._names(DEFAULT_WORKING_DIR)
        if JOURNAL not in names:
            raise self._refused("it has something else than a backup of this store")
        if LOCKS in names:
            raise self._refused("somebody opened it as a store since it was made")

    def _check_unfinished(self) -> None:
        if set(self._disk.list_folder(self.root)) <= {HIDDEN}:
            return
        if self._read_marker(self.root) != self._store_id:
            raise self._refused(f"{self.path + UNFINISHED!r} is something else")

    def _names(self, folder: str) -> set[str]:
        try:
            fd = self._disk.open_folder(folder, dir_fd=self.root)
        except FileNotFoundError:
            return set()
        try:
            return set(self._disk.list_folder(fd))
        finally:
            self._disk.close(fd)

    def _read_marker(self, root: int) -> str | None:
        try:
            fd = self._disk.open(os.path.join(HIDDEN, MARKER), dir_fd=root, write=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return str(json.loads(self._disk.pread(fd, 65536, 0))["store"])
        except (ValueError, KeyError, TypeError):
            return None
        finally:
            self._disk.close(fd)

    def _refused(self, reason: str) -> BackupRefusedError:
        return BackupRefusedError(self.path, reason)

    # --- what is made ------------------------------------------------------------------------

    def _subfolder(self, name: str, above: int) -> int:
        with suppress(FileExistsError):  # an earlier backup's, finished or not
            self._disk.make_folder(name, _PRIVATE, dir_fd=above)
        return self._keep(self._disk.open_folder(name, dir_fd=above))

    def _write_marker(self) -> None:
        if self._read_marker(self.root) == self._store_id:
            return
        text = json.dumps({"store": self._store_id, "working_dir": DEFAULT_WORKING_DIR})
        fd, temporary = self.new_file()
        try:
            self._disk.pwrite(fd, text.encode(), 0)
            self._disk.flush(fd)
        finally:
            self._disk.close(fd)
        self.put(temporary, MARKER, self._hidden)

    def new_file(self) -> tuple[int, str]:
        """A file that has no place yet: its descriptor, to be closed, and its name for ``put``."""
        temporary = self.new_name()
        return self._disk.create(temporary, 0o600, dir_fd=self._hidden), temporary

    @staticmethod
    def new_name() -> str:
        """One that is removed where a crash leaves it."""
        return f"{MARKER}-{secrets.token_hex(16)}"

    @property
    def unplaced(self) -> int:
        """Descriptor of the folder of what has no place yet."""
        return self._hidden

    def put(self, temporary: str, name: str, folder: int) -> None:
        """Give something its place, in place of what is there."""
        self._disk.rename(temporary, name, source_dir=self._hidden, target_dir=folder)

    def _remove_leftovers(self) -> None:
        for folder, ours in ((self._hidden, TEMPORARY_MARKER), (self.working, TEMPORARY)):
            for name in [one for one in self._disk.list_folder(folder) if ours.match(one)]:
                self._disk.unlink(name, dir_fd=folder)

    @property
    def working_path(self) -> str:
        """Absolute path of the working dir."""
        return os.path.join(os.path.dirname(self.path), self._name, DEFAULT_WORKING_DIR)

    # --- the end -----------------------------------------------------------------------------

    def switch(self, journal: str) -> None:
        """Make all of it durable; then have the new journal take the place of the old one, or be
        the first: from now on the backup is the new one."""
        for above, name, fd in (
            (self._found.working, "", self.working),
            (self._found.working, STAGING, self.staging),
            (self._found.storage, HIDDEN, self._hidden),
        ):
            try:
                like = self._disk.open_folder(name or ".", dir_fd=above)
            except FileNotFoundError:
                continue
            try:
                self._disk.copy_attributes(like, fd)
            finally:
                self._disk.close(like)
        self._disk.flush_file_system(self.root)
        if not self._is_new:
            self._check_backup()
        self._disk.rename(journal, JOURNAL, source_dir=self.working, target_dir=self.working)
        self._disk.flush_folder(self.working)

    def finish(self) -> None:
        """Give a new backup its name.  Durable when it returns."""
        name = os.path.basename(self.path)
        if self._is_new:
            try:
                self._disk.rename(self._name, name, source_dir=self._above, target_dir=self._above)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EBUSY):
                    raise
                raise self._refused("something came there meanwhile") from error
        self._disk.flush_folder(self._above)

    def remove_staged(self, kept: set[str]) -> int:
        """Remove staging files that no row speaks of; how many."""
        gone = [name for name in self._disk.list_folder(self.staging) if name not in kept]
        for name in gone:
            self._disk.unlink(name, dir_fd=self.staging)
        return len(gone)

    def _keep(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    def close(self) -> None:
        while self._fds:
            self._disk.close(self._fds.pop())
