"""A new journal, whole and durable before it has its name."""

from __future__ import annotations

import os
import re
import sqlite3
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, CreateTable

from txstore.errors import (
    JournalDamagedError,
    JournalLinkedError,
)
from txstore.local.files.disk import Disk
from txstore.local.files.folders import JOURNAL
from txstore.local.files.home import Home
from txstore.local.files.places import is_staging_name
from txstore.local.journal import schema
from txstore.local.journal.sqlite import DIALECT, Statement, connect, translate
from txstore.process import forks

_CHUNK = 1024 * 1024
#: What a database's header says of how it is read and written, and where: by a WAL.
WAL_MODE, WAL_MODE_AT = b"\2\2", 18

TEMPORARY = re.compile(r"new-[0-9a-f]{32}(-wal|-shm)?\Z")


def exists(home: Home, name: str) -> bool:
    try:
        home.disk.stat(name, dir_fd=home.working)
    except FileNotFoundError:
        return False
    return True


def check_fresh(home: Home) -> None:
    """:raises JournalDamagedError: there was a journal: beside what is left of it a new one would
    take up old rows, or lose staged bytes"""
    for name in (JOURNAL + "-wal", JOURNAL + "-shm"):
        if exists(home, name):
            raise JournalDamagedError(home.journal_path, f"it is missing beside its {name!r}")
    folders = [home.staging] + ([home.hidden_staging()] if home.has_hidden_staging() else [])
    if any(is_staging_name(name) for fd in folders for name in home.disk.list_folder(fd)):
        raise JournalDamagedError(home.journal_path, "it is missing beside its staging files")


def make_new(home: Home) -> None:
    """A new journal in one go: whole and durable before it has its name."""
    store_id = str(uuid.uuid4())
    marker = home.read_marker()
    home.check_marker(marker, None, "")
    # First the marker: a journal without one is put right by `open_records`, but a marker with
    # another id than the journal's is taken for two stores mixed up.
    home.write_marker(store_id)
    home.make_durable()
    remove_leftovers(home)
    with _new_file(home) as (fd, temporary):
        _fill(home, fd, os.path.join(home.working_dir, temporary), store_id)
    with home.needing("link", home.working):
        home.disk.link(temporary, JOURNAL, dir_fd=home.working)
    # Until its name is durable it has two links, and nobody opens it: SQLite would make a WAL, and
    # a WAL that outlives the name in a power loss looks like a journal that was lost.
    home.disk.flush_folder(home.working)
    home.disk.unlink(temporary, dir_fd=home.working)


@contextmanager
def _new_file(home: Home) -> Iterator[tuple[int, str]]:
    """What will be the journal, under a temporary name; flushed at the end."""
    temporary = f"new-{uuid.uuid4().hex}"
    fd = home.disk.create(temporary, home.mode, dir_fd=home.working)
    try:
        home.disk.chmod(fd, home.mode)
        yield fd, temporary
        home.disk.flush(fd)
    finally:
        # Before the file is the journal: closing it later would drop the locks of whoever in this
        # process has opened it by then.
        home.disk.close(fd)


def separate(home: Home) -> None:
    """Give a journal a file of its own that has a lasting second name: in a backup made of hard
    links it would change with this one.  The journal lock is held.

    :raises JournalLinkedError: somebody may be using it: it has a WAL
    """
    if exists(home, JOURNAL + "-wal"):
        raise JournalLinkedError(home.journal_path)
    # No connection is open in this process either, whose locks closing this would drop.
    shared = home.disk.open(JOURNAL, dir_fd=home.working, write=False)
    try:
        with _new_file(home) as (fd, temporary):
            done = 0
            while part := home.disk.pread(shared, _CHUNK, done):
                _write(home.disk, fd, part, done)
                done += len(part)
    finally:
        home.disk.close(shared)
    home.disk.rename(temporary, JOURNAL, source_dir=home.working, target_dir=home.working)
    home.disk.flush_folder(home.working)


def remove_leftovers(home: Home) -> None:
    """Remove what a crash left of an earlier attempt; the journal lock is held."""
    for name in [n for n in home.disk.list_folder(home.working) if TEMPORARY.match(n)]:
        with suppress(IsADirectoryError):  # a stray of somebody else's
            home.disk.unlink(name, dir_fd=home.working)


_INSERT_STORE = Statement(
    sa.insert(schema.store).values({c.name: sa.bindparam(c.name) for c in schema.store.c})
)


def _fill(home: Home, fd: int, path: str, store_id: str) -> None:
    """Write an empty journal with the store's row.

    In no WAL yet: its last connection would copy that into the file when it closes, and keep it to
    itself where it cannot.
    """
    at = home.clock.now()
    values = {
        "id": 1,
        "store_id": store_id,
        "storage_dir": os.fsencode(home.relative_storage_dir()),
        "created_at": time.time(),
        "boot": at.boot,
        "boot_ticks": at.ticks,
    }
    whole = _filled(values)
    if whole:
        _write(home.disk, fd, whole, 0)
    else:
        try:
            with forks.opening, closing(connect(home.disk, path, "rw")) as connection:
                connection.execute("PRAGMA synchronous=OFF")  # flushed as a whole afterwards
                connection.execute("PRAGMA journal_mode=MEMORY")
                _build(connection)
                _INSERT_STORE.run(connection, values)
        except sqlite3.Error as error:
            raise translate(error, path, home.disk) from error
    _write(home.disk, fd, WAL_MODE, WAL_MODE_AT)


def _write(disk: Disk, fd: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        done = disk.pwrite(fd, rest, offset)
        rest, offset = rest[done:], offset + done


@lru_cache(maxsize=1)
def _template() -> bytes:
    """An empty journal of the current revision, built once a process: copying it costs 0.02 ms,
    building it 3 ms, running the migrations 5 ms, and suites of tests open thousands of stores.

    Built in memory, since the store writes nowhere but in its two folders; empty before Python
    3.11, which cannot say what is there.
    """
    if sys.version_info < (3, 11):
        return b""
    with closing(_in_memory()) as connection:
        _build(connection)
        return connection.serialize()


def _filled(values: dict[str, object]) -> bytes:
    """An empty journal with the store's row, made in memory; empty where that cannot be."""
    template = _template()
    if sys.version_info < (3, 11) or not template:
        return b""
    with closing(_in_memory()) as connection:
        connection.deserialize(template)
        _INSERT_STORE.run(connection, values)
        return connection.serialize()


def _in_memory() -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None)


def _build(connection: sqlite3.Connection) -> None:
    # A commit writes whole pages, mostly one.
    connection.execute("PRAGMA page_size=1024")
    connection.execute("BEGIN")
    for table in schema.metadata.sorted_tables:
        connection.execute(str(CreateTable(table).compile(dialect=DIALECT)))
        for index in sorted(table.indexes, key=lambda one: str(one.name)):
            connection.execute(str(CreateIndex(index).compile(dialect=DIALECT)))
    connection.execute("INSERT INTO alembic_version VALUES (?)", (schema.REVISION,))
    connection.execute("COMMIT")
