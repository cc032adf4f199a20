"""The status of a transfer, from its row; of all; and of stored files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime, timezone

from txstore.digest import Hasher
from txstore.local.journal.rows import Completion, Stored, Transfer
from txstore.protocol.catalogue import CatalogueEntry, Page
from txstore.protocol.status import Totals, TransferStatus


def of_transfer(row: Transfer, hasher: Hasher | None = None) -> TransferStatus:
    """The status of an unfinished transfer; reads no staged byte.

    :param hasher: of all its bytes, where somebody has one
    """
    path = row.publish_path or row.said_path
    status = TransferStatus(
        file_id=row.file_id,
        segments_received=row.segments,
        bytes_received=row.offset,
        sha256=hasher.digest().hex() if hasher is not None else None,
        created_at=time_of(row.created_at),
        updated_at=time_of(row.updated_at),
        state="receiving" if row.publish_place is None else "publishing",
        name=None if path is None else os.fsdecode(path),
        size=row.said_size if row.publish_size is None else row.publish_size,
    )
    return status if hasher is not None else status.hashed_when_asked(row.state)


def of_completion(done: Completion) -> TransferStatus:
    """The status of a finished transfer."""
    return TransferStatus(
        file_id=done.file_id,
        segments_received=done.segments,
        bytes_received=done.size,
        sha256=done.sha256.hex(),
        created_at=time_of(done.created_at),
        updated_at=time_of(done.completed_at),
        state="stored",
        name=os.fsdecode(done.path),
        size=done.size,
    )


def of_all(
    transfers: tuple[int, int, float | None], consumers: Iterable[int], wall: float, free: int
) -> Totals:
    """What a store has in all.

    :param transfers: how many there are, their bytes, and when the oldest was begun
    :param consumers: how far each is behind
    :param wall: what the wall clock says
    :param free: bytes that the file system has left
    """
    count, size, oldest = transfers
    age = 0.0 if oldest is None else max(wall - oldest, 0.0)
    return Totals(count, size, age, max(consumers, default=0), free)


def page_of(rows: list[Stored], limit: int) -> Page:
    """Some entries of the catalogue.

    :param limit: how many were asked for
    """
    entries = [entry_of(row) for row in rows]
    return entries, entries[-1].key if len(entries) == limit else None


def entry_of(row: Stored) -> CatalogueEntry:
    """An entry of the catalogue."""
    return CatalogueEntry(
        name=os.fsdecode(row.path),
        size=row.size,
        sha256=row.sha256.hex(),
        stored_at=time_of(row.completed_at),
        key=os.fsdecode(row.place),
    )


def time_of(seconds: float) -> datetime:
    """A wall clock's time."""
    return datetime.fromtimestamp(seconds, timezone.utc)
