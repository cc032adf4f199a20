"""SQLite's writing connections to a journal: made here, and ended here alone.

The last connection that closes copies the WAL into the database and removes it.  Done before the
WAL is *settled* (``Connection.settle_wal``), that leaves a newer database on the device than the
WAL that a power loss may bring back over it.  SQLite closes wherever Python lets go of a
connection: an ``except``, the collector, the interpreter's end, a forked child's.  So each has a
reference too many, which only the functions below give back.  What none of them gets is
**abandoned**: it stays as it is until the process ends, and leaves what a kill leaves.

Connections that only read are no danger: the last one to close checkpoints only with an exclusive
lock on the database, which needs a descriptor that may write.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from txstore.local.files.descriptors import Inode, inode_of
from txstore.local.files.disk import Disk
from txstore.local.journal.sqlite import BUSY_TIMEOUT, connect

# Own copies of the two functions: a prototype is set on them.
_python = ctypes.PyDLL(None)
for _function in (_python.Py_IncRef, _python.Py_DecRef):
    _function.argtypes, _function.restype = [ctypes.py_object], None


class _File(NamedTuple):
    """What a connection has open.

    :ivar inode: ``None`` where the path may have led to another file meanwhile
    """

    path: str
    inode: Inode | None


_open: dict[sqlite3.Connection, _File] = {}
#: Those that could not be closed without being the last, with the process that left them.
_left: list[tuple[int, Inode, sqlite3.Connection]] = []


def open_writing(disk: Disk, path: str, busy_timeout: float = BUSY_TIMEOUT) -> sqlite3.Connection:
    """A connection to an existing journal that may write.  It has read nothing yet, and so has no
    WAL."""
    before = _inode(path)
    connection = connect(disk, path, "rw", busy_timeout)
    _python.Py_IncRef(connection)
    _open[connection] = _File(path, before if before == _inode(path) else None)
    _never_checkpoint(connection, True)
    return connection


def close_settled(connection: sqlite3.Connection) -> None:
    """Close a connection; if it is the last one it checkpoints.  The journal lock is held, and the
    WAL was settled since it was taken."""
    if connection in _open:
        _never_checkpoint(connection, False)
    _close(connection)


def close_unsettled(connection: sqlite3.Connection) -> None:
    """Close a connection so that SQLite neither checkpoints nor removes the WAL.

    Before Python 3.12 it must not be the last for that; where nobody can be had to outlive it, it
    is left to ``close_left``.
    """
    if connection not in _open:
        connection.close()
    elif _never_checkpoint(connection, True):
        _close(connection)
    else:
        _roll_back(connection)
        path, inode = _open[connection]
        if inode is not None and not _close_outlived(connection, path, inode):
            _left.append((os.getpid(), inode, connection))


def close_powerless(connection: sqlite3.Connection) -> None:
    """Close a connection whose descriptors lead to nothing that it could lock, write or remove
    (``inherited.put_away``)."""
    _close(connection)


def is_open(connection: sqlite3.Connection) -> bool:
    """Whether a connection that was to be closed is left."""
    return connection in _open


def close_left(inode: Inode) -> None:
    """Close what was left of a journal's connections; one that has read it is open and stays so,
    so that none of them is the last."""
    for one in list(_left):
        if one[:2] == (os.getpid(), inode):
            _left.remove(one)
            _close(one[2])


def _close(connection: sqlite3.Connection) -> None:
    _roll_back(connection)
    connection.close()
    if _open.pop(connection, None) is not None:
        _python.Py_DecRef(connection)


def _roll_back(connection: sqlite3.Connection) -> None:
    """Or others could not write: closed with a statement alive, in a traceback, say, SQLite keeps
    its locks until that statement is gone."""
    with suppress(sqlite3.Error):
        connection.rollback()


def _close_outlived(connection: sqlite3.Connection, path: str, inode: Inode) -> bool:
    """Close a connection while another one reads, if that can be had."""
    if _inode(path) != inode:
        return False  # of an empty file in its place SQLite would remove the WAL
    try:
        # Not through the seam: it is no part of what the store does, and works on a dead disk too.
        with closing(sqlite3.connect(f"{Path(path).as_uri()}?mode=ro", uri=True)) as reader:
            reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if _inode(path) == inode:
                _close(connection)
    except sqlite3.Error:
        pass  # no descriptor is left, say
    return connection not in _open


def _inode(path: str) -> Inode | None:
    try:
        return inode_of(os.stat(path))
    except OSError:
        return None


if sys.version_info >= (3, 12):

    def _never_checkpoint(connection: sqlite3.Connection, never: bool) -> bool:
        connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, never)
        return True

else:

    def _never_checkpoint(_connection: sqlite3.Connection, _never: bool) -> bool:
        return False
