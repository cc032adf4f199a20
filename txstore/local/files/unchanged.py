"""Whether any name in a folder may have changed: one question in place of one for each name.

Asking the kernel for each file instead has a price beyond its own.  Since Linux 6.13 a file whose
times were asked for gets a new time of change with its next write.  The flush after that takes the
inode along: a flush of the journal's WAL took twice as long.
"""

from __future__ import annotations

import time

from txstore.local.files.disk import Disk

#: Nanoseconds for which two changes may get the same time: some ticks of the kernel's clock, or
#: the second of an old file system.
_TICKS, _SECOND = 50_000_000, 1_000_000_000


def version_of(disk: Disk, folder: str) -> tuple[int, int, int] | None:
    """A value that changes when any name in a folder is made, removed or replaced, or the folder
    itself is: these change the folder's ctime (``inode(7)``), which nobody can set.

    Taken *before* the names are looked at, it is the version that they have at least.

    :param folder: absolute path
    :return: ``None`` where a change so soon after the last might not show, or there is no folder
    """
    try:
        found = disk.stat(folder, follow=True)
    except (FileNotFoundError, NotADirectoryError):
        return None
    changed = found.st_ctime_ns
    blur = _TICKS if changed % _SECOND else 2 * _SECOND
    if not blur < time.time_ns() - changed:
        return None
    return found.st_dev, found.st_ino, changed
