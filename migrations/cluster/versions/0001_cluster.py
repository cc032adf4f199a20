"""The journal of a store over many hosts."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_KEY = sa.Text(collation="C")
_TIME = sa.DateTime(timezone=True)


def _time(name: str, *, default: bool = True, index: bool = False) -> sa.Column[Any]:
    now = sa.text("clock_timestamp()") if default else None
    return sa.Column(name, _TIME, nullable=False, server_default=now, index=index)


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True)


def upgrade() -> None:
    op.create_table(
        "store",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("store_id", sa.Text, nullable=False),
        sa.Column("storage", sa.Text, nullable=False),
        _time("created_at"),
        sa.Column("events", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("conditional", sa.Integer, nullable=False),
    )
    op.create_table(
        "transfer",
        _id(),
        sa.Column("file_id", _KEY, nullable=False, unique=True),
        sa.Column("change", sa.BigInteger, nullable=False),
        sa.Column("segments", sa.BigInteger, nullable=False),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("last_size", sa.BigInteger, nullable=False),
        sa.Column("state", sa.LargeBinary),
        sa.Column("before", sa.LargeBinary),
        sa.Column("parts", sa.BigInteger, nullable=False),
        sa.Column("staged", sa.BigInteger, nullable=False),
        _time("created_at"),
        _time("updated_at"),
        sa.Column("publish_path", _KEY),
        sa.Column("publish_token", sa.Text),
        sa.Column("publish_upload", sa.Text),
        sa.Column("publish_size", sa.BigInteger),
        sa.Column("publish_sha256", sa.LargeBinary),
        sa.Column("publish_last", sa.LargeBinary),
        sa.Column("publish_sender", sa.Text),
    )
    op.create_index(
        "transfer_publish_path",
        "transfer",
        ["publish_path"],
        unique=True,
        postgresql_where=sa.text("publish_path IS NOT NULL"),
    )
    op.create_index("transfer_updated_at", "transfer", ["updated_at"])
    op.create_table(
        "tail",
        sa.Column("transfer_id", sa.BigInteger, primary_key=True),
        sa.Column("number", sa.BigInteger, primary_key=True),
        sa.Column("data", sa.LargeBinary, nullable=False),
    )
    # Out of line and as it is: to compress what senders have often compressed costs time.
    op.execute("ALTER TABLE tail ALTER COLUMN data SET STORAGE EXTERNAL")
    op.create_table(
        "part",
        sa.Column("key", _KEY, primary_key=True),
        sa.Column("transfer_id", sa.BigInteger),
        sa.Column("number", sa.BigInteger),
        sa.Column("size", sa.BigInteger),
        sa.Column("etag", sa.Text),
        sa.Column("sha256", sa.LargeBinary),
        _time("registered_at"),
        sa.UniqueConstraint("transfer_id", "number", name="part_number"),
    )
    op.create_table(
        "completion",
        _id(),
        sa.Column("file_id", _KEY, nullable=False, index=True),
        sa.Column("segments", sa.BigInteger, nullable=False),
        sa.Column("path", _KEY, nullable=False, index=True),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("sha256", sa.LargeBinary, nullable=False),
        sa.Column("last", sa.LargeBinary, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        _time("created_at", default=False),
        _time("completed_at", index=True),
    )
    op.create_table(
        "event",
        _id(),
        sa.Column("sequence", sa.BigInteger, unique=True),
        sa.Column("transfer_id", sa.BigInteger, index=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("file_id", sa.Text, nullable=False),
        sa.Column("segments", sa.BigInteger, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("path", sa.Text),
        sa.Column("sha256", sa.LargeBinary),
        sa.Column("sender", sa.Text),
        _time("created_at", default=False),
        _time("recorded_at"),
    )
    op.create_index(
        "event_unnumbered", "event", ["id"], postgresql_where=sa.text("sequence IS NULL")
    )
    op.create_table(
        "consumer",
        _id(),
        sa.Column("name", _KEY, nullable=False, unique=True),
        sa.Column("cursor", sa.BigInteger, nullable=False),
        _time("registered_at"),
    )
