"""Stored files, copied beside workers that publish.

A worker changes a stored file only by putting another in its place.  So a second name for the file
is a copy that stays what it is; where the file system has none of these, blocks are shared, or
bytes are copied.  A folder is listed twice: some file systems leave out of one listing a name whose
file is replaced meanwhile.

Folders are entered one by one by their descriptors, so that a link which is swapped in between
leads nowhere else; and left by ``..``, as they may be deeper than there are descriptors for.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from stat import S_IMODE, S_ISDIR, S_ISLNK, S_ISREG

from txstore.backups import Backup, LeftOut, Tell
from txstore.local.backup.copying import NOT_OFFERED, Copier
from txstore.local.backup.destination import Destination
from txstore.local.files.descriptors import Inode, inode_of
from txstore.local.looking.found import Found
from txstore.protocol.names import DEFAULT_WORKING_DIR, HIDDEN

_ENTERED = 0o700
_LISTINGS = 2
_OURS = frozenset({DEFAULT_WORKING_DIR, HIDDEN})


@dataclass
class _Folder:
    """A folder that is being copied.

    :ivar parts: where it is
    :ivar inodes: what it is in the store, and in the backup
    :ivar seen: names that were copied
    :ivar left: names that are to be
    :ivar listings: how often it was listed
    """

    parts: tuple[str, ...]
    inodes: tuple[Inode, Inode]
    seen: set[str] = field(default_factory=set)
    left: list[str] = field(default_factory=list)
    listings: int = 0


class Tree:
    """Copies all that is stored.  For one thread.

    :param links: whether files get a second name where that can be
    """

    def __init__(
        self,
        found: Found,
        destination: Destination,
        copier: Copier,
        backup: Backup,
        tell: Tell,
        *,
        links: bool,
    ) -> None:
        self._disk, self._root, self._own = found.disk, found.storage, found.own_folders()
        self._destination, self._copier, self._links = destination, copier, links
        self._backup, self._tell = backup, tell
        #: What the store has no more, relative to the backup.
        self._gone: list[str] = []
        self._source = self._target = -1

    # --- folders -----------------------------------------------------------------------------

    def copy(self) -> None:
        """Copy everything."""
        try:
            self._source = self._disk.open_folder(".", dir_fd=self._root)
            self._target = self._disk.open_folder(".", dir_fd=self._destination.root)
            self._walk()
        finally:
            for fd in (self._source, self._target):
                if fd >= 0:
                    self._disk.close(fd)
            self._source = self._target = -1

    def _walk(self) -> None:
        above: list[_Folder] = []
        folder = self._here(())
        while True:
            if folder.left:
                name = folder.left.pop()
                if self._copy_name(name, folder):
                    above.append(folder)
                    folder = self._here((*folder.parts, name))
            elif folder.listings < _LISTINGS:
                folder.listings += 1
                new = set(self._disk.list_folder(self._source)) - folder.seen
                folder.seen |= new
                folder.left = sorted(new, reverse=True)
            else:
                self._leave(folder)
                if not above:
                    return
                folder = above.pop()
                self._go(os.pardir, os.pardir)
                if self._here(()).inodes != folder.inodes:
                    raise OSError(errno.EAGAIN, "A folder was moved while it was copied")

    def _here(self, parts: tuple[str, ...]) -> _Folder:
        source, target = (self._disk.fstat(fd) for fd in (self._source, self._target))
        return _Folder(parts, (inode_of(source), inode_of(target)))

    def _go(self, source: str, target: str) -> None:
        entered = self._disk.open_folder(source, dir_fd=self._source)
        self._disk.close(self._source)
        self._source = entered
        entered = self._disk.open_folder(target, dir_fd=self._target)
        self._disk.close(self._target)
        self._target = entered

    def _leave(self, folder: _Folder) -> None:
        for name in self._disk.list_folder(self._target):
            if name not in folder.seen and (folder.parts or name not in _OURS):
                self._gone.append(os.path.join(*folder.parts, name))
        self._disk.copy_attributes(self._source, self._target)

    # --- names -------------------------------------------------------------------------------

    def _copy_name(self, name: str, folder: _Folder) -> bool:
        """Copy what has a name; ``True``: it is a folder, which was entered."""
        try:
            with _reading():
                found = self._disk.stat(name, dir_fd=self._source)
            if S_ISDIR(found.st_mode):
                return inode_of(found) not in self._own and self._enter(name)
            if S_ISREG(found.st_mode):
                self._copy_file(name, found)
            elif S_ISLNK(found.st_mode):
                self._copy_link(name)
            else:
                raise _LeftOutError("it is neither a file nor a folder nor a link")
            self._backup.files += 1
        except (FileNotFoundError, NotADirectoryError):
            return False  # gone, or another, which is not the store's doing
        except _LeftOutError as error:
            self._backup.left_out.append(LeftOut(os.path.join(*folder.parts, name), str(error)))
        self._tell(self._backup)
        return False

    def _enter(self, name: str) -> bool:
        fd = self._disk.open_folder(name, dir_fd=self._source)
        try:
            with _reading():
                next(iter(self._disk.list_folder(fd)), None)
        finally:
            self._disk.close(fd)
        have = self._standing(name)
        if have is not None and not S_ISDIR(have.st_mode):
            self._disk.unlink(name, dir_fd=self._target)
            have = None
        if have is None:
            self._disk.make_folder(name, _ENTERED, dir_fd=self._target)
        elif have.st_mode & _ENTERED != _ENTERED:
            self._disk.chmod_folder(name, S_IMODE(have.st_mode) | _ENTERED, dir_fd=self._target)
        self._go(name, name)
        return True

    def _standing(self, name: str) -> os.stat_result | None:
        """What the backup has under a name."""
        try:
            return self._disk.stat(name, dir_fd=self._target)
        except FileNotFoundError:
            return None

    # --- files -------------------------------------------------------------------------------

    def _copy_file(self, name: str, found: os.stat_result) -> None:
        have = self._standing(name)
        if have is not None:
            if _is_same(found, have):
                self._backup.unchanged += 1
                return
            if S_ISDIR(have.st_mode):
                self._remove(name, self._target)
                have = None
        if not self._give_second_name(name):
            while not self._copy_opened(name):
                pass  # another took its place meanwhile

    def _give_second_name(self, name: str) -> bool:
        if not self._links:
            return False
        temporary = self._destination.new_name()
        folders = {"source_dir": self._source, "target_dir": self._destination.unplaced}
        try:
            self._disk.link_to(name, temporary, **folders)
        except OSError as error:
            if error.errno not in NOT_OFFERED:
                raise
            self._links = error.errno in _OF_ONE_FILE
            return False
        self._destination.put(temporary, name, self._target)
        self._backup.linked += 1
        return True

    def _copy_opened(self, name: str) -> bool:
        """Copy a file; whether it has its name still.

        Whoever replaces it later gives it a time of change that is not before that of the copy: so
        the next backup sees it, also where size and time are the same.
        """
        with _reading():
            source = self._disk.open(name, dir_fd=self._source, write=False)
        try:
            before = self._disk.fstat(source)
            target, temporary = self._destination.new_file()
            try:
                self._copier.copy_file(source, target)
                self._disk.copy_attributes(source, target)
                self._disk.flush_all(target)
            finally:
                self._disk.close(target)
            self._destination.put(temporary, name, self._target)
        finally:
            self._disk.close(source)
        now = self._disk.stat(name, dir_fd=self._source)
        return (inode_of(now), now.st_ctime_ns) == (inode_of(before), before.st_ctime_ns)

    def _copy_link(self, name: str) -> None:
        leads_to = self._disk.read_link(name, dir_fd=self._source)
        have = self._standing(name)
        if have is not None and S_ISLNK(have.st_mode):
            if self._disk.read_link(name, dir_fd=self._target) == leads_to:
                self._backup.unchanged += 1
                return
        elif have is not None and S_ISDIR(have.st_mode):
            self._remove(name, self._target)
        temporary = self._destination.new_name()
        self._disk.make_link(leads_to, temporary, dir_fd=self._destination.unplaced)
        self._destination.put(temporary, name, self._target)
        self._backup.copied += 1

    # --- what the store has no more ----------------------------------------------------------

    def remove_gone(self) -> None:
        """Remove from an earlier backup what the store has no more."""
        for path in self._gone:
            self._remove(path, self._destination.root)
            self._backup.removed += 1

    def _remove(self, path: str, folder: int) -> None:
        with suppress(FileNotFoundError):
            if not S_ISDIR(self._disk.stat(path, dir_fd=folder).st_mode):
                self._disk.unlink(path, dir_fd=folder)
                return
            self._disk.chmod_folder(path, _ENTERED, dir_fd=folder)
            inner = self._disk.open_folder(path, dir_fd=folder)
            try:
                for name in list(self._disk.list_folder(inner)):
                    self._remove(name, inner)
            finally:
                self._disk.close(inner)
            self._disk.remove_folder(path, dir_fd=folder)


class _LeftOutError(Exception):
    """Something cannot be copied; the message says why."""


@contextmanager
def _reading() -> Iterator[None]:
    """Leave out what this user may not read; it is no error of the backup's disk."""
    try:
        yield
    except PermissionError as error:
        raise _LeftOutError("it may not be read") from error


#: A file that cannot have another name, where others can.
_OF_ONE_FILE = frozenset({errno.EPERM, errno.EACCES, errno.EMLINK})


def _is_same(found: os.stat_result, have: os.stat_result) -> bool:
    """Whether a backup has a file as it is."""
    if inode_of(found) == inode_of(have):
        return True
    facts = [
        (one.st_mode, one.st_size, one.st_mtime_ns)
        + ((one.st_uid, one.st_gid) if os.geteuid() == 0 else ())
        for one in (found, have)
    ]
    return facts[0] == facts[1] and found.st_ctime_ns < have.st_ctime_ns
