"""Makes ``journal-0001.db``: a journal as the first revision wrote it.

It was made once and is kept, so that every later version proves on the same bytes that it can open
them.  A test compares the rows that this script makes with those of the kept file::

    python tests/data/make_journal_0001.py tests/data/journal-0001.db
"""

from __future__ import annotations

import hashlib
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from txstore import digest
from txstore.local.journal.upgrade import migrations_folder

STORE_ID = "00000000-1111-4222-8333-444444444444"
WHEN = 1767225600.0  # 2026-01-01 00:00 UTC

#: A transfer on its way: two of three segments were recorded.
OPEN = "open"
OPEN_DATA = bytes(range(256)) * 12
OPEN_SEGMENT = 1024
OPEN_STAGING = "w24-6f70656e6f70656e6f70656e6f70656e"

#: A transfer whose worker died between the intent to publish and the rename.
LEFT = "left"
LEFT_DATA = b"left by a worker that died\n" * 40
LEFT_NAME = b"folder/left"
LEFT_STAGING = "w28-6c6566746c6566746c6566746c656674"

#: A finished transfer of two segments.
DONE = "done"
DONE_DATA = b"finished\n" * 100
DONE_SEGMENT = 500
DONE_NAME = b"done"

#: The inode numbers of the files were those of another disk.
INODE = 4000000000


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def state(data: bytes) -> bytes:
    """The running hash as it is saved."""
    hasher = digest.new()
    hasher.update(data)
    saved = hasher.save()
    assert saved is not None, "this Python has no OpenSSL to save hashes with"
    return saved


ROWS: dict[str, list[dict[str, object]]] = {
    "store": [{"id": 1, "store_id": STORE_ID, "storage_dir": "..", "created_at": WHEN}],
    "transfer": [
        {
            "id": 1,
            "file_id": OPEN,
            "staging": OPEN_STAGING,
            "inode": INODE,
            "change": 1,
            "segments": 2,
            "offset": 2 * OPEN_SEGMENT,
            "last_size": OPEN_SEGMENT,
            "state": state(OPEN_DATA[: 2 * OPEN_SEGMENT]),
            "created_at": WHEN,
            "updated_at": WHEN + 60,
        },
        {
            "id": 2,
            "file_id": LEFT,
            "staging": LEFT_STAGING,
            "inode": INODE + 1,
            "change": 1,
            "segments": 1,
            "offset": 100,
            "last_size": 100,
            "state": state(LEFT_DATA[:100]),
            "created_at": WHEN,
            "updated_at": WHEN + 60,
            "publish_path": LEFT_NAME,
            "publish_place": LEFT_NAME,
            "publish_size": len(LEFT_DATA),
            "publish_sha256": sha256(LEFT_DATA),
            "publish_last": sha256(LEFT_DATA[100:]),
            "publish_flushed": 1,
        },
    ],
    "completion": [
        {
            "id": 1,
            "file_id": DONE,
            "segments": 2,
            "path": DONE_NAME,
            "place": DONE_NAME,
            "size": len(DONE_DATA),
            "sha256": sha256(DONE_DATA),
            "last": sha256(DONE_DATA[DONE_SEGMENT:]),
            "inode": INODE + 2,
            "mtime_ns": int(WHEN + 60) * 10**9,
            "created_at": WHEN,
            "completed_at": WHEN + 60,
        }
    ],
}


def make(path: Path) -> None:
    """Make the journal, which must not exist."""
    engine = sa.create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    engine.dispose()
    with closing(sqlite3.connect(path)) as journal, journal:
        journal.execute("PRAGMA journal_mode=wal")
        for table, rows in ROWS.items():
            for row in rows:
                names = ", ".join(row)
                marks = ", ".join(f":{name}" for name in row)
                journal.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", row)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
