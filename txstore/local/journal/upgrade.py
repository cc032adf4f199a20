"""A journal of an older version is upgraded, in one transaction."""

from __future__ import annotations

import io
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib import resources
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from txstore.deadline import Deadline
from txstore.local.files.disk import Disk
from txstore.local.files.folders import JOURNAL
from txstore.local.files.machine import copies_of
from txstore.local.journal import handles
from txstore.local.journal.index import held
from txstore.local.journal.sqlite import BUSY_TIMEOUT, translate
from txstore.local.journal.wal import WalFile
from txstore.process import forks

logger = logging.getLogger(__name__)

#: Revisions that ``migrations/`` can upgrade from; a test compares them with the scripts there.
OLDER = ("0001", "0002", "0003", "0004", "0005", "0006")


@contextmanager
def exclusive(disk: Disk, path: str, folder_fd: int) -> Iterator[sqlite3.Connection]:
    """A connection inside one transaction that nobody else can write beside; committed at the end
    of the body, rolled back if it raises.  The caller holds the journal lock.

    :param folder_fd: descriptor of the working dir
    """
    copies = copies_of(disk.file_system(folder_fd))
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
