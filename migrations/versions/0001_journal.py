"""The journal: transfers with their running hash, intents to publish, completions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "store",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("store_id", sa.Text, nullable=False),
        sa.Column("storage_dir", sa.Text, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
    )
    op.create_table(
        "transfer",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("file_id", sa.Text, nullable=False, unique=True),
        sa.Column("staging", sa.Text, nullable=False, unique=True),
        sa.Column("inode", sa.Integer, nullable=False),
        sa.Column("change", sa.Integer, nullable=False),
        sa.Column("segments", sa.Integer, nullable=False),
        sa.Column("offset", sa.Integer, nullable=False),
        sa.Column("last_size", sa.Integer, nullable=False),
        sa.Column("state", sa.LargeBinary),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sa.Column("publish_path", sa.LargeBinary),
        sa.Column("publish_place", sa.LargeBinary),
        sa.Column("publish_size", sa.Integer),
        sa.Column("publish_sha256", sa.LargeBinary),
        sa.Column("publish_last", sa.LargeBinary),
        sa.Column("publish_flushed", sa.Integer),
        sa.Column("publish_over", sa.Text),
    )
    op.create_index(
        "transfer_intent",
        "transfer",
        ["publish_place"],
        sqlite_where=sa.text("publish_place IS NOT NULL"),
    )
    op.create_table(
        "completion",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("file_id", sa.Text, nullable=False, index=True),
        sa.Column("segments", sa.Integer, nullable=False),
        sa.Column("path", sa.LargeBinary, nullable=False),
        sa.Column("place", sa.LargeBinary, nullable=False, index=True),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.Column("last", sa.LargeBinary, nullable=False),
        sa.Column("inode", sa.Integer, nullable=False),
        sa.Column("mtime_ns", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("completed_at", sa.Float, nullable=False),
    )
