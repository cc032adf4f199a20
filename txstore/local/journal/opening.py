"""A journal as it is found when a store is opened: recognised, made or upgraded if need be, or
refused."""

from __future__ import annotations

import sqlite3
from contextlib import closing, nullcontext
from shlex import quote

import sqlalchemy as sa

from txstore.deadline import Deadline
from txstore.errors import (
    JournalDamagedError,
    JournalError,
    JournalOutdatedError,
    JournalVersionError,
)
from txstore.local.files.descriptors import inode_of
from txstore.local.files.folders import JOURNAL
from txstore.local.files.home import Home
from txstore.local.files.machine import NO_SPACE
from txstore.local.journal import schema
from txstore.local.journal.index import held
from txstore.local.journal.inherited import check_openable
from txstore.local.journal.journal import Journal
from txstore.local.journal.making import check_fresh, exists, make_new, remove_leftovers, separate
from txstore.local.journal.records import Records
from txstore.local.journal.sqlite import (
    BUSY_TIMEOUT,
    Statement,
    connect,
    translate,
    wrong_version,
)
from txstore.local.journal.upgrade import OLDER, exclusive, migrate, migrations_folder
from txstore.local.journal.wal import release_reserve
from txstore.local.locks import Lock
from txstore.process import forks
from txstore.protocol.moved import Fence

#: Up to this size (bytes) the whole journal is checked at open; beyond it, page by page as used.
_CHECKED_WHOLE = 256 * 1024

#: Reads no row; fails where a table or a column is missing.
ALL_COLUMNS = [Statement(sa.select(table).limit(0)) for table in schema.metadata.sorted_tables]


def open_records(
    home: Home,
    lock: Lock,
    lock_timeout: float,
    *,
    moving: bool = False,
    auto_migrate: bool = True,
) -> Records:
    """The journal of a store, made or upgraded if need be.

    :param moving: whether it is opened although a fence keeps workers off
    :param auto_migrate: whether an older one is upgraded

    :raises JournalDamagedError: it is not what txstore wrote; nothing was changed
    :raises JournalVersionError: a newer txstore wrote it; nothing was changed
    :raises JournalOutdatedError: an older one did, and it is not to be upgraded; likewise
    :raises StoreMismatchError: storage and working dir do not belong together
    """
    deadline = Deadline(lock_timeout)
    while True:
        try:
            current = _is_current(home, deadline, moving=moving)
            break
        except JournalError as error:
            # Even reading may need space, for SQLite's -shm.
            if error.errno not in NO_SPACE or not release_reserve(home.disk, home.working):
                raise
    made = False
    if not current:
        with lock.held(deadline):
            made = _make_current(home, deadline, moving=moving, auto_migrate=auto_migrate)
    records = Records(
        Journal(
            home.disk,
            home.journal_path,
            home.working,
            lock,
            home.mode,
            lock_timeout,
            copies=home.copies,
            moving=moving,
        ),
        is_new=made,
    )
    try:
        store_id, recorded = records.identity(deadline)
        if not home.check_marker(home.read_marker(), store_id, recorded):
            with lock.held(deadline):
                if not home.check_marker(home.read_marker(), store_id, recorded):
                    home.write_marker(store_id)
    except BaseException:
        records.close()
        raise
    return records


def _is_current(home: Home, deadline: Deadline, *, moving: bool) -> bool:
    try:
        found = home.disk.stat(JOURNAL, dir_fd=home.working)
    except FileNotFoundError:
        return False
    whole = found.st_size > 0 and found.st_nlink == 1
    return whole and inspect(home, found.st_size, deadline, moving=moving) == schema.REVISION


def _make_current(home: Home, deadline: Deadline, *, moving: bool, auto_migrate: bool) -> bool:
    """Make or upgrade the journal, unless another worker just did; whether it was made.  The
    journal lock is held."""
    try:
        size = home.disk.stat(JOURNAL, dir_fd=home.working).st_size
    except FileNotFoundError:
        check_fresh(home)
        make_new(home)
        return True
    if size == 0:
        raise JournalDamagedError(home.journal_path, "it is empty")
    # Its maker may have died between linking it and making the name durable.
    home.disk.flush_folder(home.working)
    remove_leftovers(home)
    if home.disk.stat(JOURNAL, dir_fd=home.working).st_nlink > 1:
        separate(home)
    found = inspect(home, size, deadline, moving=moving)
    if found in OLDER:
        if not auto_migrate:
            ini = migrations_folder() / "alembic.ini"
            raise JournalOutdatedError(
                home.journal_path,
                found=found,
                supported=schema.REVISION,
                command=f"alembic -c {quote(str(ini))} -x"
                f" {quote(f'working_dir={home.working_dir}')} upgrade head",
            )
        with exclusive(home.disk, home.journal_path, home.working) as connection:
            migrate(connection)
    return False


def inspect(home: Home, size: int, deadline: Deadline, *, moving: bool = False) -> str:
    """The revision of an existing journal, read without changing anything.

    :param moving: whether one that a fence keeps workers off counts as current

    By a read-only connection, since closing a writable one would checkpoint a journal that is then
    refused.  Without a WAL the database is at rest and is read as immutable, since even a read-only
    connection would make a WAL.

    :raises JournalDamagedError: SQLite cannot read it, or it is not a journal of txstore
    :raises JournalVersionError: its revision is not known here
    """
    while True:
        at_rest = not exists(home, JOURNAL + "-wal")
        try:
            access = "ro&immutable=1" if at_rest else "ro"
            return _inspect(home, access, size, deadline, moving=moving)
        except (JournalDamagedError, JournalVersionError):
            if at_rest and exists(home, JOURNAL + "-wal"):
                continue  # a worker began to write it meanwhile: that was not a reading at rest
            raise


def _inspect(home: Home, access: str, size: int, deadline: Deadline, *, moving: bool) -> str:
    path = home.journal_path
    at_rest = access != "ro"
    check_openable(path, inode_of(home.disk.stat(path)))
    try:
        waiting = min(BUSY_TIMEOUT, deadline.left())
        with (
            forks.opening,
            nullcontext() if at_rest else held(home.disk, path, deadline, copies=home.copies),
            closing(connect(home.disk, path, access, waiting)) as connection,
        ):
            try:
                rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
                if moving and len(rows) == 1 and Fence.read(str(rows[0][0])):
                    rows = [(schema.REVISION,)]
                if rows == [(schema.REVISION,)]:
                    for select in ALL_COLUMNS:
                        select.run(connection, {})
                if size <= _CHECKED_WHOLE:
                    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                    if verdict != "ok":
                        raise JournalDamagedError(path, verdict)
            except sqlite3.Error as error:  # while it is open: see `translate`
                raise translate(error, path, home.disk, deadline.timeout) from error
    except sqlite3.Error as error:
        raise translate(error, path, home.disk, deadline.timeout) from error
    if len(rows) != 1:
        raise JournalDamagedError(path, "its version is missing")
    revision = str(rows[0][0])
    if revision != schema.REVISION and revision not in OLDER:
        raise wrong_version(path, revision)
    return revision
