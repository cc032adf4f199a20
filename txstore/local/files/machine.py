"""What a disk's machine is and has: its boot and clocks, its file systems, their space, its memory.

The other half of ``Disk``, likewise one call of the operating system each.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import stat
import struct
import sys
from contextlib import suppress
from enum import IntEnum
from functools import cache
from typing import Any

#: The time namespace that a machine begins with: its number is the kernel's constant.
_MACHINE_TIME = "time:[4026531834]"
#: What the kernel says where a file cannot grow.
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS, _FS_NOCOW_FL = 0x80086601, 0x40086602, 0x00800000
_MADV_POPULATE_WRITE = 23
#: ``struct fiemap`` with room for some extents (``linux/fiemap.h``).
_FS_IOC_FIEMAP, _FIEMAP, _EXTENT = 0xC020660B, struct.Struct("=QQIIII"), struct.Struct("=40xI12x")
_EXTENTS, _FIEMAP_EXTENT_SHARED = 16, 0x2000
#: How much a folder's file system must have left not to count as full (bytes).
_ROOM = 64 * 1024

#: File systems whose locks and shared memory cannot be relied on between machines, or between a
#: virtual machine and its host.
NETWORK_FILE_SYSTEMS = frozenset(
    """9p acfs afs beegfs ceph cifs coda davfs drvfs fakeowner gfs gfs2 glusterfs gpfs lustre mfs
    ncpfs nfs nfs4 ocfs2 orangefs osxfs panfs prl_fs pvfs2 smb3 smbfs vboxsf virtiofs
    vmhgfs""".split()  # noqa: SIM905 - a page of quotes less
)
#: What is known of file systems that a program of the user's carries: these are local.
_LOCAL_FUSE = frozenset(
    """fuseblk fuse.bindfs fuse.cryfs fuse.encfs fuse.ext2 fuse.fuse-overlayfs fuse.fuse2fs
    fuse.gocryptfs fuse.mergerfs""".split()  # noqa: SIM905
)


class Copies(IntEnum):
    """When a file system writes what is overwritten into new blocks, which takes space."""

    NEVER = 0
    #: What two files have in common, after a ``cp`` that shares the blocks (``ioctl_ficlone(2)``).
    SHARED = 1
    #: Everything, unless it is told not to; and after a snapshot all the same.
    ALWAYS = 2


# What is below an overlay nobody says.
_COPIES = {
    "xfs": Copies.SHARED,
    **dict.fromkeys(["bcachefs", "btrfs", "nilfs2", "overlay"], Copies.ALWAYS),
}


def is_network(fstype: str) -> bool:
    """Whether locks and shared memory may not reach all who use a file system of this type.

    A FUSE is taken for a network's unless it is known to be local: there are too many to name.
    """
    return fstype in NETWORK_FILE_SYSTEMS or ("fuse" in fstype and fstype not in _LOCAL_FUSE)


def copies_of(fstype: str) -> Copies:
    """When a file system of this type copies what is overwritten."""
    return _COPIES.get(fstype, Copies.NEVER)


@cache
def c_function(name: str, *arguments: Any) -> Any:
    """A function of the C library; ``None`` where there is none, as on macOS."""
    try:
        call = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (OSError, AttributeError):
        return None
    call.argtypes = arguments
    return call


class Machine:
    """The machine's half of a ``Disk``."""

    def boot_id(self) -> str:
        """Identity of this boot of the machine; empty where it cannot be known.

        Nothing from outside can say it: who could name the last boot again would have bytes
        trusted that a power loss took.
        """
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
                return file.read().strip()
        except OSError:
            return ""

    def clock_ahead(self) -> float | None:
        """Seconds by which this process's boot-time clock is ahead of the machine's own, since it
        is in a time namespace (``time_namespaces(7)``); ``None`` where that cannot be known."""
        try:
            own = os.readlink("/proc/self/ns/time")
            if own == _MACHINE_TIME:
                return 0.0
            if own != os.readlink("/proc/self/ns/time_for_children"):
                return None  # what the kernel tells is of the latter
            with open("/proc/self/timens_offsets", encoding="ascii") as lines:
                for line in lines:
                    name, seconds, nanoseconds = line.split()
                    if name == "boottime":
                        return int(seconds) + int(nanoseconds) / 1e9
        except FileNotFoundError:
            # A kernel without them; or a /proc of other processes, which tells nothing.
            return 0.0 if os.path.isdir("/proc/self/ns") else None
        except (OSError, ValueError):
            pass
        return None

    def file_system(self, fd: int) -> str:
        """Type of the file system that holds a descriptor's file; empty where unknown.

        Found by the mount: a Btrfs answers with devices that no table of mounts names.
        """
        try:
            with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
                mount = next(line.split()[1] for line in lines if line.startswith("mnt_id:")) + " "
            with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    if line.startswith(mount):
                        return line.partition(" - ")[2].split()[0]
        except (OSError, StopIteration):
            pass  # not Linux, or /proc is hidden: then nothing is known, and nothing is refused
        return ""

    def free_inodes(self, fd: int) -> int | None:
        """How many files this user can still make on a file system, given any descriptor there;
        ``None``: it has no such limit."""
        found = os.fstatvfs(fd)
        return found.f_favail if found.f_files else None

    def overwrite_in_place(self, fd: int, wanted: bool = True) -> None:
        """Have a file system write what is overwritten where it stands, not into new blocks; or,
        for new files in a folder, no longer.  For an empty file, or for the files that are made in
        a folder later.  A hint: only the owner may give it, and not each file system has it."""
        folder = stat.S_ISDIR(os.fstat(fd).st_mode)
        own = readable(fd) if folder else fd
        try:
            before = struct.unpack("i4x", fcntl.ioctl(own, _FS_IOC_GETFLAGS, bytes(8)))[0]
            after = before | _FS_NOCOW_FL if wanted else before & ~_FS_NOCOW_FL
            if after != before:
                if not folder:
                    os.ftruncate(own, 0)
                fcntl.ioctl(own, _FS_IOC_SETFLAGS, struct.pack("i4x", after))
        except OSError:
            pass
        finally:
            if folder:
                os.close(own)

    def shares_blocks(self, fd: int) -> bool:
        """Whether another file, or a snapshot, has some of a file's blocks too: what is removed
        then gives no space back.  ``False`` where the file system does not say."""
        asked = _FIEMAP.pack(0, 2**63, 0, 0, _EXTENTS, 0) + bytes(_EXTENTS * _EXTENT.size)
        try:
            told = fcntl.ioctl(fd, _FS_IOC_FIEMAP, asked)
        except OSError:
            return False
        extents = _EXTENT.iter_unpack(told[_FIEMAP.size :])
        return any(flags & _FIEMAP_EXTENT_SHARED for (flags,) in extents)

    def touch_file(self, fd: int, size: int) -> None:
        """Have the kernel find room for changing the first ``size`` bytes of a file through memory.

        It must do so when somebody changes them.  Then lack of room is a SIGBUS, here an error.
        """
        word, offset = ctypes.c_size_t, ctypes.c_int64
        mmap = c_function(
            "mmap", ctypes.c_void_p, word, ctypes.c_int, ctypes.c_int, ctypes.c_int, offset
        )
        munmap = c_function("munmap", ctypes.c_void_p, word)
        if mmap is None or munmap is None:
            return
        # Not Python's own: it would close a descriptor, and so drop SQLite's locks.
        mmap.restype = ctypes.c_void_p
        address = mmap(None, size, 3, 1, fd, 0)  # to read and write, shared
        if address in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        try:
            self.touch_memory(address, size)
        finally:
            munmap(address, size)

    def touch_memory(self, address: int, size: int) -> None:
        """As ``touch_file``, of memory that is mapped (``madvise(2)``; nothing is done before Linux
        5.14)."""
        call = c_function("madvise", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        if call is not None and call(address, size, _MADV_POPULATE_WRITE) != 0:
            error = ctypes.get_errno()
            if error != errno.EINVAL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def mapped(self, inode: int) -> list[tuple[int, int]]:
        """(address, size) of what is mapped of SQLite's index, by its inode number."""
        found = []
        with suppress(OSError), open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            for line in maps:
                fields = line.split(maxsplit=5)
                if fields[4] == str(inode) and "-shm" in fields[-1] and "s" in fields[1]:
                    start, end = (int(one, 16) for one in fields[0].split("-"))
                    found.append((start, end - start))
        return found

    def lack_of_space(self, folder: str, room: int = _ROOM) -> int:
        """With which error a folder's file system refuses a little more for this user (full, no
        inode left, over a quota); 0: it has room.  Asked by a file without a name, no larger than
        the process may make one."""
        most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
        if most != resource.RLIM_INFINITY:
            room = min(room, max(most, _ROOM))
        try:
            fd = os.open(folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
            try:
                done = 0
                while done < room:  # written out by nobody, so given back at once
                    done += os.pwrite(fd, bytes(room - done), done)
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno in NO_SPACE:
                return error.errno
        found = os.statvfs(folder)
        full = found.f_bavail == 0 or (found.f_files > 0 and found.f_favail == 0)
        return errno.ENOSPC if full else 0

    def space(self, fd: int) -> tuple[int, int]:
        """Bytes that a file system has free for this user, and all that it has, given any
        descriptor there (``statvfs(3)``)."""
        found = os.fstatvfs(fd)
        return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize

    def umask(self) -> int:
        """The process's umask, read without changing it for other threads where possible."""
        try:
            with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
                for line in lines:
                    if line.startswith("Umask:"):
                        return int(line.split()[1], 8)
        except OSError:
            pass  # no /proc: the portable way below
        mask = os.umask(0o077)
        os.umask(mask)
        return mask


def readable(fd: int) -> int:
    """Another descriptor of a folder, to list and flush it by: ``fd`` may be path-only."""
    return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)


def is_supported() -> bool:
    """Whether this operating system has what the store's promises rest on."""
    try:
        import posix
    except ImportError:
        return False
    # Asked of the system's own function: eventlet puts another one in the place of `os.open`.
    has_calls = posix.open in os.supports_dir_fd and hasattr(fcntl, "F_OFD_SETLK")
    return sys.platform != "cygwin" and has_calls
