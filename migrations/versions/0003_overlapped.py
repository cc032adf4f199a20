"""Overlapped: a row that was recorded while the bytes of its last segment were being flushed.

Its durable point is the segment before, and still the sender may have been told that the last one
is durable.  Rows of earlier revisions were recorded after their bytes were flushed, or promise
nothing.
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
