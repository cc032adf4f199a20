"""A normalised name -> a place inside the storage dir that no symbolic link can move.

``Places`` resolves links among the parents to a **canonical place**: a tuple of names that are no
links.  Later it walks exactly that place, with descriptors that refuse to follow links.  So a link
that is swapped in between makes an error, and never another place.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from stat import S_ISDIR, S_ISLNK

from txstore.errors import NameRefusedError
from txstore.local.files.disk import Disk
from txstore.process.strikes import pass_on

_MOST_LINKS = 40  # as the kernel: more is a loop
_FOLDER_MODE = 0o777  # less umask, like an ordinary new folder
_NOT_A_FOLDER = (errno.ENOTDIR, errno.ELOOP)

STAGING_NAME = re.compile(r"[ws][0-3][0-9a-f]-[0-9a-f]{32}\Z")  # 64 stripes

Place = tuple[str, ...]


def below_root(target: str, roots: Collection[str]) -> str | None:
    """What of an absolute link target lies below the storage dir, still to be walked: a ``..`` in
    it may stand behind another link.  ``None``: it leads out."""
    parts = target.split(os.sep)
    for end in range(1, len(parts) + 1):
        here = os.path.normpath(os.sep.join(parts[:end]) or os.sep)
        if here in roots and parts[end : end + 1] != [os.pardir]:
            return os.sep.join(parts[end:]) or os.curdir
    return None


def is_staging_name(name: str) -> bool:
    """Whether a file in a staging folder is one of the store's."""
    return STAGING_NAME.match(name) is not None


def place_bytes(place: Place) -> bytes:
    """A place as the journal keeps it and as its lock is picked."""
    return os.fsencode("/".join(place))


def place_of(recorded: bytes) -> Place:
    """The place that ``place_bytes`` recorded."""
    return tuple(os.fsdecode(recorded).split("/"))


class Parents:
    """The opened parents of a place, and which of them were made on the way.

    :ivar fds: descriptors from the storage dir down to the folder that will hold the file
    :ivar names: of those folders, each in the one before; the storage dir's is ``"."``
    """

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.fds: list[int] = []
        self.names: list[str] = []
        self._made: list[tuple[int, str]] = []

    @property
    def folder(self) -> int:
        return self.fds[-1]

    @property
    def nested(self) -> bool:
        return len(self.fds) > 1

    def entered(self, fd: int, name: str, *, made: bool = False) -> None:
        if made:
            self._made.append((self.folder, name))
        self.fds.append(fd)
        self.names.append(name)

    def remove_made(self) -> None:
        """Take back the folders that were made for a request which is refused after all."""
        for parent, name in reversed(self._made):
            try:
                self._disk.remove_folder(name, dir_fd=parent)
            except OSError as error:
                pass_on(error)
                return  # somebody uses it by now: then it stays, and so do those above it

    def close(self) -> None:
        while self.fds:
            self._disk.close(self.fds.pop())


