"""The tables in PostgreSQL, as SQLAlchemy Core.  Times are the database's, bytes are counted.

They are in the schema that a connection's ``search_path`` names first, so that one database can
carry several stores.
"""

from __future__ import annotations

import sqlalchemy as sa

#: Newest revision under ``migrations/cluster/versions``.
REVISION = "0001"

metadata = sa.MetaData()

#: Compared byte by byte, whatever the database's language.
_KEY = sa.Text(collation="C")
_TIME = sa.DateTime(timezone=True)
_NOW = sa.text("clock_timestamp()")


def _id() -> sa.Column[int]:
    return sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True)


#: One row: which store this is.
store = sa.Table(
    "store",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("store_id", sa.Text, nullable=False),
    sa.Column("storage", sa.Text, nullable=False),  # bucket and prefix
    sa.Column("created_at", _TIME, nullable=False, server_default=_NOW),
    sa.Column("events", sa.BigInteger, nullable=False, server_default="0"),  # numbers given
    # 1: the object store keeps "only where there is none" of a PUT
    sa.Column("conditional", sa.Integer, nullable=False),
)

#: A row is an unfinished transfer.
transfer = sa.Table(
    "transfer",
    metadata,
    _id(),
    sa.Column("file_id", _KEY, nullable=False, unique=True),
    sa.Column("change", sa.BigInteger, nullable=False),  # counts updates: the guard of each
    # 0: a file in one segment that is being published; nobody else is told of it
    sa.Column("segments", sa.BigInteger, nullable=False),
    sa.Column("offset", sa.BigInteger, nullable=False),
    sa.Column("last_size", sa.BigInteger, nullable=False),  # bytes in the last segment
    sa.Column("state", sa.LargeBinary),  # running hash of all bytes
    sa.Column("before", sa.LargeBinary),  # the same without the last segment
    sa.Column("parts", sa.BigInteger, nullable=False),  # how many there are
    sa.Column("staged", sa.BigInteger, nullable=False),  # bytes in them; the tail has the rest
    sa.Column("created_at", _TIME, nullable=False, server_default=_NOW),
    sa.Column("updated_at", _TIME, nullable=False, server_default=_NOW),
    # the intent to publish; all null where there is none
    sa.Column("publish_path", _KEY),  # normalised name
    sa.Column("publish_token", sa.Text),  # in the object's metadata: whose it is
    sa.Column("publish_upload", sa.Text),  # id of the multipart upload
    sa.Column("publish_size", sa.BigInteger),
    sa.Column("publish_sha256", sa.LargeBinary),
    sa.Column("publish_last", sa.LargeBinary),  # SHA-256 of the last segment
    sa.Column("publish_sender", sa.Text),
)
#: One intent for a name at a time.
sa.Index(
    "transfer_publish_path",
    transfer.c.publish_path,
    unique=True,
    postgresql_where=transfer.c.publish_path.is_not(None),
)
sa.Index("transfer_updated_at", transfer.c.updated_at)

#: A row has the bytes of a segment that are in no part yet.
tail = sa.Table(
    "tail",
    metadata,
    sa.Column("transfer_id", sa.BigInteger, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True),  # of the segment
    sa.Column("data", sa.LargeBinary, nullable=False),
)

#: A row is a staged object.  Made before the object is; an object without a row is nobody's.
part = sa.Table(
    "part",
    metadata,
    sa.Column("key", _KEY, primary_key=True),
    sa.Column("transfer_id", sa.BigInteger),  # null, or of none that is there: to be removed
    sa.Column("number", sa.BigInteger),  # from 1; null: not recorded yet
    sa.Column("size", sa.BigInteger),
    sa.Column("etag", sa.Text),
    sa.Column("sha256", sa.LargeBinary),
    sa.Column("registered_at", _TIME, nullable=False, server_default=_NOW),
    sa.UniqueConstraint("transfer_id", "number", name="part_number"),
)

#: A row is a last message that was carried out.
completion = sa.Table(
    "completion",
    metadata,
    _id(),  # in the order of publishing under one name
    sa.Column("file_id", _KEY, nullable=False, index=True),
    sa.Column("segments", sa.BigInteger, nullable=False),
    sa.Column("path", _KEY, nullable=False, index=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.LargeBinary, nullable=False),
    sa.Column("last", sa.LargeBinary, nullable=False),  # SHA-256 of the last segment
    sa.Column("token", sa.Text, nullable=False),  # in the object's metadata
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("completed_at", _TIME, nullable=False, server_default=_NOW, index=True),
)

#: A row is a transfer that ended: stored, cancelled or expired.
event = sa.Table(
    "event",
    metadata,
    _id(),
    sa.Column("sequence", sa.BigInteger, unique=True),  # given when it is first asked for
    sa.Column("transfer_id", sa.BigInteger, index=True),  # null: a file in one segment
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("file_id", sa.Text, nullable=False),
    sa.Column("segments", sa.BigInteger, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("path", sa.Text),
    sa.Column("sha256", sa.LargeBinary),
    sa.Column("sender", sa.Text),
    sa.Column("created_at", _TIME, nullable=False),
    sa.Column("recorded_at", _TIME, nullable=False, server_default=_NOW),
)
#: The few that have no number yet.
sa.Index("event_unnumbered", event.c.id, postgresql_where=event.c.sequence.is_(None))

#: A row is a named reader of events, and how far it is.
consumer = sa.Table(
    "consumer",
    metadata,
    _id(),
    sa.Column("name", _KEY, nullable=False, unique=True),
    sa.Column("cursor", sa.BigInteger, nullable=False),
    sa.Column("registered_at", _TIME, nullable=False, server_default=_NOW),
)
