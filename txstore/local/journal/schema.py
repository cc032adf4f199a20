"""The journal's tables, as SQLAlchemy Core: the one source of all its SQL.

Times are kept twice: seconds since the epoch (``*_at``) and, for what may expire, seconds since a
boot (``ticks``) with that boot's identity (``boot``).  Names are bytes as the file system has
them.  Columns after the comment "trust" came with revisions 0002 to 0004; events, and what is
recorded for them, with revision 0005; what a first segment said, with 0006; the catalogue, with
0007.
"""

from __future__ import annotations

import sqlalchemy as sa

from txstore.local.journal.revision import REVISION as REVISION

metadata = sa.MetaData()

#: Alembic's own table: the schema's version.
version = sa.Table(
    "alembic_version",
    metadata,
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)

#: One row: whose journal this is.
store = sa.Table(
    "store",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("store_id", sa.Text, nullable=False),
    sa.Column("storage_dir", sa.Text, nullable=False),  # relative to the working dir
    sa.Column("created_at", sa.Float, nullable=False),
    # trust: which boot was seen last, and when it was seen first
    sa.Column("boot", sa.Text, nullable=False, server_default=""),
    sa.Column("boot_ticks", sa.Float, nullable=False, server_default="0"),
)

#: A row is an unfinished transfer.
transfer = sa.Table(
    "transfer",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("file_id", sa.Text, nullable=False, unique=True),
    sa.Column("staging", sa.Text, nullable=False, unique=True),
    sa.Column("inode", sa.Integer, nullable=False),  # of the staging file
    sa.Column("change", sa.Integer, nullable=False),  # counts updates: the guard of each of them
    sa.Column("segments", sa.Integer, nullable=False),
    sa.Column("offset", sa.Integer, nullable=False),
    sa.Column("last_size", sa.Integer, nullable=False),  # bytes in the last segment
    sa.Column("state", sa.LargeBinary),  # saved hash, at most `offset` bytes into the file
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
    # the intent to publish; all null where there is none
    sa.Column("publish_path", sa.LargeBinary),  # normalised name
    sa.Column("publish_place", sa.LargeBinary),  # canonical place
    sa.Column("publish_size", sa.Integer),
    sa.Column("publish_sha256", sa.LargeBinary),
    sa.Column("publish_last", sa.LargeBinary),  # SHA-256 of the last segment
    sa.Column("publish_flushed", sa.Integer),  # whether all bytes were durable before
    sa.Column("publish_over", sa.Text),  # what stood at the place before; null: nothing
    # trust: what a power loss or a failed flush can have touched
    sa.Column("boot", sa.Text, nullable=False, server_default=""),  # of the last activity
    sa.Column("ticks", sa.Float, nullable=False, server_default="0"),
    sa.Column("written_boot", sa.Text, nullable=False, server_default=""),
    sa.Column("durable_segments", sa.Integer, nullable=False, server_default="0"),
    sa.Column("durable_offset", sa.Integer, nullable=False, server_default="0"),
    sa.Column("durable_last_size", sa.Integer, nullable=False, server_default="0"),
    sa.Column("durable_state", sa.LargeBinary),
    sa.Column("setbacks", sa.Integer, nullable=False, server_default="0"),
    # 1: a flush of the staged bytes failed; whoever goes on stages anew what is not durable
    sa.Column("doubted", sa.Integer, nullable=False, server_default="0"),
    # part of the intent: who sent the last message, where that is known
    sa.Column("publish_sender", sa.Text),
    # what the first segment said of the file; null: nothing
    sa.Column("said_path", sa.LargeBinary),  # normalised name
    sa.Column("said_size", sa.Integer),
)

#: The few rows with an intent, by the place they want.
intent_index = sa.Index(
    "transfer_intent", transfer.c.publish_place, sqlite_where=transfer.c.publish_place.is_not(None)
)

#: A row is a last message that was carried out.
completion = sa.Table(
    "completion",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),  # in the order of publishing
    sa.Column("file_id", sa.Text, nullable=False, index=True),
    sa.Column("segments", sa.Integer, nullable=False),
    sa.Column("path", sa.LargeBinary, nullable=False),
    sa.Column("place", sa.LargeBinary, nullable=False, index=True),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("sha256", sa.LargeBinary, nullable=False),
    sa.Column("last", sa.LargeBinary, nullable=False),  # SHA-256 of the last segment
    sa.Column("inode", sa.Integer, nullable=False),  # of the file as published
    sa.Column("mtime_ns", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("completed_at", sa.Float, nullable=False),
    # trust
    sa.Column("boot", sa.Text, nullable=False, server_default=""),
    sa.Column("ticks", sa.Float, nullable=False, server_default="0"),
    sa.Column("durable", sa.Integer, nullable=False, server_default="0"),
    # 1: when it goes, the file's row of the catalogue takes its place
    sa.Column("catalogued", sa.Integer, nullable=False, server_default="0"),
)

#: A row is a stored file whose completion is gone.  As long as a place has a completion, that is
#: what the catalogue says of it.
catalogue = sa.Table(
    "catalogue",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),  # a new one with each file
    sa.Column("place", sa.LargeBinary, nullable=False, unique=True),
    sa.Column("path", sa.LargeBinary, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("sha256", sa.LargeBinary, nullable=False),
    sa.Column("inode", sa.Integer, nullable=False),
    sa.Column("mtime_ns", sa.Integer, nullable=False),
    sa.Column("completed_at", sa.Float, nullable=False),
    sa.Column("boot", sa.Text, nullable=False),  # in which it was stored
    sa.Column("durable", sa.Integer, nullable=False),
    # since when it is known that the file is not there any more; null: it was there
    sa.Column("missed_at", sa.Float),
    sa.Column("missed_boot", sa.Text),
    sa.Column("missed_ticks", sa.Float),
)

#: A row is a transfer that ended: stored, cancelled or expired.
event = sa.Table(
    "event",
    metadata,
    # In the order of the commits.  The newest row is never removed, so no number comes again.
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("file_id", sa.Text, nullable=False),
    sa.Column("segments", sa.Integer, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),  # bytes stored, or received
    sa.Column("path", sa.LargeBinary),  # normalised name of a stored file
    sa.Column("sha256", sa.LargeBinary),  # of a stored file
    sa.Column("sender", sa.Text),  # of the message that ended it, where that is known
    sa.Column("created_at", sa.Float, nullable=False),  # of the transfer
    sa.Column("recorded_at", sa.Float, nullable=False),
    sa.Column("boot", sa.Text, nullable=False),
    sa.Column("ticks", sa.Float, nullable=False),
)

#: A row is a named reader of events, and how far it is.
consumer = sa.Table(
    "consumer",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("cursor", sa.Integer, nullable=False),  # the last event that it is done with
    sa.Column("registered_at", sa.Float, nullable=False),
)
