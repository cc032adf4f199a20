"""Every operating-system call on the store's own files, and nothing but that.

This is the one seam: a test that wants to see, fail or reorder what the store does to the disk
passes its own ``Disk`` to the manager.  A method is one call; loops, order and meaning live with
the callers.  All descriptors are close-on-exec.  Every method raises the kernel's ``OSError``.

What the flushes are relied on for (``fsync(2)``, ``open(2)``, ``rename(2)``): ``flush`` makes a
file's bytes and length survive a power loss, but not its name; ``flush_folder`` makes the names in
a folder survive; ``rename`` replaces a name at once for every reader, and durably only after the
flush of the target's folder.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shutil
import sqlite3
import struct
import time
from collections.abc import Callable, Iterator
from functools import cache
from time import sleep
from typing import Any

from txstore.local.files.machine import Machine, c_function, readable

_FULLFSYNC: int | None = getattr(fcntl, "F_FULLFSYNC", None)
_PATH_ONLY: int = getattr(os, "O_PATH", os.O_RDONLY)
_UNNAMED: int = getattr(os, "O_TMPFILE", 0)
_ACL, _DEFAULT_ACL = "system.posix_acl_access", "system.posix_acl_default"

_SYNC_FILE_RANGE_WRITE, _FICLONE = 2, 0x40049409
#: ``struct flock``: what a lock on a range of bytes says.
_RANGE = struct.Struct("hhqqi4x")
_SET = getattr(fcntl, "F_OFD_SETLK", 0)  # `is_supported` refuses a system without
_TAKEN = (errno.EAGAIN, errno.EACCES)
_FALLOC_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS)
#: What ``Disk.names_version`` answers.
Version = tuple[int, int, int]
#: What no folder has.
UNKNOWN: Version = (0, 0, 0)
#: Nanoseconds for which two changes may get the same time: some ticks of the kernel's clock, or
#: the second of an old file system.
_TICKS, _SECOND = 50_000_000, 1_000_000_000


def settled(version: Version | None) -> Version:
    """What ``Disk.names_version`` answered, where whatever changes from now on will show in it;
    ``UNKNOWN`` where a change so soon after the last might not.

    Taken *before* the names are looked at, it is the version that they have at least.
    """
    if version is None:
        return UNKNOWN
    changed = version[2]
    blur = _TICKS if changed % _SECOND else 2 * _SECOND
    return version if blur < time.time_ns() - changed else UNKNOWN


@cache
def _range(kind: int, byte: int) -> bytes:
    """``struct flock`` of a lock on one byte."""
    return _RANGE.pack(kind, os.SEEK_SET, byte, 1, 0)


class Disk(Machine):
    """The real disk.  Stateless; safe to share among threads, processes and managers."""

    #: Class of the journal's connections: the seam for SQLite's own calls.
    sqlite_connection: type[sqlite3.Connection] = sqlite3.Connection

    # --- files -------------------------------------------------------------------------------

    def create(self, name: str, mode: int, *, dir_fd: int) -> int:
        """Make a new file, never open an existing one; answer its descriptor."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(name, flags, mode, dir_fd=dir_fd)

    def open(self, name: str, *, dir_fd: int | None = None, write: bool = True) -> int:
        """Open an existing file, not through a symbolic link."""
        flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(name, flags, dir_fd=dir_fd)

    def open_or_create(self, name: str, mode: int, *, dir_fd: int) -> int:
        """Open a file that stays for ever (a lock's), making it if need be."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(name, flags, mode, dir_fd=dir_fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        """At most ``size`` bytes; empty at the end of the file."""
        return os.pread(fd, size, offset)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        """Write at ``offset``; answer how many bytes went, which may be fewer than given."""
        return os.pwrite(fd, data, offset)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def allocate(self, fd: int, size: int) -> None:
        """Have space for the first ``size`` bytes, changing none of them (``fallocate(2)``); where
        the file system has no such call, nothing is done.

        The C library would write zeros then, over what others write meanwhile.
        """
        offset = ctypes.c_int64
        call = c_function("fallocate", ctypes.c_int, ctypes.c_int, offset, offset)
        if call is None:
            os.posix_fallocate(fd, 0, size)
        elif call(fd, 0, 0, size) != 0:
            error = ctypes.get_errno()
            if error not in _FALLOC_UNSUPPORTED:
                raise OSError(error, os.strerror(error))

    def size(self, fd: int) -> int:
        """Bytes in the file, without asking for its times (see ``names_version``)."""
        return os.lseek(fd, 0, os.SEEK_END)

    def fstat(self, fd: int) -> os.stat_result:
        return os.fstat(fd)

    def inode_behind(self, fd: int) -> tuple[int, int] | None:
        """Device and inode of what a descriptor leads to; ``None`` where it is not open.  Asked at
        every call of a manager, and of managers that are dead: it never fails."""
        try:
            found = os.fstat(fd)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def clone(self, source: int, target: int) -> None:
        """Have an empty file share the blocks of another until either is written.  Not on every
        file system (``ioctl_ficlone(2)``)."""
        fcntl.ioctl(target, _FICLONE, source)

    def copy_attributes(self, source: int, target: int) -> None:
        """Give a file or folder the owner (where that is allowed), permissions, times and extended
        attributes of another."""
        if os.geteuid() == 0:
            found = os.fstat(source)
            os.chown(f"/proc/self/fd/{target}", found.st_uid, found.st_gid)
        # By their descriptors, which may be path-only.
        shutil.copystat(f"/proc/self/fd/{source}", f"/proc/self/fd/{target}")

    def chmod(self, fd: int, mode: int) -> None:
        os.fchmod(fd, mode)

    def set_group(self, fd: int, group: int) -> None:
        os.fchown(fd, -1, group)

    def acl(self, fd: int) -> bytes:
        """The file's access control list; empty where it has none beyond its mode."""
        return _attribute(fd, _ACL)

    def set_acl(self, fd: int, acl: bytes) -> None:
        """Set the access control list, and the mode with it; an empty one: leave the mode alone."""
        if acl:
            os.setxattr(fd, _ACL, acl)
        else:
            os.removexattr(fd, _ACL)

    def set_modified(self, fd: int, modified: int) -> None:
        """Set the time of the last change of the file's bytes, in nanoseconds."""
        os.utime(fd, ns=(os.fstat(fd).st_atime_ns, modified))

    def flush(self, fd: int) -> None:
        """Make the file's bytes and length durable."""
        _flush(fd, os.fdatasync)

    def start_flush(self, fd: int) -> None:
        """Have the kernel begin to write the file's bytes out, so that a ``flush`` soon after has
        less to wait for.  A hint: nothing is durable by it, and it reports nothing
        (``sync_file_range(2)``)."""
        offset = ctypes.c_int64
        call = c_function("sync_file_range", ctypes.c_int, offset, offset, ctypes.c_uint)
        if call is not None:
            call(fd, 0, 0, _SYNC_FILE_RANGE_WRITE)

    def flush_all(self, fd: int) -> None:
        """Make the file's bytes, length and metadata (its mode) durable."""
        _flush(fd, os.fsync)

    def new_file(self, folder: int, mode: int) -> tuple[int, int, bytes]:
        """Mode, group and access control list that the kernel gives a new file in a folder.

        Asked by one that never gets a name.  Not on every file system (``O_TMPFILE``, open(2)).
        """
        fd = _unnamed(folder, mode)
        try:
            found = os.fstat(fd)
            return found.st_mode & 0o7777, found.st_gid, _attribute(fd, _ACL)
        finally:
            os.close(fd)

    def default_acl(self, folder: int) -> bytes:
        """The access control list that new files in a folder begin with; empty: none."""
        # The descriptor is path-only, and whoever may write there need not be able to read there.
        return _attribute(f"/proc/self/fd/{folder}", _DEFAULT_ACL)

    def create_there(self, name: str, folder: int, mode: int, *, dir_fd: int) -> int:
        """As ``create``, of a file that is made as if in another folder: its group, and what else
        keeps a file from being moved there, are those of that folder.

        Not on every file system.
        """
        fd = _unnamed(folder, mode)
        try:
            os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=dir_fd)
        except BaseException:
            os.close(fd)
            raise
        return fd

    # --- names -------------------------------------------------------------------------------

    def open_folder(self, name: str, *, dir_fd: int | None = None, follow: bool = False) -> int:
        """A descriptor to work relative to; opening needs no permission to list."""
        flags = _PATH_ONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
        return os.open(name, flags, dir_fd=dir_fd)

    def flush_folder(self, fd: int) -> None:
        """Make the names in a folder durable, given any descriptor of it."""
        own = readable(fd)
        try:
            _flush(own, os.fsync)
        finally:
            os.close(own)

    def flush_file_system(self, fd: int) -> None:
        """Make everything durable on the file system that holds a folder, given any descriptor of
        it: for folders that this user may not open (``syncfs(2)``)."""
        own = readable(fd)
        try:
            call = c_function("syncfs", ctypes.c_int)
            if call is None:
                os.sync()
            elif call(own) != 0:
                error = ctypes.get_errno()
                raise OSError(error, os.strerror(error))
        finally:
            os.close(own)

    def make_folder(self, name: str, mode: int, *, dir_fd: int | None = None) -> None:
        os.mkdir(name, mode, dir_fd=dir_fd)

    def chmod_folder(self, name: str, mode: int, *, dir_fd: int | None = None) -> None:
        """Set a folder's permissions in spite of the umask."""
        os.chmod(name, mode, dir_fd=dir_fd)

    def remove_folder(self, name: str, *, dir_fd: int) -> None:
        os.rmdir(name, dir_fd=dir_fd)

    def rename(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        os.replace(source, target, src_dir_fd=source_dir, dst_dir_fd=target_dir)

    def link(self, source: str, target: str, *, dir_fd: int) -> None:
        """Give a file a second name, never one that exists."""
        os.link(source, target, src_dir_fd=dir_fd, dst_dir_fd=dir_fd, follow_symlinks=False)

    def link_to(self, source: str, target: str, *, source_dir: int, target_dir: int) -> None:
        """Give a file a second name in another folder, never one that exists."""
        os.link(source, target, src_dir_fd=source_dir, dst_dir_fd=target_dir, follow_symlinks=False)

    def make_link(self, leads_to: str, name: str, *, dir_fd: int) -> None:
        """Make a symbolic link."""
        os.symlink(leads_to, name, dir_fd=dir_fd)

    def unlink(self, name: str, *, dir_fd: int) -> None:
        os.unlink(name, dir_fd=dir_fd)

    def stat(self, name: str, *, dir_fd: int | None = None, follow: bool = False) -> os.stat_result:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=follow)

    def names_version(self, folder: str) -> Version | None:
        """A value that changes when any name in a folder is made, removed or replaced, or the
        folder itself is: these change its ctime (``inode(7)``), which nobody can set.

        Asking for each file instead has a price beyond its own.  Since Linux 6.13 a file whose
        times were asked for gets a new time of change with its next write.  The flush after that
        takes the inode along: a flush of the journal's WAL took twice as long.

        :return: ``None``: there is no folder at that path
        """
        try:
            found = os.stat(folder)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_dev, found.st_ino, found.st_ctime_ns

    def read_link(self, name: str, *, dir_fd: int) -> str:
        return os.readlink(name, dir_fd=dir_fd)

    def list_folder(self, fd: int) -> Iterator[str]:
        """The names in a folder, one by one; closing the iterator frees its descriptor."""
        own = readable(fd)
        try:
            with os.scandir(own) as entries:
                for entry in entries:
                    yield entry.name
        finally:
            os.close(own)

    def lock_folder(self, fd: int, *, shared: bool = True) -> int | None:
        """Keep a cleaner of temporary folders (``systemd-tmpfiles``) away from a folder and all
        below it, by a shared lock on the folder.  Any number may hold one.

        :param shared: ``False``: nobody else may
        :return: a descriptor, which holds the lock while it is open; ``None``: it was not had
        """
        own = None
        try:
            own = readable(fd)
            fcntl.flock(own, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError:
            if own is not None:
                os.close(own)
            return None
        return own

    # --- locks -------------------------------------------------------------------------------

    def try_lock(self, fd: int, byte: int) -> bool:
        """Take the kernel's lock on one byte of an open lock file, or answer ``False`` at once."""
        try:
            fcntl.fcntl(fd, _SET, _range(fcntl.F_WRLCK, byte))
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
        return True

    def unlock(self, fd: int, byte: int) -> None:
        fcntl.fcntl(fd, _SET, _range(fcntl.F_UNLCK, byte))

    def pause(self, seconds: float) -> None:
        """Wait before the next attempt at a lock that somebody else has.

        :param seconds: 0: only yield the processor.  The kernel makes any sleep last 50 us at least

        By what ``time.sleep`` was at the import: a manager's locks are as old.  One that gevent put
        there later would run other greenlets, which have the same thread's locks.
        """
        if seconds:
            sleep(seconds)
        else:
            os.sched_yield()

    def last_holder(self, fd: int, offset: int) -> bytes:
        """What stands in a lock file: the token of the last to ``sign`` it there."""
        return os.pread(fd, 16, offset)

    def sign(self, fd: int, token: bytes, offset: int) -> None:
        """Say in a lock file, among the living only, who holds its lock."""
        os.pwrite(fd, token, offset)

    # --- the journal -------------------------------------------------------------------------

    def open_index(self, path: str, mode: int) -> int:
        """Open the file that SQLite maps, making it if need be (see ``journal.index``)."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, mode)

    def give(self, fd: int, like: os.stat_result) -> None:
        """Give a new file the mode of another, and its owner where that is allowed, as SQLite does
        with the files that it makes beside a database."""
        os.fchmod(fd, like.st_mode & 0o777)
        if os.geteuid() == 0:
            os.fchown(fd, like.st_uid, like.st_gid)

    def try_lock_byte(self, fd: int, offset: int, *, shared: bool) -> bool:
        """Take a lock on one byte that belongs to the open file, not to the process, or change the
        one that is held (``F_OFD_SETLK``); ``False`` where somebody else's is in the way."""
        kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
        try:
            fcntl.fcntl(fd, _SET, _range(kind, offset))
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            raise
        return True

    def connect(self, path: str, **options: Any) -> sqlite3.Connection:
        """SQLite's own connection; what it does to its files is not seen here, only its calls."""
        options.setdefault("factory", self.sqlite_connection)
        connection: sqlite3.Connection = sqlite3.connect(path, **options)
        return connection


def _unnamed(folder: int, mode: int) -> int:
    if not _UNNAMED:  # macOS
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    return os.open(".", os.O_RDWR | os.O_CLOEXEC | _UNNAMED, mode, dir_fd=folder)


def _attribute(file: int | str, name: str) -> bytes:
    """An extended attribute; empty where there is none, or no such thing."""
    if not hasattr(os, "getxattr"):  # macOS
        return b""
    try:
        return os.getxattr(file, name)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOENT):
            return b""
        raise


def _flush(fd: int, call: Callable[[int], None]) -> None:
    if _FULLFSYNC is not None:  # macOS: fsync alone stops at the device's cache
        fcntl.fcntl(fd, _FULLFSYNC)
    else:
        call(fd)
