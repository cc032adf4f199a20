"""A fence around a journal in PostgreSQL: who opens the store is refused by its version, and who
has it open by triggers, whatever he writes.  Each runs in a caller's transaction."""

from __future__ import annotations

import sqlalchemy as sa

from txstore.cluster.journal import FENCED, PASS, Transaction
from txstore.cluster.schema import REVISION, metadata
from txstore.protocol.moved import Fence

_VERSION = sa.text("SELECT version_num FROM alembic_version")
_SHARED = sa.text("SELECT version_num FROM alembic_version FOR SHARE")
# Alembic makes it for 32 characters.
_WIDEN = sa.text("ALTER TABLE alembic_version ALTER COLUMN version_num TYPE text")
_SET = sa.text("UPDATE alembic_version SET version_num = :version")
_REFUSE = f"""
CREATE OR REPLACE FUNCTION txstore_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = '{FENCED}',
        MESSAGE = (SELECT version_num FROM alembic_version);
END $$
"""
_TABLES = [one.name for one in metadata.sorted_tables]


def read_fence(at: Transaction) -> Fence | None:
    """What keeps workers off; ``None``: nothing does."""
    return Fence.read(str(at.run(_VERSION).scalar_one()))


def stands(at: Transaction) -> bool:
    """Whether the store is one that is being filled; so it stays until the transaction ends."""
    fence = Fence.read(str(at.run(_SHARED).scalar_one()))
    return fence is not None and fence.way == "from"


def set_fence(at: Transaction, fence: Fence | None) -> None:
    """Keep workers off, or let them in: ``None``.  Waits for transactions that are under way."""
    # Always in the same order, so that two who do this wait for each other.
    at.run(_WIDEN)
    at.run(sa.text(_REFUSE.replace(":", "\\:")))
    for table in _TABLES:
        at.run(sa.text(f'DROP TRIGGER IF EXISTS txstore_fence ON "{table}"'))
        if fence is not None:
            at.run(
                sa.text(
                    f"CREATE TRIGGER txstore_fence BEFORE INSERT OR UPDATE OR DELETE ON {table}"
                    f" FOR EACH STATEMENT WHEN (current_setting('{PASS}', true)"
                    " IS DISTINCT FROM 'on') EXECUTE FUNCTION txstore_refuse()"
                )
            )
    at.run(_SET, {"version": str(fence) if fence is not None else REVISION})
