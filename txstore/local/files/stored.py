"""Reading what is stored: the list of files, and a file by name, never beyond the borders.

Like storing, reading follows a symbolic link only as long as it stays inside the storage.  It does
so descriptor by descriptor, so a link that is swapped in meanwhile leads nowhere else.  The store's
own folders are not part of the storage.
"""

from __future__ import annotations

import errno
import os
import stat
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, NamedTuple

from txstore.errors import NameRefusedError
from txstore.local.files.places import below_root
from txstore.protocol.names import HIDDEN, NameRules
from txstore.protocol.stored import StoredFile

_MOST_LINKS = 40  # as the kernel: more is a loop
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not blocking, or opening a pipe would wait for its writer.
_ANYTHING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

#: Hash of a stored file (hex) if a completion still describes it: name, what is there now.
KnownHash = Callable[[str, os.stat_result], "str | None"]


@dataclass(frozen=True)
class Opened:
    """A stored file, open for reading; stays the same file when its name goes to another.

    :ivar file: to be closed by the caller
    :ivar size: bytes when it was opened
    :ivar mtime_ns: time of the last change before it was opened, ns since 1970
    :ivar sha256: lower-case hex if it is known without reading the file, else ``None``
    :ivar identity: equal for the same file in the same state
    """

    file: BinaryIO
    size: int
    mtime_ns: int
    sha256: str | None
    identity: tuple[int, ...]

    def changed(self) -> bool:
        """Whether something has written into the file since it was opened."""
        found = os.fstat(self.file.fileno())
        return (found.st_size, found.st_mtime_ns) != (self.size, self.mtime_ns)


class StoredFiles:
    """The files of one storage.  Holds nothing open; safe to use from any thread.

    :param storage_dir: absolute path
    :param working_dir: absolute path
    :param known_sha256: looks a hash up in the completions; by default none is known
    """

    def __init__(
        self, storage_dir: str, working_dir: str, known_sha256: KnownHash | None = None
    ) -> None:
        self._storage_dir = storage_dir
        self._rules = NameRules(storage_dir, working_dir)
        self._own = (working_dir, os.path.join(storage_dir, HIDDEN))
        self._known_sha256 = known_sha256 or (lambda _name, _found: None)

    def files(self, after: str | None = None, limit: int | None = None) -> Iterator[StoredFile]:
        """The regular files, in the order of their names, folder by folder.

        Symbolic links are not followed, so each file comes once; files that come or go meanwhile
        may be left out.

        :param after: the name after which to begin; it need not exist any more
        :param limit: how many at most
        :raises OSError: the storage dir cannot be read
        """
        if limit is not None and limit <= 0:
            return
        skip = [os.fsencode(part) for part in after.split("/")] if after else []
        with ExitStack() as stack:
            walk = stack.enter_context(closing(_walk(self._storage_dir, skip, self._own_folders())))
            for count, (name, found) in enumerate(walk, start=1):
                yield StoredFile(name, found.st_size, found.st_mtime_ns, self._known(name, found))
                if count == limit:
                    return

    def open(self, name: str) -> Opened:
        """Open a stored file by the name it was stored under.

        :raises NameRefusedError: the name leads out of the storage or into the store's own folders
        :raises FileNotFoundError: nothing is stored there
        :raises IsADirectoryError: it is a folder
        :raises OSError: it cannot be opened, or is no regular file (``EINVAL``)
        """
        path = self._rules.normalise(name, None)
        fd = self._open(path, name)
        try:
            found = os.fstat(fd)
            if stat.S_ISDIR(found.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "Not a regular file", name)
            sha256 = self._known_sha256(path, found)
            file = os.fdopen(fd, "rb")
        except BaseException:
            os.close(fd)
            raise
        return Opened(file, found.st_size, found.st_mtime_ns, sha256, _identity(found))

    def _known(self, name: str, found: os.stat_result) -> str | None:
        try:
            return self._known_sha256(name, found)
        except NameRefusedError:
            return None  # somebody else put it there, deeper than any name may lead

    def _open(self, path: str, name: str) -> int:
        """A descriptor of what lies under a normalised path, links inside the storage followed."""
        own = self._own_folders()
        links = 0
        todo = path.split(os.sep)
        with ExitStack() as stack:
            folders = [_open_folder(stack, self._storage_dir)]
            while todo:
                part = todo.pop(0)
                if part == os.pardir:
                    folders.pop()
                if not folders:
                    raise _leads_out(name)
                if part in ("", os.curdir, os.pardir):
                    continue
                target = _link_target(part, folders[-1])
                if target is not None:
                    links += 1
                    if links > _MOST_LINKS:
                        raise NameRefusedError(name, "the symbolic links in it go in circles")
                    if os.path.isabs(target):
                        roots = (self._storage_dir, os.path.realpath(self._storage_dir))
                        inside = below_root(target, roots)
                        if inside is None:
                            raise _leads_out(name)
                        target = inside
                        del folders[1:]
                    todo[:0] = target.split(os.sep)
                elif todo:
                    folders.append(_enter(stack, part, folders[-1], own, name))
                else:
                    return os.open(part, _ANYTHING, dir_fd=folders[-1])
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)

    def _own_folders(self) -> frozenset[tuple[int, int]]:
        found = set()
        for path in self._own:
            try:
                found.add(_place(os.stat(path)))
            except FileNotFoundError:
                continue  # the hidden folder is only there where it is needed
        return frozenset(found)


