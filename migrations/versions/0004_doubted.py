"""Doubted: a flush of a row's staged bytes failed.

Revision 0003 recorded some rows while their bytes were being flushed and marked them 1 in
``overlapped``; those with a failed flush it marked 2.  Of the former nobody can tell any more
whether that flush succeeded.  So all are in doubt: whoever goes on stages anew what is not durable,
and flushes it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE transfer RENAME COLUMN overlapped TO doubted")
    transfer = sa.table("transfer", sa.column("doubted", sa.Integer))
    op.execute(transfer.update().values(doubted=1).where(transfer.c.doubted != 0))
