"""What the journal asks of SQLite: statements, connections, and its errors in our words."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine.interfaces import Compiled

from txstore.errors import (
    JournalDamagedError,
    JournalError,
    JournalVersionError,
    LockTimeoutError,
)
from txstore.local.files.descriptors import descriptors_of, inode_of
from txstore.local.files.disk import Disk
from txstore.local.journal import schema
from txstore.process.strikes import pass_on
from txstore.protocol.moved import Fence

DIALECT = SQLiteDialect_pysqlite(paramstyle="named")
_IN_ORDER = SQLiteDialect_pysqlite(paramstyle="qmark")

#: Seconds that SQLite itself waits for its own locks: recovery of a WAL, the last close.
BUSY_TIMEOUT = 5.0
_CHUNK = 1024 * 1024

Row = tuple[Any, ...]
Values = Mapping[str, Any] | Row


class Statement:
    """A Core statement, compiled once and then run without SQLAlchemy in between.

    On a kept connection this costs 7 us for an UPDATE with its commit, against 26 us through
    SQLAlchemy's own execution.

    :param in_order: values come as a tuple, in the order in which the clause names them: finding
        them by name costs a fifth of a large UPDATE
    :ivar in_order: likewise; then ``sql`` is all that has to be executed
    """

    def __init__(self, clause: sa.sql.ClauseElement, *, in_order: bool = False) -> None:
        self._clause, self.in_order = clause, in_order
        self._dialect = _IN_ORDER if in_order else DIALECT

    @cached_property
    def _compiled(self) -> Compiled:
        return self._clause.compile(dialect=self._dialect)

    @cached_property
    def sql(self) -> str:
        """The statement's text."""
        return str(self._compiled)

    @cached_property
    def _fixed(self) -> dict[str, Any]:
        """Values that the clause itself has."""
        params = self._compiled.params
        return {name: value for name, value in params.items() if value is not None}

    def run(self, connection: sqlite3.Connection, values: Values) -> sqlite3.Cursor:
        if not isinstance(values, tuple) and self._fixed:
            values = {**self._fixed, **values}
        return connection.execute(self.sql, values)


SELECT_VERSION = Statement(sa.select(schema.version.c.version_num))

#: That the journal is of our revision: a newer worker may have upgraded it meanwhile.  For a
#: statement that is a transaction of its own.
IS_OURS: sa.ColumnElement[bool] = sa.select(
    schema.version.c.version_num
).scalar_subquery() == sa.literal_column(f"'{schema.REVISION}'")


def parameter(name: str) -> sa.BindParameter[Any]:
    """A parameter of a WHERE clause, ``p_`` and its name; SQLAlchemy keeps columns' own names for
    SET."""
    return sa.bindparam(f"p_{name}")


def connect(
    disk: Disk, path: str, access: str, busy_timeout: float = BUSY_TIMEOUT
) -> sqlite3.Connection:
    """A connection to an existing journal; ``access`` is ``"ro"`` or ``"rw"``.

    :param busy_timeout: seconds that SQLite itself waits for its own locks (recovery of a hot WAL,
        the last close)

    Transactions are begun and ended by explicit statements alone, in every version of Python.
    """
    return disk.connect(
        f"{Path(path).as_uri()}?mode={access}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=busy_timeout,
    )


def check_version(path: str, rows: list[Row]) -> None:
    """:raises JournalVersionError: the rows of ``alembic_version`` name another revision"""
    if rows != [(schema.REVISION,)]:
        if len(rows) != 1:
            raise JournalDamagedError(path, "its version is missing")
        raise wrong_version(path, str(rows[0][0]))


def wrong_version(path: str, found: str) -> JournalVersionError:
    """The error for a journal of a version that is not ours."""
    fence = Fence.read(found)
    if fence is None:
        return JournalVersionError(path, found=found, supported=schema.REVISION)
    return fence.error(path)


def translate(
    error: sqlite3.Error, path: str, disk: Disk, lock_timeout: float = BUSY_TIMEOUT
) -> Exception:
    """SQLite's error as the contract names it.  Its texts are stable; codes need Python 3.11.

    Called while the connection is open: what looks damaged is read then, to know whether it can be.
    """
    text = str(error)
    # "locking protocol": others were ahead each time, for some ten seconds.
    if "locked" in text or "locking" in text:
        return LockTimeoutError(path, lock_timeout)
    if "malformed" in text or "not a database" in text or "no such" in text:
        number = _unreadable(path, disk)
        if not number:
            return JournalDamagedError(path, text)
    elif "full" in text:
        number = errno.ENOSPC
    elif "readonly" in text:
        number = errno.EROFS
    elif "unable to open" in text:
        number = _probe(path, disk)
    else:
        # SQLite says the same of a quota, and of an index that could not grow.
        number = disk.lack_of_space(os.path.dirname(path)) or errno.EIO
    return JournalError(number, f"{os.strerror(number)} (SQLite: {text})", path)


def _unreadable(path: str, disk: Disk) -> int:
    """With which error the device refuses some of the journal or its log; 0: it refuses nothing.

    Of a page that cannot be read SQLite says that it is damaged.  Read through descriptors that
    SQLite has open: to close one of our own would drop its locks.
    """
    try:
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                inode = inode_of(disk.stat(path + suffix))
                for fd, _ in descriptors_of(disk, [inode])[:1]:
                    offset = 0
                    while part := disk.pread(fd, _CHUNK, offset):
                        offset += len(part)
    except OSError as error:
        pass_on(error)
        return 0 if error.errno == errno.EBADF else error.errno or errno.EIO  # closed meanwhile
    return 0


def _probe(path: str, disk: Disk) -> int:
    """Why a file cannot be opened; asked of its folder, since opening the file drops locks."""
    try:
        disk.stat(path)
        if not os.access(path, os.R_OK | os.W_OK):
            return errno.EACCES
        fd = disk.open_folder(os.path.dirname(path), follow=True)
        disk.close(fd)
    except OSError as error:
        return error.errno or errno.EIO
    # It may be one of the files beside it that could not be made.  XFS wants more for a name than
    # for some bytes.
    return disk.lack_of_space(os.path.dirname(path), _CHUNK) or errno.EIO
