"""A disk that really does what it is told, keeps a record of it, and fails when it is told to.

It records on a ``Platter`` what every operation does to the kernel's and to the device's view of
the files.  So at any point it can be asked what a process crash or a power loss would leave.

SQLite does its own I/O.  After each of its calls that can have written, the journal's files are
compared with what is recorded.  The difference is taken down in the order in which SQLite makes it,
with the flushes that it makes at ``synchronous=NORMAL``.  These are: the header of a WAL that
begins anew and, with it, the WAL's name; at a checkpoint first the WAL, then the pages in the
database, then the database.  A commit is not flushed, unless ``synchronous=FULL``.  Which level it
is, is asked of the connection each time.  The database file is read by another process: closing any
descriptor of it in this one would drop SQLite's locks.

Inode numbers are the simulation's own, as small and as soon used again as on a real file system,
and stay the same when a state is built into another folder; so do times of change.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat as modes
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from txstore.disk import Disk
from txstore.testing import operations as ops
from txstore.testing.faults import Fault, FaultPlan, SimulatedCrash, raise_fault
from txstore.testing.identities import role_of
from txstore.testing.journalling import JournalRecorder
from txstore.testing.powerloss import Platter, Tree
from txstore.testing.sqlite import SimulatedConnection, kind_of, looked_at

T = TypeVar("T")


class SimulatedDisk(JournalRecorder, Disk):
    """A disk over one real folder, below which the storage and the working dir lie.

    :param root: absolute path of the folder
    :param platter: what is recorded of the folder so far, with ``keys`` as ``Tree.build`` answered
        it; by default what is in the folder now, all of it durable
    :param faults: what goes wrong
    :param boot: identity of this boot of the machine; ``None``: the real one
    :param mounts: subfolders of ``root`` from and to which nothing can be renamed (EXDEV)
    :param record: ``False``: only the inode numbers are simulated
    :ivar log: all operations so far
    """

    def __init__(
        self,
        root: str,
        platter: Platter | None = None,
        keys: dict[tuple[int, int], int] | None = None,
        *,
        faults: FaultPlan | None = None,
        boot: str | None = None,
        mounts: tuple[str, ...] = (),
        record: bool = True,
    ) -> None:
        super().__init__(root, platter or Platter(), keys, record)
        self.faults = faults or FaultPlan()
        self.boot = boot
        self.dead = False
        self.log: list[ops.Operation] = []
        self._mounts = [os.path.join(root, mount) for mount in mounts]
        self._mutex = threading.RLock()
        self._struck: list[Fault] = []  # by the call that is being made

    def note(self, what: Any) -> None:
        """Put a remark into the log."""
        with self._mutex:
            self.log.append(ops.Note(what))

    def boot_id(self) -> str:
        return super().boot_id() if self.boot is None else self.boot

    # --- one call ----------------------------------------------------------------------------

    def _call(self, name: str, path: str, act: Callable[[], T]) -> T:
        with self._mutex:
            if self.dead:
                raise SimulatedCrash(f"{name} {path}")
            struck = self._struck = self.faults.struck(name, path)
            for fault in struck:
                if not fault.after:
                    self._strike(fault, name, path)
            done = act()
            for fault in struck:
                if fault.after:
                    self._strike(fault, name, path)
            return done

    def _strike(self, fault: Fault, name: str, path: str) -> None:
        self.dead = self.dead or fault.error is None
        raise_fault(fault, name, path)

    def _did(self, op: ops.Operation) -> None:
        if self._record:
            self.log.append(op)
            self.platter.apply(op)

    # --- files -------------------------------------------------------------------------------

    def create(self, name: str, mode: int, *, dir_fd: int) -> int:
        return self._call("create", name, lambda: self._create(name, mode, dir_fd))

    def _create(self, name: str, mode: int, dir_fd: int) -> int:
        fd = super().create(name, mode, dir_fd=dir_fd)
        self._made(fd, name, dir_fd)
        return fd

    def _made(self, fd: int, name: str, dir_fd: int) -> None:
        folder, tail = self._folder_key(dir_fd, name)
        if folder is None:
            return
        found = os.fstat(fd)
        key = self._new_key()
        mode = modes.S_IMODE(found.st_mode)
        op = ops.Create(folder, tail, key, self._free_number(), mode, role_of(tail))
        self._keys[found.st_dev, found.st_ino] = key
        self._did_create(op)
        self._wrote(fd, key)
        self._open[fd] = key

    def _did_create(self, op: ops.Create) -> None:
        if self._record:
            self._did(op)
        else:
            self.platter.apply(op)  # its number must stay known

    def open(self, name: str, *, dir_fd: int | None = None, write: bool = True) -> int:
        return self._call("open", name, lambda: self._opened(name, dir_fd, write))

    def _opened(self, name: str, dir_fd: int | None, write: bool) -> int:
        fd = super().open(name, dir_fd=dir_fd, write=write)
        key = self._key_of(fd)
        if key is not None:
            self._open[fd] = key
        return fd

    def open_or_create(self, name: str, mode: int, *, dir_fd: int) -> int:
        def act() -> int:
            fd = super(SimulatedDisk, self).open_or_create(name, mode, dir_fd=dir_fd)
            if self._key_of(fd) is None:
                self._made(fd, name, dir_fd)
            return fd

        return self._call("open_or_create", name, act)

    def close(self, fd: int) -> None:
        with self._mutex:
            self._open.pop(fd, None)
            if self.dead:
                super().close(fd)
                return
            try:
                self._call("close", "", lambda: None)
            finally:
                super().close(fd)  # as the kernel does, also when it reports an error

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        return self._call("pread", "", lambda: super(SimulatedDisk, self).pread(fd, size, offset))

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        def act() -> int:
            shortened = any(fault.short for fault in self._struck) and len(data) > 1
            return self._pwrite(fd, data[: len(data) // 2] if shortened else data, offset)

        return self._call("pwrite", self._name_of(self._key_of(fd)), act)

    def _pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        done = super().pwrite(fd, data, offset)
        key = self._key_of(fd)
        if key is not None and done:
            self._did(ops.Write(key, offset, bytes(data[:done])))
            self._wrote(fd, key)
        return done

    def allocate(self, fd: int, size: int) -> None:
        def act() -> None:
            before = os.fstat(fd).st_size
            super(SimulatedDisk, self).allocate(fd, size)
            key = self._key_of(fd)
            if key is not None and size > before:
                self._did(ops.Write(key, before, bytes(size - before)))
                self._wrote(fd, key)

        self._call("allocate", "", act)

    def truncate(self, fd: int, size: int) -> None:
        def act() -> None:
            super(SimulatedDisk, self).truncate(fd, size)
            key = self._key_of(fd)
            if key is not None:
                self._did(ops.Cut(key, size))
                self._wrote(fd, key)

        self._call("truncate", "", act)

    def start_flush(self, fd: int) -> None:
        self._call("start_flush", "", lambda: super(SimulatedDisk, self).start_flush(fd))

    def size(self, fd: int) -> int:
        return self._call("size", "", lambda: super(SimulatedDisk, self).size(fd))

    def fstat(self, fd: int) -> os.stat_result:
        return self._call("fstat", "", lambda: self._seen(os.fstat(fd)))

    def inode_behind(self, fd: int) -> tuple[int, int] | None:
        try:
            found = self._seen(os.fstat(fd))
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def chmod(self, fd: int, mode: int) -> None:
        def act() -> None:
            super(SimulatedDisk, self).chmod(fd, mode)
            key = self._key_of(fd)
            if key is not None:
                self._did(ops.Mode(key, mode))

        self._call("chmod", "", act)

    def set_group(self, fd: int, group: int) -> None:
        self._call("set_group", "", lambda: super(SimulatedDisk, self).set_group(fd, group))

    def acl(self, fd: int) -> bytes:
        return self._call("acl", "", lambda: super(SimulatedDisk, self).acl(fd))

    def set_acl(self, fd: int, acl: bytes) -> None:
        self._call("set_acl", "", lambda: super(SimulatedDisk, self).set_acl(fd, acl))

    def set_modified(self, fd: int, modified: int) -> None:
        self._call(
            "set_modified", "", lambda: super(SimulatedDisk, self).set_modified(fd, modified)
        )

    def new_file(self, folder: int, mode: int) -> tuple[int, int, bytes]:
        return self._call("new_file", "", lambda: super(SimulatedDisk, self).new_file(folder, mode))

    def default_acl(self, folder: int) -> bytes:
        return self._call("default_acl", "", lambda: super(SimulatedDisk, self).default_acl(folder))

    def create_there(self, name: str, folder: int, mode: int, *, dir_fd: int) -> int:
        def act() -> int:
            fd = super(SimulatedDisk, self).create_there(name, folder, mode, dir_fd=dir_fd)
            self._made(fd, name, dir_fd)
            return fd

        return self._call("create_there", name, act)

    def flush(self, fd: int) -> None:
        self._flush("flush", super().flush, fd, whole=False)

    def flush_all(self, fd: int) -> None:
        self._flush("flush_all", super().flush_all, fd, whole=True)

    def _flush(self, call: str, really: Callable[[int], None], fd: int, *, whole: bool) -> None:
        key = self._key_of(fd)

        def act() -> None:
            really(fd)
            if key is not None:
                self._did(ops.Flush(key, whole=whole))

        try:
            self._call(call, self._name_of(key), act)
        except OSError as error:
            # An interrupted flush has done nothing yet; any other may have thrown the pages away.
            if key is not None and error.errno != errno.EINTR:
                self._did(ops.Flush(key, failed=True))
            raise

    def _name_of(self, key: int | None) -> str:
        node = self.platter.nodes.get(key) if key is not None else None
        return node.role if node is not None else ""

    # --- names -------------------------------------------------------------------------------

    def open_folder(self, name: str, *, dir_fd: int | None = None, follow: bool = False) -> int:
        def act() -> int:
            fd = super(SimulatedDisk, self).open_folder(name, dir_fd=dir_fd, follow=follow)
            key = self._key_of(fd)
            if key is not None:
                self._open[fd] = key
            return fd

        return self._call("open_folder", name, act)

    def flush_folder(self, fd: int) -> None:
        key = self._key_of(fd)

        def act() -> None:
            super(SimulatedDisk, self).flush_folder(fd)
            if key is not None:
                self._did(ops.FlushFolder(key))

        self._call("flush_folder", "", act)

    def flush_file_system(self, fd: int) -> None:
        self._call(
            "flush_file_system", "", lambda: super(SimulatedDisk, self).flush_file_system(fd)
        )

    def make_folder(self, name: str, mode: int, *, dir_fd: int | None = None) -> None:
        def act() -> None:
            super(SimulatedDisk, self).make_folder(name, mode, dir_fd=dir_fd)
            folder, tail = self._folder_key(dir_fd, name)
            if folder is None:
                return
            found = os.stat(name, dir_fd=dir_fd)
            key = self._keys[found.st_dev, found.st_ino] = self._new_key()
            made = modes.S_IMODE(found.st_mode)
            op = ops.MakeFolder(folder, tail, key, self._free_number(), made)
            self._did(op) if self._record else self.platter.apply(op)

        self._call("make_folder", name, act)

    def chmod_folder(self, name: str, mode: int, *, dir_fd: int | None = None) -> None:
        def act() -> None:
            super(SimulatedDisk, self).chmod_folder(name, mode, dir_fd=dir_fd)
            found = os.stat(name, dir_fd=dir_fd)
            key = self._keys.get((found.st_dev, found.st_ino))
            if key is not None:
                self._did(ops.Mode(key, mode))

        self._call("chmod_folder", name, act)

    def _remove(self, really: Callable[[], None], name: str, dir_fd: int) -> None:
        really()
        folder, tail = self._folder_key(dir_fd, name)
        if folder is not None:
            self._did(ops.Remove(folder, tail))

    def remove_folder(self, name: str, *, dir_fd: int) -> None:
        really = super().remove_folder
        self._call(
            "remove_folder",
            name,
            lambda: self._remove(lambda: really(name, dir_fd=dir_fd), name, dir_fd),
        )

    def unlink(self, name: str, *, dir_fd: int) -> None:
        really = super().unlink
        self._call(
            "unlink", name, lambda: self._remove(lambda: really(name, dir_fd=dir_fd), name, dir_fd)
        )

    def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        def act() -> None:
            if self._mount_of(source_dir) != self._mount_of(target_dir):
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
            super(SimulatedDisk, self).rename(
                source, target, source_dir=source_dir, target_dir=target_dir
            )
            source_key, target_key = self._key_of(source_dir), self._key_of(target_dir)
            if source_key is not None and target_key is not None:
                self._did(ops.Rename(source_key, source, target_key, target))

        self._call("rename", f"{source} {target}", act)

    def _mount_of(self, fd: int) -> str | None:
        if not self._mounts:
            return None
        path = os.readlink(f"/proc/self/fd/{fd}") + os.sep
        return next((mount for mount in self._mounts if path.startswith(mount + os.sep)), None)

    def link(self, source: str, target: str, *, dir_fd: int) -> None:
        def act() -> None:
            super(SimulatedDisk, self).link(source, target, dir_fd=dir_fd)
            key = self._key_of(dir_fd)
            if key is not None:
                self._did(ops.Hardlink(key, source, target))

        self._call("link", f"{source} {target}", act)

    def stat(self, name: str, *, dir_fd: int | None = None, follow: bool = False) -> os.stat_result:
        return self._call(
            "stat",
            name,
            lambda: self._seen(os.stat(name, dir_fd=dir_fd, follow_symlinks=follow)),
        )

    def read_link(self, name: str, *, dir_fd: int) -> str:
        return self._call(
            "read_link", name, lambda: super(SimulatedDisk, self).read_link(name, dir_fd=dir_fd)
        )

    def list_folder(self, fd: int) -> Iterator[str]:
        return self._call(
            "list_folder", "", lambda: iter(sorted(super(SimulatedDisk, self).list_folder(fd)))
        )

    def lack_of_space(self, folder: str, *room: int) -> int:
        return self._call(
            "lack_of_space", folder, lambda: super(SimulatedDisk, self).lack_of_space(folder, *room)
        )

    # --- locks -------------------------------------------------------------------------------

    def try_lock(self, fd: int, byte: int) -> bool:
        return self._call("try_lock", "", lambda: Disk.try_lock_byte(self, fd, byte, shared=False))

    def last_holder(self, fd: int, offset: int) -> bytes:
        really = super().last_holder
        return self._call("last_holder", "", lambda: really(fd, offset))

    def pause(self, seconds: float) -> None:
        self._call("pause", "", lambda: super(SimulatedDisk, self).pause(seconds))

    def sign(self, fd: int, token: bytes, offset: int) -> None:
        # Not recorded: it is for the living, and random.
        self._call("sign", "", lambda: super(SimulatedDisk, self).sign(fd, token, offset))

    def unlock(self, fd: int, byte: int) -> None:
        if self.dead:
            super().unlock(fd, byte)
            return
        self._call("unlock", "", lambda: super(SimulatedDisk, self).unlock(fd, byte))

    # --- the journal -------------------------------------------------------------------------

    # SQLite's index is not recorded: it is made anew after every crash.

    def open_index(self, path: str, mode: int) -> int:
        return self._call(
            "open_index", path, lambda: super(SimulatedDisk, self).open_index(path, mode)
        )

    def give(self, fd: int, like: os.stat_result) -> None:
        self._call("give", "", lambda: super(SimulatedDisk, self).give(fd, like))

    def try_lock_byte(self, fd: int, offset: int, *, shared: bool) -> bool:
        really = super().try_lock_byte
        return self._call("try_lock_byte", "", lambda: really(fd, offset, shared=shared))

    def overwrite_in_place(self, fd: int, wanted: bool = True) -> None:
        really = super().overwrite_in_place
        self._call("overwrite_in_place", "", lambda: really(fd, wanted))

    def touch_file(self, fd: int, size: int) -> None:
        self._call("touch_file", "", lambda: super(SimulatedDisk, self).touch_file(fd, size))

    def touch_memory(self, address: int, size: int) -> None:
        really = super().touch_memory
        self._call("touch_memory", "", lambda: really(address, size))

    def mapped(self, inode: int) -> list[tuple[int, int]]:
        return self._call("mapped", "", lambda: super(SimulatedDisk, self).mapped(inode))

    def lock_folder(self, fd: int) -> int | None:
        return self._call("lock_folder", "", lambda: super(SimulatedDisk, self).lock_folder(fd))

    def connect(self, path: str, **options: Any) -> sqlite3.Connection:
        def act() -> sqlite3.Connection:
            connection = sqlite3.connect(path, factory=SimulatedConnection, **options)
            connection.around = self._sqlite
            # A database that never changes has no WAL, and nothing is written to it.
            connection.writes = "immutable=1" not in path
            connection.file = unquote(urlsplit(path).path) if path.startswith("file:") else path
            return connection

        return self._call("connect", path, act)

    def _sqlite(self, connection: SimulatedConnection, sql: str, act: Callable[[], T]) -> T:
        """One call of a connection, with what it does to the files taken down."""
        kind = kind_of(sql)
        if self.dead and kind == "close":
            return act()
        if kind == "close":
            level = connection.flush_level() if self._record and connection.writes else 0
            with self._mutex:
                done = act()
                if connection.writes:
                    # Whoever is not the last changes nothing, and flushes nothing.
                    last = not os.path.exists(connection.file + "-wal")
                    self._sqlite_wrote(connection.file, level, settled=True, complete=last)
                return done

        def really() -> T:
            done, complete = act(), False
            if kind == "checkpoint":
                done, complete = looked_at(done)
            if (
                self._record
                and connection.writes
                and (kind == "checkpoint" or not connection.in_transaction)
            ):
                wrote = kind in ("commit", "checkpoint", "statement")
                if wrote or not self._knows_wal(connection.file):
                    self._sqlite_wrote(
                        connection.file,
                        connection.flush_level(),
                        settled=kind == "checkpoint",
                        complete=complete,
                    )
            return done

        name = kind if kind in ("commit", "checkpoint") else "statement"
        return self._call(name, sql, really)

    # --- states ------------------------------------------------------------------------------

    def crashed(self) -> Tree:
        """What a crash of the process would leave now."""
        with self._mutex:
            return self.platter.kernel()
