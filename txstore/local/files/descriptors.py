"""Descriptors that may not be ours any more.

A daemon closes all descriptors, and its own files then get the same numbers; a forked child has
copies.  So what was opened long ago is closed by its number only where it leads to the file that
was opened.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Collection

from txstore.local.files.disk import Disk

_FOLDER = "/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"

Inode = tuple[int, int]
#: A descriptor's number, and the file that it leads to.
Descriptor = tuple[int, Inode]


def inode_of(found: os.stat_result) -> Inode:
    """Device and inode of what ``stat`` found."""
    return found.st_dev, found.st_ino


def descriptors_of(disk: Disk, inodes: Collection[Inode]) -> tuple[Descriptor, ...]:
    """All descriptors of this process that lead to certain files."""
    found = []
    for name in os.listdir(_FOLDER):
        inode = disk.inode_behind(int(name))
        if inode is not None and inode in inodes:
            found.append((int(name), inode))
    return tuple(found)


def leads_to(disk: Disk, fd: int, inode: Inode | None) -> bool:
    """Whether a descriptor is open, and leads to that file."""
    return disk.inode_behind(fd) == inode


def close_ours(disk: Disk, fd: int, inode: Inode | None) -> None:
    """Close a descriptor if it leads to the file that was opened."""
    if leads_to(disk, fd, inode):
        disk.close(fd)


def never_collect(one: object) -> None:
    """Have an object outlive the interpreter: its finalizer would close what is not ours."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))
