"""Versions of the journal: made new, recognised, upgraded, or refused."""

from __future__ import annotations

import io
import logging
import os
import re
import sqlite3
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, CreateTable

from txstore.deadline import Deadline
from txstore.errors import (
    JournalDamagedError,
    JournalError,
    JournalLinkedError,
    JournalVersionError,
)
from txstore.local.files.descriptors import inode_of
from txstore.local.files.disk import COPYING_FILE_SYSTEMS, NO_SPACE, Disk
from txstore.local.files.folders import JOURNAL
from txstore.local.files.home import Home
from txstore.local.files.places import is_staging_name
from txstore.local.journal import handles, schema
from txstore.local.journal.index import held
from txstore.local.journal.inherited import check_openable
from txstore.local.journal.journal import Journal
from txstore.local.journal.records import Records
from txstore.local.journal.sqlite import BUSY_TIMEOUT, DIALECT, Statement, connect, translate
from txstore.local.journal.wal import WalFile, release_reserve
from txstore.local.locks import Lock
from txstore.process import forks

logger = logging.getLogger(__name__)

#: Revisions that ``migrations/`` can upgrade from; a test compares them with the scripts there.
OLDER = ("0001", "0002", "0003", "0004")

#: Up to this size (bytes) the whole journal is checked at open; beyond it, page by page as used.
_CHECKED_WHOLE = 256 * 1024

_CHUNK = 1024 * 1024
#: What a database's header says of how it is read and written, and where: by a WAL.
_WAL_MODE, _WAL_MODE_AT = b"\2\2", 18

#: Reads no row; fails where a table or a column is missing.
ALL_COLUMNS = [Statement(sa.select(table).limit(0)) for table in schema.metadata.sorted_tables]

TEMPORARY = re.compile(r"new-[0-9a-f]{32}(-wal|-shm)?\Z")


