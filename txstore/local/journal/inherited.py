"""A SQLite connection that another process opened, or whose descriptors were closed under it.

It must not be used or closed as it is: it could checkpoint or remove the write-ahead log while
others work, or write into files that got its descriptors' numbers.  Nor may it merely be left
alone: SQLite keeps one table for each database file in a process, which says that the file is
locked already, so a new connection would take no lock in the kernel.  Then the next process to
close its own deletes the log under it, and the next to open cuts the mapped index: SIGBUS.

So its descriptors are replaced by one that nothing can be locked, read or written through, and
then it is closed: SQLite clears its table, and can do nothing else.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import threading
from collections.abc import Collection

from txstore.errors import JournalError
from txstore.local.files.descriptors import Descriptor, Inode, inode_of
from txstore.local.journal import handles

#: Journals that SQLite cannot open in this process any more.
_lost: set[Inode] = set()


def give_up(journal: Inode) -> None:
    """Note that SQLite's table for a journal is wrong for good in this process."""
    _lost.add(journal)


def check_openable(path: str, journal: Inode) -> None:
    """Refuse a journal that SQLite cannot open in this process, before it is asked anything.

    :raises JournalError: it was given up
    """
    if journal in _lost:
        raise JournalError(
            errno.EBADF,
            "SQLite cannot open the journal in this process: it was forked in the middle of a"
            " call (from C, or by a signal handler), or its descriptors were closed and belong to"
            " other files. Use another process, or open the store after the fork",
            path,
        )


def put_away(connection: sqlite3.Connection, descriptors: Collection[Descriptor]) -> bool:
    """Close a connection that nobody is using, so that nothing happens but in SQLite's memory.

    :param descriptors: all that SQLite had when it was last opened
    :return: ``False`` where other files got its numbers and another thread could be using them:
        then it stays as it is
    """
    if not handles.is_open(connection):
        return True  # closed already: another connection to the same journal may have its numbers
    taken = [fd for fd, inode in descriptors if _inode(fd) not in (None, inode)]
    if taken and threading.active_count() > 1:
        return False
    # A pipe's reading end: a lock for writing is refused, and nothing can be read at an offset.
    reading, writing = os.pipe()
    os.close(writing)
    above = max((fd for fd, _ in descriptors), default=2) + 1
    dead = fcntl.fcntl(reading, fcntl.F_DUPFD_CLOEXEC, above)
    os.close(reading)
    nothing = _inode(dead)
    aside: list[tuple[int, int, bool]] = []
    try:
        for fd, _ in descriptors:
            if fd in taken:
                copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above)
                aside.append((fd, copy, os.get_inheritable(fd)))
            elif _inode(fd) is None:
                # Not by `dup2`, which would close what another thread opens at this moment.
                got = fcntl.fcntl(dead, fcntl.F_DUPFD_CLOEXEC, fd)
                if got != fd:
                    os.close(got)
                    return False
                continue
            os.dup2(dead, fd, inheritable=False)
        handles.close_powerless(connection)
    finally:
        for fd, copy, inheritable in aside:
            os.dup2(copy, fd, inheritable=inheritable)
            os.close(copy)
        for fd in (*(fd for fd, _ in descriptors), dead):
            if _inode(fd) == nothing:
                os.close(fd)
    return True


def _inode(fd: int) -> Inode | None:
    try:
        return inode_of(os.fstat(fd))
    except OSError:
        return None
