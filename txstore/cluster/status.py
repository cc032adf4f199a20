"""The status of a transfer, from its row."""

from __future__ import annotations

from datetime import timezone

from txstore.cluster.records import Completion, Transfer
from txstore.protocol.status import TransferStatus


def of_transfer(row: Transfer) -> TransferStatus:
    """The status of an unfinished transfer."""
    return TransferStatus(
        file_id=row.file_id,
        segments_received=row.segments,
        bytes_received=row.offset,
        sha256=None,
        created_at=row.created_at.astimezone(timezone.utc),
        updated_at=row.updated_at.astimezone(timezone.utc),
        state="receiving" if row.publish_path is None else "publishing",
        name=row.publish_path,
        size=row.publish_size,
    ).hashed_when_asked(row.state)


def of_completion(done: Completion) -> TransferStatus:
    """The status of a finished transfer."""
    return TransferStatus(
        file_id=done.file_id,
        segments_received=done.segments,
        bytes_received=done.size,
        sha256=done.sha256.hex(),
        created_at=done.created_at.astimezone(timezone.utc),
        updated_at=done.completed_at.astimezone(timezone.utc),
        state="stored",
        name=done.path,
        size=done.size,
    )
