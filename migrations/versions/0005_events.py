"""Events: what became of each transfer, in order, and which consumers have seen how much of it.

Transfers that ended before have none: nothing of theirs is made up.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("transfer", sa.Column("publish_sender", sa.Text))
    op.create_table(
        "event",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("file_id", sa.Text, nullable=False),
        sa.Column("segments", sa.Integer, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("path", sa.LargeBinary),
        sa.Column("sha256", sa.LargeBinary),
        sa.Column("sender", sa.Text),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("recorded_at", sa.Float, nullable=False),
        sa.Column("boot", sa.Text, nullable=False),
        sa.Column("ticks", sa.Float, nullable=False),
    )
    op.create_table(
        "consumer",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("cursor", sa.Integer, nullable=False),
        sa.Column("registered_at", sa.Float, nullable=False),
    )
