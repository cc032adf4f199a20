"""What the store tells of a transfer, and of all of them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from txstore import digest


@dataclass(frozen=True)
class TransferStatus:
    """A transfer, as the journal has it.  A value: it does not change.

    :ivar file_id: its id
    :ivar segments_received: number of the last recorded segment
    :ivar bytes_received: bytes up to and with that segment
    :ivar sha256: SHA-256 of those bytes, as lower-case hex; ``None``: not known without reading
        them (a worker without OpenSSL wrote last)
    :ivar created_at: when its first segment was recorded (UTC)
    :ivar updated_at: when it was last worked on (UTC)
    :ivar state: ``"receiving"``; ``"publishing"`` (the last segment came, the file is about to
        appear in the storage); ``"stored"`` (finished, and not forgotten yet)
    :ivar name: what the file is to be stored as, normalised, as the first segment said or the last
        one; ``None``: not known
    :ivar size: bytes that the whole file has, likewise
    """

    file_id: str
    segments_received: int
    bytes_received: int
    sha256: str | None
    created_at: datetime
    updated_at: datetime
    state: str
    name: str | None = None
    size: int | None = None

    def hashed_when_asked(self, saved: bytes | None) -> TransferStatus:
        """The same one, whose ``sha256`` is made when somebody asks for it: in a list of many
        transfers it would take most of the time.

        :param saved: state of the running hash
        """
        self.__dict__["_hashed"] = saved
        del self.__dict__["sha256"]
        return self

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


@dataclass(frozen=True)
class Totals:
    """What a store has in all, at one moment.

    :ivar transfers: how many transfers are unfinished
    :ivar bytes: their recorded bytes
    :ivar oldest_age: seconds since the first segment of the oldest of them; 0: there is none
    :ivar events_behind: events that the consumer which is furthest behind has yet to see
    :ivar free: bytes that the store may still take where it keeps files; ``None``: not known, as of
        an object store
    """

    transfers: int
    bytes: int
    oldest_age: float
    events_behind: int
    free: int | None