class Places:
    """Finds and opens places.  Thread-safe; holds no state but descriptors of its owner.

    :param root: descriptor of the storage dir
    :param own: (device, inode) of the folders that belong to the store itself
    """

    def __init__(
        self, disk: Disk, storage_dir: str, root: int, own: frozenset[tuple[int, int]]
    ) -> None:
        self._disk = disk
        self._root = root
        self._roots = {storage_dir, os.path.realpath(storage_dir)}
        self._own = own

    def resolve(self, path: str, *, name: str, file_id: str | None) -> Place:
        """The canonical place of a normalised path: links among its parents are followed, as long
        as they stay inside the storage; parents that do not exist yet stay as they are.

        :raises NameRefusedError: a parent is a file, a link leads out, or a part is too long
        """
        done: list[str] = []
        todo = path.split(os.sep)
        links = 0
        missing = False
        while len(todo) > 1:
            part = todo.pop(0)
            if part in ("", os.curdir):
                continue
            if part == os.pardir:
                if not done:
                    raise NameRefusedError(
                        name, "a symbolic link in it leads out of the storage", file_id=file_id
                    )
                done.pop()
                missing = False
                continue
            target = None if missing else self._link_target(done, part, name, file_id)
            if target == "":
                missing = True
            if not target:
                done.append(part)
                continue
            links += 1
            if links > _MOST_LINKS:
                raise NameRefusedError(
                    name, "the symbolic links in it go in circles", file_id=file_id
                )
            if os.path.isabs(target):
                inside = below_root(target, self._roots)
                if inside is None:
                    raise NameRefusedError(
                        name, "a symbolic link in it leads out of the storage", file_id=file_id
                    )
                target, done = inside, []
            todo[:0] = target.split(os.sep)
        return (*done, todo[0])

    def _link_target(
        self, done: list[str], part: str, name: str, file_id: str | None
    ) -> str | None:
        """Where ``part`` leads if it is a link; ``""`` if it does not exist, ``None`` otherwise."""
        with self._walk((*done, part), create=False, name=name, file_id=file_id) as parents:
            if len(parents.fds) <= len(done):
                return ""
            try:
                found = self._disk.stat(part, dir_fd=parents.folder)
                if S_ISLNK(found.st_mode):
                    return self._disk.read_link(part, dir_fd=parents.folder)
            except FileNotFoundError:
                return ""
            except OSError as error:
                raise self._refusal(error, part, name, file_id) from None
            if not S_ISDIR(found.st_mode):
                raise NameRefusedError(name, f"its parent {part!r} is a file", file_id=file_id)
        return None

    @contextmanager
    def open_parents(self, place: Place, *, name: str, file_id: str | None) -> Iterator[Parents]:
        """Open the folders down to a canonical place, making those that are missing.

        Following no link: what was resolved is what is opened.  If the body raises, the folders
        made here are removed again, where they are empty.

        :raises NameRefusedError: a parent is (by now) a link, a file or one of the store's own
            folders, or the place is a folder
        """
        with self._walk(place, create=True, name=name, file_id=file_id) as parents:
            try:
                self._check_target(parents, place[-1], name, file_id)
                yield parents
            except Exception:
                parents.remove_made()
                raise

    @contextmanager
    def look(self, place: Place) -> Iterator[Parents]:
        """Open the folders down to a canonical place, making none.

        :raises FileNotFoundError: one is missing
        :raises NameRefusedError: one is no folder any more
        """
        name = "/".join(place)
        with self._walk(place, create=False, name=name, file_id=None) as parents:
            if len(parents.fds) < len(place):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
            yield parents

    @contextmanager
    def existing(self, place: Place, *, name: str, file_id: str | None) -> Iterator[Parents]:
        """Open the folders down to a canonical place as far as they exist, making none.

        :raises NameRefusedError: one is no folder any more
        """
        with self._walk(place, create=False, name=name, file_id=file_id) as parents:
            yield parents

    @contextmanager
    def _walk(
        self, place: Place, *, create: bool, name: str, file_id: str | None
    ) -> Iterator[Parents]:
        """Open the parents of a place; without ``create`` only as far as they exist."""
        parents = Parents(self._disk)
        try:
            parents.entered(self._disk.open_folder(".", dir_fd=self._root), os.curdir)
            for part in place[:-1]:
                try:
                    fd, made = self._enter(parents.folder, part, create)
                except FileNotFoundError:
                    if create:
                        raise
                    break
                except OSError as error:
                    parents.remove_made()
                    raise self._refusal(error, part, name, file_id) from error
                parents.entered(fd, part, made=made)
                found = self._disk.fstat(fd)
                if (found.st_dev, found.st_ino) in self._own:
                    parents.remove_made()
                    raise NameRefusedError(
                        name, "it lies in the store's own folders", file_id=file_id
                    )
            yield parents
        finally:
            parents.close()

    def _enter(self, folder: int, part: str, create: bool) -> tuple[int, bool]:
        """A descriptor of a subfolder, and whether it was made just now."""
        made = False
        while True:
            try:
                return self._disk.open_folder(part, dir_fd=folder), made
            except FileNotFoundError:
                if not create:
                    raise
            try:
                self._disk.make_folder(part, _FOLDER_MODE, dir_fd=folder)
                made = True
            except FileExistsError:
                made = False  # another worker was first: it is theirs to take back

    def _check_target(self, parents: Parents, last: str, name: str, file_id: str | None) -> None:
        try:
            found = self._disk.stat(last, dir_fd=parents.folder)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._refusal(error, last, name, file_id) from None
        if S_ISDIR(found.st_mode):
            raise NameRefusedError(name, "a folder has that name", file_id=file_id)

    @staticmethod
    def _refusal(
        error: OSError, part: str, name: str, file_id: str | None
    ) -> OSError | NameRefusedError:
        """What a failed step down means for the sender; other errors stay the kernel's."""
        if error.errno == errno.ENAMETOOLONG:
            return NameRefusedError(name, f"its part {part!r:.60} is too long", file_id=file_id)
        if error.errno in _NOT_A_FOLDER:
            return NameRefusedError(
                name, f"its parent {part!r} is a file, or became a symbolic link", file_id=file_id
            )
        return error
