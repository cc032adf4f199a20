"""Stores that are damaged by hand, in every way that ``check`` finds."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from crew import cut, last, segment
from support import journal_of

from txstore import FileStoreManager
from txstore.checks import Finding

DATA = bytes(range(256)) * 4


def fill(store: FileStoreManager) -> None:
    """An unfinished transfer of two segments, a file that came in two, and one that came in one."""
    store.store_segment(segment("open", 1, DATA))
    store.store_segment(segment("open", 2, DATA))
    for message in cut(DATA, 2, file_id="two", name="folder/two"):
        store.store_segment(message)
    store.store_segment(last("one", 1, DATA, "one", DATA))


def check(storage: Path, *, deep: bool = False, **options: Any) -> list[Finding]:
    return list(FileStoreManager.inspect(storage, **options).check(deep=deep))


def kinds(storage: Path, *, deep: bool = False, **options: Any) -> set[str]:
    return {one.kind for one in check(storage, deep=deep, **options)}


def staged(storage: Path) -> Path:
    [found] = (storage / ".workdir" / "staging").iterdir()
    return found


def sql(storage: Path, *statements: str) -> None:
    """Change the journal as no worker does; nobody has it open."""
    with closing(sqlite3.connect(journal_of(storage), isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Other bytes, in the same file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def rot(path: Path) -> None:
    """Other bytes, and nothing tells that anybody wrote them."""
    before = path.stat()
    overwrite(path, 10, b"\xff\xfe")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(path: Path, data: bytes) -> None:
    """Another file in its place."""
    path.with_name("other").write_bytes(data)
    path.with_name("other").rename(path)


def put_a_folder(path: Path) -> None:
    """A folder in its place."""
    path.unlink()
    path.mkdir()


def lose_index_entries(storage: Path) -> None:
    """A row that its index does not have."""
    [(name, text)] = _select(
        storage, "SELECT name, sql FROM sqlite_master WHERE name LIKE '%completion_file_id'"
    )
    sql(
        storage,
        "PRAGMA writable_schema=ON",
        f"UPDATE sqlite_master SET sql = sql || ' WHERE segments = 1' WHERE name = '{name}'",
    )
    sql(
        storage,
        "INSERT INTO completion SELECT id + 100, file_id, 7, path, place, size, sha256, "
        "last, inode, mtime_ns, created_at, completed_at, boot, ticks, durable, catalogued"
        " FROM completion",
    )
    sql(
        storage,
        "PRAGMA writable_schema=ON",
        f"UPDATE sqlite_master SET sql = '{text}' WHERE name = '{name}'",
    )


def _select(storage: Path, text: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(journal_of(storage))) as connection:
        return connection.execute(text).fetchall()


def mix_up(storage: Path) -> None:
    """The marker of another store."""
    other = storage.parent / "other"
    FileStoreManager(other).close()
    shutil.copy(other / ".txstore" / "store", storage / ".txstore" / "store")


class Damage:
    """Something done to a store by hand.

    :ivar kind: of the finding
    :ivar deep: whether only reading all bytes finds it
    :ivar others: kinds of what is wrong because of it
    """

    def __init__(
        self, kind: str, act: Callable[[Path], object], *others: str, deep: bool = False
    ) -> None:
        self.kind, self.act, self.deep, self.others = kind, act, deep, others


def working(name: str) -> Callable[[Path], Path]:
    return lambda storage: storage / ".workdir" / name


LEFT = "new-" + 32 * "a"
ORPHAN = "w00-" + 32 * "0"

DAMAGES = {
    "journal removed": Damage("journal-missing", lambda s: journal_of(s).unlink()),
    "journal emptied": Damage("journal-damaged", lambda s: os.truncate(journal_of(s), 0)),
    "journal's head": Damage("journal-damaged", lambda s: overwrite(journal_of(s), 0, b"?" * 100)),
    "journal's page": Damage(
        "journal-damaged", lambda s: overwrite(journal_of(s), 1024, b"?" * 1024)
    ),
    "journal cut": Damage("journal-damaged", lambda s: os.truncate(journal_of(s), 3072)),
    "column gone": Damage("journal-damaged", lambda s: sql(s, "ALTER TABLE transfer DROP doubted")),
    "table gone": Damage("journal-damaged", lambda s: sql(s, "DROP TABLE completion")),
    "store's row gone": Damage("journal-damaged", lambda s: sql(s, "DELETE FROM store")),
    "revision gone": Damage("journal-damaged", lambda s: sql(s, "DELETE FROM alembic_version")),
    "index entries": Damage("journal-index", lose_index_entries),
    "journal linked": Damage("journal-linked", lambda s: os.link(journal_of(s), s.parent / "link")),
    "marker of another": Damage("folders-mismatched", mix_up),
    "marker removed": Damage("marker-missing", lambda s: (s / ".txstore" / "store").unlink()),
    "marker torn": Damage("marker-missing", lambda s: os.truncate(s / ".txstore" / "store", 9)),
    "journal shown": Damage("open-to-others", lambda s: journal_of(s).chmod(0o604)),
    "staging shown": Damage("open-to-others", lambda s: (s / ".workdir/staging").chmod(0o705)),
    "lock file shown": Damage(
        "open-to-others", lambda s: (s / ".workdir/locks/locks").chmod(0o606)
    ),
    "lock file shut": Damage(
        "shut-to-workers", lambda s: (s / ".workdir/locks/locks").chmod(0o400)
    ),
    "locks shut": Damage("shut-to-workers", lambda s: (s / ".workdir/locks").chmod(0o500)),
    "strange file": Damage("foreign", lambda s: (s / ".workdir/notes").write_text("")),
    "strange staging file": Damage("foreign", lambda s: (s / ".workdir/staging/x").write_text("")),
    "strange lock": Damage("foreign", lambda s: (s / ".workdir/locks/journal").write_text("")),
    "strange hidden file": Damage("foreign", lambda s: (s / ".txstore/x").write_text("")),
    "journal half made": Damage("leftover", lambda s: (s / ".workdir" / LEFT).write_text("")),
    "marker half made": Damage(
        "leftover", lambda s: (s / ".txstore" / f"store-{32 * '1'}").touch()
    ),
    "offset changed": Damage(
        "transfer-row", lambda s: sql(s, "UPDATE transfer SET durable_offset = 9999")
    ),
    "no segments": Damage("transfer-row", lambda s: sql(s, "UPDATE transfer SET segments = 0")),
    "staging of another": Damage(
        "transfer-row", lambda s: sql(s, f"UPDATE transfer SET staging = '{ORPHAN}'"), "orphan"
    ),
    "hash changed": Damage(
        "transfer-row", lambda s: sql(s, "UPDATE transfer SET state = x'00112233'")
    ),
    "bytes removed": Damage("transfer-missing", lambda s: staged(s).unlink()),
    "folder for bytes": Damage("transfer-missing", lambda s: put_a_folder(staged(s))),
    "staging removed": Damage("transfer-missing", lambda s: shutil.rmtree(s / ".workdir/staging")),
    "bytes cut": Damage("transfer-short", lambda s: os.truncate(staged(s), 2047)),
    "bytes changed": Damage("transfer-changed", lambda s: overwrite(staged(s), 7, b"?"), deep=True),
    "bytes replaced": Damage("transfer-changed", lambda s: replace(staged(s), b"?" * 2048)),
    "bytes linked": Damage("transfer-linked", lambda s: os.link(staged(s), s.parent / "link")),
    "bytes of nothing": Damage(
        "orphan", lambda s: (s / ".workdir/staging" / ORPHAN).write_text("x")
    ),
    "stored removed": Damage("stored-missing", lambda s: (s / "one").unlink()),
    "stored folder removed": Damage("stored-missing", lambda s: shutil.rmtree(s / "folder")),
    "stored grown": Damage("stored-changed", lambda s: (s / "one").write_bytes(DATA + b"?")),
    "stored replaced": Damage("stored-changed", lambda s: replace(s / "one", bytes(len(DATA)))),
    "stored written": Damage("stored-changed", lambda s: overwrite(s / "one", 0, b"????")),
    "stored rotten": Damage("stored-damaged", lambda s: rot(s / "one"), deep=True),
}
