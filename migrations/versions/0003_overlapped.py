"""Overlapped: a row that was recorded while the bytes of its last segment were being flushed.

Its durable point is the segment before, and still the sender may have been told that the last one
is durable (1).  Or a flush of its bytes failed, so that whoever goes on has to write and flush them
anew (2).  Rows without a durable point get the latter: those of revision 0001 may be promised.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "transfer", sa.Column("overlapped", sa.Integer, nullable=False, server_default="0")
    )
    transfer = sa.table(
        "transfer", *(sa.column(n, sa.Integer) for n in ("overlapped", "durable_segments"))
    )
    op.execute(transfer.update().values(overlapped=2).where(transfer.c.durable_segments == 0))
