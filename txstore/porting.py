"""How a store is moved: what an engine gives, and what it takes, besides its protocol.

A port is for one program that moves a store, and that nobody else works on beside: a **fence** in
the journal keeps all workers off, on both sides.  Whatever it takes it takes whole, durably, or not
at all, and may be given again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from txstore.errors import MigrationError, NameRefusedError, SourceDamagedError
from txstore.protocol.event import Consumer, Event
from txstore.protocol.moved import Fence
from txstore.protocol.names import NameRules
from txstore.protocol.stored import OpenedFile, StoredFile

#: Bytes that are read at once.
PIECE = 1024 * 1024


class OpenTransfer(NamedTuple):
    """An unfinished transfer.

    :ivar size: bytes received
    :ivar last_size: of them in the last segment
    :ivar created_at: seconds since 1970
    :ivar updated_at: likewise, of its last activity
    """

    file_id: str
    segments: int
    size: int
    last_size: int
    created_at: float
    updated_at: float


class LastMessage(NamedTuple):
    """A last message that was carried out.

    :ivar name: of the file, normalised
    :ivar last: SHA-256 of the last segment
    :ivar stands: whether the file that it stored is the one that has the name now
    """

    file_id: str
    segments: int
    name: str
    size: int
    sha256: bytes
    last: bytes
    created_at: float
    completed_at: float
    stands: bool


def checked(name: str, file: OpenedFile) -> Iterator[bytes]:
    """The bytes of a stored file, from where it stands on.

    :raises SourceDamagedError: they are not those that were stored; after the last of them
    """
    found, size = hashlib.sha256(), 0
    while piece := file.file.read(PIECE):
        found.update(piece)
        size += len(piece)
        yield piece
    if size != file.size or file.changed():
        raise SourceDamagedError(
            name,
            f"The file {name!r} was changed while it was read. Run the same command again when"
            " nobody writes to the storage.",
        )
    if file.sha256 not in (None, found.hexdigest()):
        raise SourceDamagedError(
            name,
            f"The file {name!r} has not the bytes that were stored: their SHA-256 was"
            f" {file.sha256}, and is {found.hexdigest()}. Restore it, or take it out of the"
            " storage; then run the same command again.",
        )


#: Bytes of each part of a name.
_LONGEST_PART = 255


def refusal(rules: NameRules, name: str) -> str | None:
    """Why nothing can be stored under a name; ``None``: it can."""
    try:
        same = rules.normalise(name, None) == name
    except NameRefusedError as error:
        return error.reason
    if max(len(os.fsencode(part)) for part in name.split("/")) > _LONGEST_PART:
        return "it is too long"
    return None if same else "no file can have that name"


def opened_meanwhile(working_dir: str) -> MigrationError:
    """The error where a store that takes another one is behind no fence any more."""
    return MigrationError(
        f"The store at {working_dir} was opened to workers meanwhile: another `txstore migrate` has"
        " done all there was to do, or somebody else did. Nothing more was taken."
    )


class Port(Protocol):
    """One store that is being moved.  For one thread.

    :ivar storage_dir: where it is
    :ivar working_dir: likewise, without a password
    :ivar store_id: no other store has it
    """

    storage_dir: str
    working_dir: str
    store_id: str

    def alone(self) -> AbstractContextManager[None]:
        """As long as it lasts no other program moves the store.

        :raises MigrationError: another one is at it
        """
        ...

    # --- the fence ---------------------------------------------------------------------------

    def fence(self) -> Fence | None:
        """What keeps workers off; ``None``: nothing does."""
        ...

    def raise_fence(self, fence: Fence) -> None:
        """Keep workers off, those that are in the middle of something too: from now on none of
        them can record anything.  Durable."""
        ...

    def lift_fence(self) -> None:
        """Let workers in.  Durable."""
        ...

    # --- what is here ------------------------------------------------------------------------

    def is_empty(self) -> bool:
        """Whether nothing was ever stored here, and nothing begun."""
        ...

    def settle(self) -> list[str]:
        """Settle what dead workers left; the ids of transfers whose bytes are damaged.  Those are
        not among ``transfers``."""
        ...

    def strange(self) -> Iterator[tuple[str, str]]:
        """What is in the storage and is no file that could be moved: names, and why."""
        ...

    def stored(self, after: str | None, limit: int) -> list[StoredFile]:
        """As ``Engine.stored``."""
        ...

    def open_stored(self, name: str) -> OpenedFile:
        """As ``Engine.open_stored``."""
        ...

    def transfers(self) -> list[OpenTransfer]:
        """The unfinished transfers, oldest first."""
        ...

    def read(self, transfer: OpenTransfer) -> Iterator[bytes]:
        """The bytes of one; what is read is what was received."""
        ...

    def messages(self, after: int, limit: int) -> list[tuple[int, LastMessage]]:
        """Some last messages in the order in which they were carried out, with keys to go on
        after."""
        ...

    def count_messages(self) -> int:
        """How many there are."""
        ...

    def events(self, after: int, limit: int) -> list[Event]:
        """Some events after one, oldest first."""
        ...

    def last_event(self) -> int:
        """Number of the newest event; 0: there was none."""
        ...

    def consumers(self) -> list[Consumer]:
        """The consumers of events."""
        ...

    # --- what comes --------------------------------------------------------------------------

    def has(self, name: str, file: OpenedFile, tag: str) -> bool:
        """Whether a file was taken before.

        :param tag: equal for the same file in the same state
        """
        ...

    def take_file(self, name: str, file: OpenedFile, tag: str) -> None:
        """Store a file, once its bytes were seen to be right.

        :raises SourceDamagedError: they are not those that they should be
        """
        ...

    def take_transfer(self, transfer: OpenTransfer, pieces: Iterable[bytes]) -> None:
        """Begin a transfer that stands where another one does."""
        ...

    def take_messages(self, before: int, messages: list[LastMessage]) -> None:
        """Record last messages, unless that was done.

        :param before: how many were recorded before them
        """
        ...

    def take_events(self, after: int, events: list[Event]) -> None:
        """Record events under the numbers that they have, unless that was done.

        :param after: number of the newest before them
        """
        ...

    def take_consumers(self, consumers: list[Consumer], last: int) -> None:
        """Register consumers, each as far as it is.

        :param last: number of the newest event; the next one has a higher number
        """
        ...
