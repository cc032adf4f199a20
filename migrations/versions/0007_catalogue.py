"""Catalogue: what was stored, kept for as long as it is there.

Files that were stored before are in none: nothing is made up of them.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "completion", sa.Column("catalogued", sa.Integer, nullable=False, server_default="0")
    )
    op.create_table(
        "catalogue",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("place", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("path", sa.LargeBinary, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.Column("inode", sa.Integer, nullable=False),
        sa.Column("mtime_ns", sa.Integer, nullable=False),
        sa.Column("completed_at", sa.Float, nullable=False),
        sa.Column("boot", sa.Text, nullable=False),
        sa.Column("durable", sa.Integer, nullable=False),
        sa.Column("missed_at", sa.Float),
        sa.Column("missed_boot", sa.Text),
        sa.Column("missed_ticks", sa.Float),
    )
