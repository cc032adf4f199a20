"""What an ordinary new file in a folder gets (mode, group, access control list), for a file that
is renamed into it from a private one.

The kernel is asked, by a file without a name that is made there.  On file systems that have no such
files the rules of ``open(2)``, ``inode(7)`` and ``acl(5)`` are followed here.
"""

from __future__ import annotations

import errno
import os
import struct
from stat import S_IMODE, S_ISGID
from typing import NamedTuple

from txstore.local.files.disk import Disk
from txstore.process.strikes import pass_on

ORDINARY = 0o666  # less umask, or what the folder's default list leaves of it

_ENTRY = struct.Struct("<HHI")  # tag, permissions, id; after a version of 4 bytes
_VERSION = 4
_OWNER, _GROUP, _MASK, _OTHER = 0x01, 0x04, 0x10, 0x20


class NewFile(NamedTuple):
    """What a file in a folder gets.

    :ivar mode: permission bits
    :ivar group: id of its group
    :ivar acl: access control list as the kernel keeps it; empty: none beyond the mode
    """

    mode: int
    group: int
    acl: bytes


def new_file_in(disk: Disk, folder: int, like: os.stat_result | None = None) -> NewFile:
    """What a new file in a folder gets.

    :param like: a file whose mode it is to have in place of an ordinary one: whatever the umask,
        but no more than the folder's default list allows
    """
    mode = ORDINARY if like is None else S_IMODE(like.st_mode) & 0o777
    try:
        found = NewFile(*disk.new_file(folder, mode))
    except OSError as error:
        pass_on(error)
        # No such files here, or no inode left.  What else stands in the way the rename tells.
        found = _by_rule(disk, folder, mode)
    if like is not None and not disk.default_acl(folder):
        return found._replace(mode=mode)  # that the umask took from it
    return found


def give(disk: Disk, fd: int, group: int, wanted: NewFile) -> None:
    """Make a staging file what a new file in its folder would be; durable by ``flush_all``.

    :param group: that it has
    :raises OSError: ``EXDEV``, as from a rename: it can't get there as it is, since its group may
        not be given by this user
    """
    if group != wanted.group:
        try:
            disk.set_group(fd, wanted.group)
        except PermissionError as error:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV)) from error
    if disk.acl(fd) != wanted.acl:
        disk.set_acl(fd, wanted.acl)
    disk.chmod(fd, wanted.mode)


def _by_rule(disk: Disk, folder: int, mode: int) -> NewFile:
    found = disk.fstat(folder)
    group = found.st_gid if found.st_mode & S_ISGID else os.getegid()
    default = disk.default_acl(folder)
    if not default:
        return NewFile(mode & ~disk.umask(), group, b"")
    entries = list(_ENTRY.iter_unpack(default[_VERSION:]))
    classes = {_OWNER: 6, _OTHER: 0}
    # Where there is a mask the mode's middle bits are the mask's.
    classes[_MASK if any(tag == _MASK for tag, _, _ in entries) else _GROUP] = 3
    left, acl = 0, default[:_VERSION]
    for tag, permissions, who in entries:
        allowed = permissions
        if tag in classes:
            allowed &= mode >> classes[tag]
            left |= allowed << classes[tag]
        acl += _ENTRY.pack(tag, allowed, who)
    return NewFile(left, group, acl if len(entries) > 3 else b"")