def open_records(home: Home, lock: Lock, lock_timeout: float) -> Records:
    """The journal of a store, made or upgraded if need be.

    :raises JournalDamagedError: it is not what txstore wrote; nothing was changed
    :raises JournalVersionError: a newer txstore wrote it; nothing was changed
    :raises StoreMismatchError: storage and working dir do not belong together
    """
    deadline = Deadline(lock_timeout)
    while True:
        try:
            current = _is_current(home, deadline)
            break
        except JournalError as error:
            # Even reading may need space, for SQLite's -shm.
            if error.errno not in NO_SPACE or not release_reserve(home.disk, home.working):
                raise
    if not current:
        lock.acquire(deadline)
        try:
            _make_current(home, deadline)
        finally:
            lock.release()
    records = Records(
        Journal(
            home.disk,
            home.journal_path,
            home.working,
            lock,
            home.mode,
            lock_timeout,
            copies=home.copies,
        )
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


def _is_current(home: Home, deadline: Deadline) -> bool:
    try:
        found = home.disk.stat(JOURNAL, dir_fd=home.working)
    except FileNotFoundError:
        return False
    whole = found.st_size > 0 and found.st_nlink == 1
    return whole and inspect(home, found.st_size, deadline) == schema.REVISION


def _make_current(home: Home, deadline: Deadline) -> None:
    """Make or upgrade the journal, unless another worker just did.  The journal lock is held."""
    try:
        size = home.disk.stat(JOURNAL, dir_fd=home.working).st_size
    except FileNotFoundError:
        _check_fresh(home)
        _create(home)
        return
    if size == 0:
        raise JournalDamagedError(home.journal_path, "it is empty")
    # Its maker may have died between linking it and making the name durable.
    home.disk.flush_folder(home.working)
    _remove_leftovers(home)
    if home.disk.stat(JOURNAL, dir_fd=home.working).st_nlink > 1:
        _separate(home)
    if inspect(home, size, deadline) in OLDER:
        with exclusive(home.disk, home.journal_path, home.working) as connection:
            migrate(connection)


def inspect(home: Home, size: int, deadline: Deadline) -> str:
    """The revision of an existing journal, read without changing anything.

    By a read-only connection, since closing a writable one would checkpoint a journal that is then
    refused.  Without a WAL the database is at rest and is read as immutable, since even a read-only
    connection would make a WAL.

    :raises JournalDamagedError: SQLite cannot read it, or it is not a journal of txstore
    :raises JournalVersionError: its revision is not known here
    """
    while True:
        at_rest = not _exists(home, JOURNAL + "-wal")
        try:
            return _inspect(home, "ro&immutable=1" if at_rest else "ro", size, deadline)
        except (JournalDamagedError, JournalVersionError):
            if at_rest and _exists(home, JOURNAL + "-wal"):
                continue  # a worker began to write it meanwhile: that was not a reading at rest
            raise


def _inspect(home: Home, access: str, size: int, deadline: Deadline) -> str:
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
            rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
            if rows == [(schema.REVISION,)]:
                for select in ALL_COLUMNS:
                    select.run(connection, {})
            if size <= _CHECKED_WHOLE:
                (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                if verdict != "ok":
                    raise JournalDamagedError(path, verdict)
    except sqlite3.Error as error:
        raise translate(error, path, home.disk, deadline.timeout) from error
    if len(rows) != 1:
        raise JournalDamagedError(path, "its version is missing")
    revision = str(rows[0][0])
    if revision != schema.REVISION and revision not in OLDER:
        raise JournalVersionError(path, found=revision, supported=schema.REVISION)
    return revision


def _exists(home: Home, name: str) -> bool:
    try:
        home.disk.stat(name, dir_fd=home.working)
    except FileNotFoundError:
        return False
    return True


# --- making a new one ----------------------------------------------------------------------------


def _check_fresh(home: Home) -> None:
    """:raises JournalDamagedError: there was a journal: beside what is left of it a new one would
    take up old rows, or lose staged bytes"""
    for name in (JOURNAL + "-wal", JOURNAL + "-shm"):
        if _exists(home, name):
            raise JournalDamagedError(home.journal_path, f"it is missing beside its {name!r}")
    folders = [home.staging] + ([home.hidden_staging()] if home.has_hidden_staging() else [])
    if any(is_staging_name(name) for fd in folders for name in home.disk.list_folder(fd)):
        raise JournalDamagedError(home.journal_path, "it is missing beside its staging files")


def _create(home: Home) -> None:
    """A new journal in one go: whole and durable before it has its name."""
    store_id = str(uuid.uuid4())
    marker = home.read_marker()
    home.check_marker(marker, None, "")
    # First the marker: a journal without one is put right by `open_records`, but a marker with
    # another id than the journal's is taken for two stores mixed up.
    home.write_marker(store_id)
    home.make_durable()
    _remove_leftovers(home)
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


def _separate(home: Home) -> None:
    """Give a journal a file of its own that has a lasting second name: in a backup made of hard
    links it would change with this one.  The journal lock is held.

    :raises JournalLinkedError: somebody may be using it: it has a WAL
    """
    if _exists(home, JOURNAL + "-wal"):
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


def _remove_leftovers(home: Home) -> None:
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
    values = {
        "id": 1,
        "store_id": store_id,
        "storage_dir": os.fsencode(home.relative_storage_dir()),
        "created_at": time.time(),
        "boot": "",
        "boot_ticks": 0.0,
    }
    template = _template()
    _write(home.disk, fd, template, 0)
    try:
        with forks.opening, closing(connect(home.disk, path, "rw")) as connection:
            connection.execute("PRAGMA synchronous=OFF")  # flushed as a whole afterwards
            connection.execute("PRAGMA journal_mode=MEMORY")
            if not template:
                _build(connection)
            _INSERT_STORE.run(connection, values)
    except sqlite3.Error as error:
        raise translate(error, path, home.disk) from error
    _write(home.disk, fd, _WAL_MODE, _WAL_MODE_AT)


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
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        _build(connection)
        return connection.serialize()


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


# --- upgrading an old one ------------------------------------------------------------------------


@contextmanager
def exclusive(disk: Disk, path: str, folder_fd: int) -> Iterator[sqlite3.Connection]:
    """A connection inside one transaction that nobody else can write beside; committed at the end
    of the body, rolled back if it raises.  The caller holds the journal lock.

    :param folder_fd: descriptor of the working dir
    """
    copies = disk.file_system(folder_fd) in COPYING_FILE_SYSTEMS
    # All that is in it may be written anew, more than once.
    growth = 4 * disk.stat(path).st_size
    deadline = Deadline(BUSY_TIMEOUT)
    with forks.opening, held(disk, path, deadline, copies=copies, growth=growth):
        raw = handles.open_writing(disk, path)
        try:
            raw.execute("BEGIN IMMEDIATE")
            yield raw
            if raw.in_transaction:
                raw.execute("COMMIT")
        except BaseException as error:
            with suppress(sqlite3.Error):
                raw.rollback()
            if isinstance(error, sqlite3.Error):
                raise translate(error, path, disk) from error
            raise
        finally:
            _settle_and_close(raw, disk, path, folder_fd)


def _settle_and_close(raw: sqlite3.Connection, disk: Disk, path: str, folder_fd: int) -> None:
    try:
        wal = WalFile(disk, os.path.basename(path) + "-wal", folder_fd)
        try:
            wal.write_anew()
        finally:
            wal.close()
    except BaseException as error:
        handles.close_unsettled(raw)
        if not isinstance(error, OSError):
            raise
        logger.warning("The journal's log could not be flushed: %s", error)
    else:
        handles.close_settled(raw)


def migrate(connection: sqlite3.Connection) -> None:
    """Run all missing revisions inside the connection's transaction.

    Alembic says what is to be done, and runs nothing: through an engine of SQLAlchemy an
    application's own listeners, which it may have for all engines, would run too.  And its
    own loader of scripts needs a folder, which there is none of in a zip.
    """
    # Alembic takes 0.2 s to import, and a current journal never needs it.
    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    [(found,)] = connection.execute("SELECT version_num FROM alembic_version").fetchall()
    for script in _scripts():
        if script["revision"] <= found:
            continue
        text = io.StringIO()
        options = {"as_sql": True, "literal_binds": True, "output_buffer": text}
        context = MigrationContext.configure(dialect_name="sqlite", opts=options)
        with Operations.context(context):
            script["upgrade"]()
        for statement in _statements(text.getvalue()):
            connection.execute(statement)
        connection.execute("UPDATE alembic_version SET version_num = ?", (script["revision"],))


def _scripts() -> Iterator[dict[str, Any]]:
    """What the revisions' scripts define, oldest first."""
    folder = resources.files("txstore") / "migrations" / "versions"
    if not folder.is_dir():
        folder = migrations_folder() / "versions"
    for one in sorted(folder.iterdir(), key=lambda one: one.name):
        if one.name.endswith(".py"):
            script: dict[str, Any] = {"__name__": one.name}
            exec(compile(one.read_text(encoding="utf-8"), one.name, "exec"), script)
            yield script


def _statements(text: str) -> Iterator[str]:
    statement = ""
    for line in text.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def migrations_folder() -> Path:
    """Where the Alembic scripts are: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent.parent  # the package
    for folder in (package / "migrations", package.parent / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise FileNotFoundError(f"txstore was installed without its migrations folder: {package}")


def upgrade_by_hand(working_dir: str, run: Any) -> None:
    """What a bare ``alembic upgrade`` does: the same transaction under the same lock.

    :param run: called with the connection
    """
    from txstore.local.locks import Locks

    disk = Disk()
    path = os.path.join(working_dir, JOURNAL)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no journal at {path}")
    folder = os.path.join(working_dir, "locks")
    with ExitStack() as opened:
        fds = [disk.open_folder(one, follow=True) for one in (working_dir, folder)]
        for fd in fds:
            opened.callback(disk.close, fd)
        locks = Locks(disk, folder, fds[1], os.stat(path).st_mode & 0o777)
        opened.callback(locks.close)
        with locks.journal.held(Deadline(30.0)), exclusive(disk, path, fds[0]) as raw:
            # No pool closes it, and nothing begins another transaction.
            pool = sa.pool.StaticPool
            engine = sa.create_engine("sqlite://", creator=lambda: raw, poolclass=pool)
            with engine.begin() as connection:
                run(connection)
