"""What the store tells of a transfer that ended."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Literal

#: How a transfer ended.
Kind = Literal["stored", "cancelled", "expired"]


@dataclass(frozen=True)
class Event:
    """A transfer that ended.  Each has one, recorded in the same step as its end.

    :ivar sequence: its number, from 1, in the order in which transfers ended; none comes twice
    :ivar kind: ``"stored"``: it became a file; ``"cancelled"``; ``"expired"``
    :ivar file_id: the transfer's id
    :ivar segments: how many segments it had
    :ivar size: bytes stored; of a transfer that was not finished: received
    :ivar name: what the file is called, relative to the storage dir; ``None``: nothing was stored
    :ivar sha256: SHA-256 of the file as lower-case hex; ``None``: nothing was stored
    :ivar sender: ``source_client_id`` of the message that ended it; ``None`` where it had none
    :ivar created_at: when the transfer's first segment was recorded (UTC)
    :ivar recorded_at: when it ended (UTC)
    """

    sequence: int
    kind: Kind
    file_id: str
    segments: int
    size: int
    name: str | None
    sha256: str | None
    sender: str | None
    created_at: datetime
    recorded_at: datetime

    def to_dict(self) -> dict[str, str | int | None]:
        """The same for JSON; times as ISO 8601."""
        facts = {one.name: getattr(self, one.name) for one in fields(Event)}
        return {
            **facts,
            "created_at": self.created_at.isoformat(),
            "recorded_at": self.recorded_at.isoformat(),
        }


@dataclass(frozen=True)
class Consumer:
    """A named reader of events.

    :ivar name: its name
    :ivar cursor: number of the last event that it is done with; 0: of none
    :ivar behind: how many events it has yet to see
    :ivar lost: how many it never saw that are gone, since ``max_events`` came after them
    :ivar registered_at: when it first asked for events (UTC)
    """

    name: str
    cursor: int
    behind: int
    lost: int
    registered_at: datetime

    def to_dict(self) -> dict[str, str | int]:
        """The same for JSON; the time as ISO 8601."""
        facts = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**facts, "registered_at": self.registered_at.isoformat()}
