"""What the store tells of a transfer."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import Any

from txstore import digest
from txstore.digest import Hasher
from txstore.journal.rows import Completion, Transfer


@dataclass(frozen=True)
class TransferStatus:
    """A transfer, as the journal has it.

    :ivar file_id: its id
    :ivar segments_received: number of the last recorded segment
    :ivar bytes_received: bytes up to and with that segment
    :ivar sha256: SHA-256 of those bytes as lower-case hex, worked out when it is first asked for;
        ``None`` where telling it would mean to read them again (a worker without OpenSSL wrote
        last)
    :ivar created_at: when its first segment was recorded (UTC)
    :ivar updated_at: when it was last worked on (UTC)
    :ivar state: ``"receiving"``; ``"publishing"``: the last segment came and the file is about to
        appear in the storage; ``"stored"``: finished, and not yet forgotten
    """

    file_id: str
    segments_received: int
    bytes_received: int
    sha256: str | None
    created_at: datetime
    updated_at: datetime
    state: str

    def __getattr__(self, name: str) -> Any:
        # Only where there is no such attribute (yet).
        if name != "sha256" or "_hashed" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        found = digest.digest_of(self.__dict__["_hashed"], self.bytes_received)
        sha256 = found.hex() if found is not None else None
        self.__dict__["sha256"] = sha256
        return sha256

    def __getstate__(self) -> dict[str, object]:
        return {one.name: getattr(self, one.name) for one in fields(self)}


def of_transfer(row: Transfer, hasher: Hasher | None = None) -> TransferStatus:
    """The status of an unfinished transfer; reads no staged byte.

    :param hasher: of all its bytes, where somebody has one
    """
    status = TransferStatus(
        file_id=row.file_id,
        segments_received=row.segments,
        bytes_received=row.offset,
        sha256=hasher.digest().hex() if hasher is not None else None,
        created_at=_time(row.created_at),
        updated_at=_time(row.updated_at),
        state="receiving" if row.publish_place is None else "publishing",
    )
    if hasher is None:
        # In a list of many transfers that nobody asks it of, it would take most of the time.
        status.__dict__["_hashed"] = row.state
        del status.__dict__["sha256"]
    return status


def of_completion(done: Completion) -> TransferStatus:
    """The status of a finished transfer."""
    return TransferStatus(
        file_id=done.file_id,
        segments_received=done.segments,
        bytes_received=done.size,
        sha256=done.sha256.hex(),
        created_at=_time(done.created_at),
        updated_at=_time(done.completed_at),
        state="stored",
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
