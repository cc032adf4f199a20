"""Whether a file has the content that it should have; reads it whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from stat import S_ISREG

from txstore.local.files.disk import Disk

_CHUNK = 1024 * 1024


def has_content(
    disk: Disk,
    name: str,
    folder: int,
    sha256: bytes | None,
    reached: Callable[[int], object] = lambda _: None,
) -> bool:
    """Whether a file is a regular one with that hash.

    :param folder: descriptor of the folder that it lies in
    :param reached: hears how many bytes were read, piece by piece
    """
    if not S_ISREG(disk.stat(name, dir_fd=folder).st_mode):
        return False
    fd = disk.open(name, dir_fd=folder, write=False)
    try:
        hasher, offset = hashlib.sha256(), 0
        while part := disk.pread(fd, _CHUNK, offset):
            hasher.update(part)
            offset += len(part)
            reached(len(part))
    finally:
        disk.close(fd)
    return hasher.digest() == sha256
