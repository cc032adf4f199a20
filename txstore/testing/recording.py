"""A disk that really does what it is told, and takes down on a ``Platter`` what that changed."""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Callable, Iterator
from typing import TypeVar

from txstore.disk import Disk
from txstore.testing import operations as ops
from txstore.testing.identities import role_of
from txstore.testing.journalling import JournalRecorder
from txstore.testing.powerloss import Platter, Tree
from txstore.testing.sqlite import SimulatedConnection, kind_of, looked_at

T = TypeVar("T")


class RecordingDisk(JournalRecorder, Disk):
    """What ``SimulatedDisk`` says, without the failures."""

    def __init__(
        self,
        root: str,
        platter: Platter | None = None,
        keys: dict[tuple[int, int], int] | None = None,
        *,
        mounts: tuple[str, ...] = (),
        record: bool = True,
    ) -> None:
        super().__init__(root, platter or Platter(), keys, record)
        self.log: list[ops.Operation] = []
        self._mounts = [os.path.join(root, mount) for mount in mounts]

    def _did(self, op: ops.Operation) -> None:
        if self._record:
            self.log.append(op)
            self.platter.apply(op)

    # --- files -------------------------------------------------------------------------------

    def create(self, name: str, mode: int, *, dir_fd: int) -> int:
        return self._made(super().create(name, mode, dir_fd=dir_fd), name, dir_fd)

    def create_there(self, name: str, folder: int, mode: int, *, dir_fd: int) -> int:
        return self._made(super().create_there(name, folder, mode, dir_fd=dir_fd), name, dir_fd)

    def _made(self, fd: int, name: str, dir_fd: int) -> int:
        folder, tail = self._folder_key(dir_fd, name)
        if folder is None:
            return fd
        found = os.fstat(fd)
        key = self._new_key()
        mode = modes.S_IMODE(found.st_mode)
        op = ops.Create(folder, tail, key, self._free_number(), mode, role_of(tail))
        self._keys[found.st_dev, found.st_ino] = key
        self._did_make(op)
        self._wrote(fd, key)
        self._open[fd] = key
        return fd

    def _did_make(self, op: ops.Create | ops.MakeFolder) -> None:
        if self._record:
            self._did(op)
        else:
            self.platter.apply(op)  # its number must stay known

    def open(self, name: str, *, dir_fd: int | None = None, write: bool = True) -> int:
        return self._opened(super().open(name, dir_fd=dir_fd, write=write))

    def open_folder(self, name: str, *, dir_fd: int | None = None, follow: bool = False) -> int:
        return self._opened(super().open_folder(name, dir_fd=dir_fd, follow=follow))

    def _opened(self, fd: int) -> int:
        key = self._key_of(fd)
        if key is not None:
            self._open[fd] = key
        return fd

    def open_or_create(self, name: str, mode: int, *, dir_fd: int) -> int:
        fd = super().open_or_create(name, mode, dir_fd=dir_fd)
        return fd if self._key_of(fd) is not None else self._made(fd, name, dir_fd)

    def close(self, fd: int) -> None:
        self._open.pop(fd, None)
        super().close(fd)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        done = super().pwrite(fd, data, offset)
        key = self._key_of(fd)
        if key is not None and done:
            self._did(ops.Write(key, offset, bytes(data[:done])))
            self._wrote(fd, key)
        return done

    def allocate(self, fd: int, size: int) -> None:
        before = os.fstat(fd).st_size
        super().allocate(fd, size)
        key = self._key_of(fd)
        if key is not None and size > before:
            self._did(ops.Write(key, before, bytes(size - before)))
            self._wrote(fd, key)

    def truncate(self, fd: int, size: int) -> None:
        super().truncate(fd, size)
        key = self._key_of(fd)
        if key is not None:
            self._did(ops.Cut(key, size))
            self._wrote(fd, key)

    def fstat(self, fd: int) -> os.stat_result:
        return self._seen(os.fstat(fd))

    def inode_behind(self, fd: int) -> tuple[int, int] | None:
        try:
            found = self._seen(os.fstat(fd))
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def chmod(self, fd: int, mode: int) -> None:
        super().chmod(fd, mode)
        key = self._key_of(fd)
        if key is not None:
            self._did(ops.Mode(key, mode))

    def flush(self, fd: int) -> None:
        super().flush(fd)
        self._flushed(fd)

    def flush_all(self, fd: int) -> None:
        super().flush_all(fd)
        self._flushed(fd, whole=True)

    def _flushed(self, fd: int, *, failed: bool = False, whole: bool = False) -> None:
        key = self._key_of(fd)
        if key is not None:
            self._did(ops.Flush(key, failed, whole))

    # --- names -------------------------------------------------------------------------------

    def flush_folder(self, fd: int) -> None:
        super().flush_folder(fd)
        key = self._key_of(fd)
        if key is not None:
            self._did(ops.FlushFolder(key))

    def make_folder(self, name: str, mode: int, *, dir_fd: int | None = None) -> None:
        super().make_folder(name, mode, dir_fd=dir_fd)
        folder, tail = self._folder_key(dir_fd, name)
        if folder is None:
            return
        found = os.stat(name, dir_fd=dir_fd)
        key = self._keys[found.st_dev, found.st_ino] = self._new_key()
        made = modes.S_IMODE(found.st_mode)
        self._did_make(ops.MakeFolder(folder, tail, key, self._free_number(), made))

    def chmod_folder(self, name: str, mode: int, *, dir_fd: int | None = None) -> None:
        super().chmod_folder(name, mode, dir_fd=dir_fd)
        found = os.stat(name, dir_fd=dir_fd)
        key = self._keys.get((found.st_dev, found.st_ino))
        if key is not None:
            self._did(ops.Mode(key, mode))

    def remove_folder(self, name: str, *, dir_fd: int) -> None:
        super().remove_folder(name, dir_fd=dir_fd)
        self._removed(name, dir_fd)

    def unlink(self, name: str, *, dir_fd: int) -> None:
        super().unlink(name, dir_fd=dir_fd)
        self._removed(name, dir_fd)

    def _removed(self, name: str, dir_fd: int) -> None:
        folder, tail = self._folder_key(dir_fd, name)
        if folder is not None:
            self._did(ops.Remove(folder, tail))

    def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        if self._mount_of(source_dir) != self._mount_of(target_dir):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        super().rename(source, target, source_dir=source_dir, target_dir=target_dir)
        source_key, target_key = self._key_of(source_dir), self._key_of(target_dir)
        if source_key is not None and target_key is not None:
            self._did(ops.Rename(source_key, source, target_key, target))

    def _mount_of(self, fd: int) -> str | None:
        if not self._mounts:
            return None
        path = os.readlink(f"/proc/self/fd/{fd}") + os.sep
        return next((mount for mount in self._mounts if path.startswith(mount + os.sep)), None)

    def link(self, source: str, target: str, *, dir_fd: int) -> None:
        super().link(source, target, dir_fd=dir_fd)
        key = self._key_of(dir_fd)
        if key is not None:
            self._did(ops.Hardlink(key, source, target))

    def stat(self, name: str, *, dir_fd: int | None = None, follow: bool = False) -> os.stat_result:
        return self._seen(os.stat(name, dir_fd=dir_fd, follow_symlinks=follow))

    def names_version(self, folder: str) -> tuple[int, int, int] | None:
        try:
            found = self._seen(os.stat(folder))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_dev, found.st_ino, found.st_ctime_ns

    def list_folder(self, fd: int) -> Iterator[str]:
        return iter(sorted(super().list_folder(fd)))

    # --- the journal -------------------------------------------------------------------------

    # SQLite's index is not recorded: it is made anew after every crash.  Nor are tokens in the lock
    # file: they are for the living, and random.

    def ask_sqlite(self, connection: SimulatedConnection, sql: str, act: Callable[[], T]) -> T:
        """Have SQLite carry out a statement, and take down what it does to the files."""
        kind, recorded = kind_of(sql), self._record and connection.writes
        if kind == "close":
            level = connection.flush_level() if recorded else 0
            done = act()
            if connection.writes:
                # Whoever is not the last changes nothing, and flushes nothing.
                last = not os.path.exists(connection.file + "-wal")
                self._sqlite_wrote(connection.file, level, settled=True, complete=last)
            return done
        done, complete = act(), False
        if kind == "checkpoint":
            done, complete = looked_at(done)
        if not recorded or (connection.in_transaction and kind != "checkpoint"):
            return done
        if kind != "read" or not self._knows_wal(connection.file):
            level = connection.flush_level()
            settled = kind == "checkpoint"
            self._sqlite_wrote(connection.file, level, settled=settled, complete=complete)
        return done

    def crashed(self) -> Tree:
        """What a crash of the process would leave now."""
        return self.platter.kernel()
