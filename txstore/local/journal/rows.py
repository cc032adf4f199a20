"""The journal's rows, as the rest of the store handles them."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from txstore import digest
from txstore.local.clock import Moment
from txstore.protocol.event import Kind


class Transfer(NamedTuple):
    """A row of an unfinished transfer; columns as in ``schema.transfer``."""

    # what it is
    file_id: str
    staging: str
    inode: int
    created_at: float
    # what its first segment said of the file; nothing rests on it
    said_path: bytes | None
    said_size: int | None
    # its progress
    change: int
    segments: int
    offset: int
    last_size: int
    state: bytes | None
    updated_at: float
    boot: str
    ticks: float
    written_boot: str
    durable_segments: int = 0
    durable_offset: int = 0
    durable_last_size: int = 0
    durable_state: bytes | None = None
    setbacks: int = 0
    doubted: int = 0
    # its intent to publish
    publish_path: bytes | None = None
    publish_place: bytes | None = None
    publish_size: int | None = None
    publish_sha256: bytes | None = None
    publish_last: bytes | None = None
    publish_flushed: int | None = None
    publish_over: str | None = None
    publish_sender: str | None = None

    @classmethod
    def begun(
        cls,
        file_id: str,
        staging: str,
        inode: int,
        size: int,
        state: bytes | None,
        at: Moment,
        *,
        said_path: bytes | None = None,
        said_size: int | None = None,
    ) -> Transfer:
        """A transfer whose first segment, of ``size`` bytes, has been staged."""
        return cls(
            file_id=file_id,
            staging=staging,
            inode=inode,
            change=0,
            segments=1,
            offset=size,
            last_size=size,
            state=state,
            created_at=at.wall,
            said_path=said_path,
            # A larger one is no file's, and SQLite has no such number.
            said_size=said_size if said_size is not None and said_size < 2**63 else None,
            updated_at=at.wall,
            boot=at.boot,
            ticks=at.ticks,
            written_boot=at.boot,
        )

    @classmethod
    def unbegun(cls, file_id: str, staging: str, inode: int, at: Moment) -> Transfer:
        """A transfer without a segment: its only one is its last.  Recorded with an intent only."""
        return cls.begun(file_id, staging, inode, 0, None, at)._replace(segments=0)

    @property
    def activity(self) -> Moment:
        """When it was last worked on."""
        return Moment(self.updated_at, self.boot, self.ticks)

    @property
    def durable(self) -> bool:
        """Whether all recorded bytes, and the staging file's name, were flushed."""
        return self.durable_segments == self.segments and self.segments > 0

    @property
    def is_verifiable(self) -> bool:
        """Whether the saved hash is that of all recorded bytes."""
        return digest.total(self.state) == self.offset

    def stamped(self, at: Moment) -> Transfer:
        """The same, as of now; its staged bytes are trusted no more than before."""
        return self._replace(
            change=self.change + 1, updated_at=at.wall, boot=at.boot, ticks=at.ticks
        )

    def touched(self, at: Moment) -> Transfer:
        """The same, its staged bytes having been written or verified now."""
        return self.stamped(at)._replace(written_boot=at.boot)

    def made_durable(self) -> Transfer:
        """The same, its recorded bytes having been flushed."""
        return self._replace(
            doubted=0,
            durable_segments=self.segments,
            durable_offset=self.offset,
            durable_last_size=self.last_size,
            durable_state=self.state,
        )

    def in_file(self, inode: int) -> Transfer:
        """The same, its bytes being in that file: nothing of another one is known to be durable."""
        if inode == self.inode:
            return self
        return self._replace(inode=inode, durable_segments=0, durable_offset=0, durable_state=None)

    def put_in_doubt(self, at: Moment) -> Transfer:
        """The same after a flush of its bytes failed."""
        return self.stamped(at)._replace(doubted=1)

    def at_durable_point(self) -> Transfer:
        """The same, gone back to what was flushed."""
        return self.without_intent()._replace(
            segments=self.durable_segments,
            offset=self.durable_offset,
            last_size=self.durable_last_size,
            state=self.durable_state,
            doubted=0,
            setbacks=self.setbacks + 1,
        )

    def intending(
        self, path: bytes, place: bytes, size: int, sha256: bytes, last: bytes
    ) -> Transfer:
        """The same, to be published.

        :param last: SHA-256 of the last segment's bytes
        """
        return self._replace(
            publish_path=path,
            publish_place=place,
            publish_size=size,
            publish_sha256=sha256,
            publish_last=last,
        )

    def without_intent(self) -> Transfer:
        """The same, its intent to publish withdrawn."""
        return self._replace(**_NO_INTENT)


_NO_INTENT: dict[str, Any] = {
    name: None for name in Transfer._fields if name.startswith("publish_")
}


class Completion(NamedTuple):
    """A row of a finished transfer; columns as in ``schema.completion``."""

    file_id: str
    segments: int
    path: bytes
    place: bytes
    size: int
    sha256: bytes
    last: bytes
    inode: int
    mtime_ns: int
    created_at: float
    completed_at: float
    boot: str
    ticks: float
    durable: int

    @classmethod
    def of(cls, row: Transfer, found: os.stat_result, at: Moment, *, durable: bool) -> Completion:
        """A transfer did what it intended.

        :param found: what ``stat`` says of the published file
        """
        assert row.publish_path is not None
        assert row.publish_place is not None
        assert row.publish_sha256 is not None
        assert row.publish_last is not None
        return cls(
            file_id=row.file_id,
            segments=row.segments + 1,
            path=row.publish_path,
            place=row.publish_place,
            size=row.publish_size or 0,
            sha256=row.publish_sha256,
            last=row.publish_last,
            inode=found.st_ino,
            mtime_ns=found.st_mtime_ns,
            created_at=row.created_at,
            completed_at=at.wall,
            boot=at.boot,
            ticks=at.ticks,
            durable=int(durable),
        )

    @property
    def activity(self) -> Moment:
        """When it was completed."""
        return Moment(self.completed_at, self.boot, self.ticks)


class Stored(NamedTuple):
    """What is known of a stored file; columns as in ``schema.completion``, or ``catalogue``."""

    path: bytes
    place: bytes
    size: int
    sha256: bytes
    inode: int
    mtime_ns: int
    completed_at: float
    boot: str
    durable: int


class Event(NamedTuple):
    """A row of a transfer that ended; columns as in ``schema.event``."""

    kind: Kind
    file_id: str
    segments: int
    size: int
    path: bytes | None
    sha256: bytes | None
    sender: str | None
    created_at: float
    recorded_at: float
    boot: str
    ticks: float

    @classmethod
    def stored(cls, done: Completion, sender: str | None) -> Event:
        """A transfer was finished.

        :param sender: of its last message
        """
        return cls(
            kind="stored",
            file_id=done.file_id,
            segments=done.segments,
            size=done.size,
            path=done.path,
            sha256=done.sha256,
            sender=sender,
            created_at=done.created_at,
            recorded_at=done.completed_at,
            boot=done.boot,
            ticks=done.ticks,
        )

    @classmethod
    def dropped(cls, kind: Kind, row: Transfer, at: Moment, sender: str | None = None) -> Event:
        """A transfer was cancelled, or expired.

        :param sender: of the cancel
        """
        return cls(
            kind=kind,
            file_id=row.file_id,
            segments=row.segments,
            size=row.offset,
            path=None,
            sha256=None,
            sender=sender,
            created_at=row.created_at,
            recorded_at=at.wall,
            boot=at.boot,
            ticks=at.ticks,
        )
