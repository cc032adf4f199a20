"""Versions of the journal in PostgreSQL: made new, recognised, upgraded, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Any

import sqlalchemy as sa

from txstore.cluster import schema
from txstore.cluster.journal import Journal, Transaction
from txstore.cluster.servers import Servers
from txstore.deadline import Deadline
from txstore.errors import JournalOutdatedError, JournalVersionError, UnfitServerError
from txstore.protocol.moved import Fence

#: Revisions that ``migrations/cluster`` can upgrade from.
OLDER: tuple[str, ...] = ()

#: Of the advisory lock under which revisions run; the same for every store in a database.
_MIGRATING = 0x7478_7374_6F72_6501

_HAS_VERSION = sa.text(
    "SELECT to_regclass(quote_ident(current_schema()) || '.alembic_version') IS NOT NULL"
)
_SETTINGS = sa.text(
    "SELECT name, setting FROM pg_settings WHERE name IN ('fsync', 'full_page_writes')"
    " ORDER BY name"
)
_VERSION = sa.text("SELECT version_num FROM alembic_version")


def make_current(journal: Journal, deadline: Deadline, *, auto_migrate: bool) -> None:
    """Make the tables, or upgrade them, unless they are as they should be.

    :param auto_migrate: whether that is to be done here; otherwise they are refused
    :raises JournalVersionError: a newer txstore made them; nothing was changed
    :raises JournalOutdatedError: they are older, or not there, and are not to be made here
    """
    with journal.transaction(deadline) as transaction:
        found = _revision(journal, transaction)
    if found == schema.REVISION:
        return
    if not auto_migrate:
        ini = migrations_folder() / "alembic.ini"
        raise JournalOutdatedError(
            journal.where,
            found=found,
            supported=schema.REVISION,
            # Without the password: PGPASSWORD and .pgpass work there, too.
            command=f"alembic -c {quote(str(ini))} -x {quote(f'journal={journal.where}')}"
            " upgrade head",
        )
    with journal.transaction(deadline) as transaction:
        transaction.run(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATING)))
        if _revision(journal, transaction) != schema.REVISION:
            _migrate(transaction.connection)


def _revision(journal: Journal, transaction: Transaction) -> str | None:
    if not transaction.run(_HAS_VERSION).scalar():
        return None
    found = transaction.run(_VERSION).scalar()
    fence = Fence.read(str(found))
    if fence is not None and journal.moving:
        return schema.REVISION
    if fence is not None:
        raise fence.error(journal.where)
    if found not in (None, schema.REVISION, *OLDER):
        raise JournalVersionError(journal.where, found=str(found), supported=schema.REVISION)
    return None if found is None else str(found)


def check_keeps(journal: Journal, at: Transaction) -> None:
    """:raises UnfitServerError: a power loss would take what the server confirms"""
    found: list[Any] = list(at.run(_SETTINGS))
    off = [name for name, value in found if value == "off"]
    if off:
        raise UnfitServerError(journal.where, off)


def check_revision(journal: Journal, at: Transaction) -> bool:
    """Whether there is a journal that this version can read.

    :raises JournalVersionError: a newer txstore made it
    """
    return _revision(journal, at) == schema.REVISION


def _migrate(connection: sa.Connection) -> None:
    # It takes a tenth of a second to import, and is needed once in the life of a store.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def migrations_folder() -> Path:
    """Where the Alembic scripts are: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parent.parent
    for folder in (package / "migrations", package.parent / "migrations"):
        if (folder / "cluster" / "env.py").is_file():
            return folder / "cluster"
    raise FileNotFoundError(f"txstore was installed without its migrations folder: {package}")


def upgrade_by_hand(url: str, run: Callable[[sa.Connection], None]) -> None:
    """What ``migrations/cluster/env.py`` does."""
    deadline = Deadline(30.0)
    journal = Journal(url, Servers(), deadline.timeout)
    try:
        with journal.transaction(deadline) as transaction:
            transaction.run(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATING)))
            _revision(journal, transaction)
            run(transaction.connection)
    finally:
        journal.close()