class _Folder(NamedTuple):
    """A folder on the way of a walk: where it is, and what is still to be looked at in it."""

    prefix: str
    place: tuple[int, int]
    names: Iterator[bytes]
    skip: list[bytes]


def _walk(
    storage_dir: str, skip: list[bytes], own: frozenset[tuple[int, int]]
) -> Generator[tuple[str, os.stat_result], None, None]:
    """The files from a name on.  Folders may be deeper than there are descriptors or stack for."""
    fd = os.open(storage_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        above: list[_Folder] = []
        folder = _folder(fd, "", skip)
        while True:
            for part in folder.names:
                name = os.fsdecode(part)
                found = _look(name, fd, own)
                if isinstance(found, os.stat_result):
                    if folder.skip[:1] != [part]:
                        yield folder.prefix + name, found
                elif found is not None:
                    fd = _instead(fd, found)
                    above.append(folder)
                    inside = folder.skip[1:] if folder.skip[:1] == [part] else []
                    folder = _folder(fd, f"{folder.prefix}{name}/", inside)
                    break
            else:
                if not above:
                    return
                folder = above.pop()
                fd = _instead(fd, os.open(os.pardir, _FOLDER, dir_fd=fd))
                if _place(os.fstat(fd)) != folder.place:
                    raise OSError(errno.EAGAIN, "A folder was moved while it was listed")
    finally:
        os.close(fd)


def _folder(fd: int, prefix: str, skip: list[bytes]) -> _Folder:
    with os.scandir(fd) as entries:
        names = sorted(os.fsencode(entry.name) for entry in entries)
    start = bisect_left(names, skip[0]) if skip else 0
    return _Folder(prefix, _place(os.fstat(fd)), islice(names, start, None), skip)


def _look(name: str, folder: int, own: frozenset[tuple[int, int]]) -> os.stat_result | int | None:
    """What is known of a file, or a descriptor of a folder; ``None`` for all else."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode):
            return found
        if not stat.S_ISDIR(found.st_mode) or _place(found) in own:
            return None
        return os.open(name, _FOLDER, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None  # gone meanwhile, or not for us: then it is no stored file of ours
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None  # became a link meanwhile
        raise


def _instead(fd: int, other: int) -> int:
    os.close(fd)
    return other


def _open_folder(stack: ExitStack, path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _enter(
    stack: ExitStack, part: str, folder: int, own: frozenset[tuple[int, int]], name: str
) -> int:
    fd = os.open(part, _FOLDER, dir_fd=folder)
    stack.callback(os.close, fd)
    if _place(os.fstat(fd)) in own:
        raise NameRefusedError(name, "it lies in the store's own folders")
    return fd


def _link_target(part: str, folder: int) -> str | None:
    try:
        return os.readlink(part, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None  # not a link
        raise


def _leads_out(name: str) -> NameRefusedError:
    return NameRefusedError(name, "a symbolic link in it leads out of the storage")


def _place(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _identity(found: os.stat_result) -> tuple[int, ...]:
    return (
        *_place(found),
        *(found.st_size, found.st_mtime_ns, found.st_ctime_ns),
    )


def strange_in(storage_dir: str, own: frozenset[tuple[int, int]]) -> Iterator[tuple[str, str]]:
    """What is in a storage and is neither a file nor a folder that can be read: names, and why.

    :param own: (device, inode) of folders that are left out
    """
    unread: list[OSError] = []
    for folder, folders, names in os.walk(storage_dir, onerror=unread.append):
        for name in [*folders, *names]:
            path = os.path.join(folder, name)
            found = os.lstat(path)
            if name in folders and _place(found) in own:
                folders.remove(name)
            elif not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
                link = stat.S_ISLNK(found.st_mode)
                yield (
                    os.path.relpath(path, storage_dir),
                    "it is a symbolic link" if link else "it is no file",
                )
        while unread:
            error = unread.pop()
            yield os.path.relpath(str(error.filename), storage_dir), str(error.strerror)
