"""Events and their consumers, on one machine: told, and handed to one process at a time.

They are recorded with what they tell of, by ``Records.complete`` and ``Records.delete``.
"""

from __future__ import annotations

import os
import weakref

from txstore.deadline import Deadline
from txstore.errors import LockTimeoutError, UnknownConsumerError
from txstore.local.files.home import Home
from txstore.local.journal import rows
from txstore.local.journal.event_records import Cursor, EventRecords
from txstore.local.lockfile import LockFile, consumer_byte
from txstore.local.locks import Lock, Locks
from txstore.local.status import time_of
from txstore.options import Durability
from txstore.process import forks
from txstore.protocol.event import Consumer, Event


class LocalTurn:
    """The turn of a consumer, as long as the kernel's lock on a byte of its own is held.

    By a file that is opened for it alone: so it lasts from call to call, whichever threads make
    them, and ends at the latest with the process, or when nobody refers to it any more.

    :ivar cursor: number of the last event that the consumer was done with when the turn began
    :raises LockTimeoutError: somebody else has it
    """

    def __init__(self, file: LockFile, consumer: Cursor) -> None:
        self._process = forks.here()
        self._file, self.cursor = file, consumer.cursor
        self._lock = Lock(file, consumer_byte(consumer.key), f"consumer {consumer.name}")
        # In a child, before there is anything that it could keep beyond its parent's end.
        forks.disown_in_children(self)
        self._lock.acquire(Deadline(0.0))

    def check(self) -> None:
        """Check that nobody else can have it.

        :raises ReplacedError: the lock file was removed or replaced
        """
        self._lock.check_in_place()

    def end(self) -> None:
        """Let others have it.  May be called more than once, and by any thread."""
        self.disown()

    def disown(self) -> None:
        """Close the file; in a child that does not free its parent's lock."""
        self._file.disown()

    def __del__(self) -> None:
        if forks.is_here(self._process):
            self.end()


class LocalEvents:
    """The events of one manager's store.  Thread-safe; ``disown`` in a forked child."""

    def __init__(
        self, home: Home, locks: Locks, records: EventRecords, durability: Durability
    ) -> None:
        self._home, self._locks, self._records = home, locks, records
        self._keeps = durability.keeps_files
        self._turns: weakref.WeakSet[LocalTurn] = weakref.WeakSet()

    def after(self, sequence: int, limit: int, deadline: Deadline) -> list[Event]:
        """The next events, oldest first; durable, as the level says."""
        found = self._records.after(sequence, limit, deadline)
        if found and self._keeps:
            # An event that a power loss takes leaves its number to another one, and whoever saw it
            # would take that for the same.
            self._records.flush(deadline)
        else:
            self._records.check_in_place(deadline)
        return [_event(number, row) for number, row in found]

    # --- consumers ---------------------------------------------------------------------------

    def consumers(self, deadline: Deadline) -> list[Consumer]:
        """All consumers, by name."""
        return [
            Consumer(one.name, one.cursor, one.behind, one.lost, time_of(one.registered_at))
            for one in self._records.consumers(deadline)
        ]

    def take_turn(self, name: str, deadline: Deadline) -> LocalTurn | None:
        """Register a consumer, if need be, and take its turn; ``None``: another has it."""
        while True:
            known = self._find(name, deadline)
            if known is None:
                self._records.register(name, self._home.clock.now(), deadline)
                if self._keeps:
                    self._records.flush(deadline)
                continue
            try:
                turn = LocalTurn(self._locks.own_file(), known)
            except LockTimeoutError:
                return None
            self._turns.add(turn)
            # Who had it before may have gone on meanwhile, or the consumer was removed.
            current = self._find(name, deadline)
            if current is not None and current.key == known.key:
                turn.cursor = current.cursor
                return turn
            turn.end()

    def done(self, name: str, sequence: int, deadline: Deadline) -> None:
        """A consumer is done with an event and all before; durable, as the level says."""
        if not self._records.move(name, sequence, deadline):
            raise UnknownConsumerError(name)
        if self._keeps:
            self._records.flush(deadline)

    def remove_consumer(self, name: str, deadline: Deadline) -> bool:
        """Forget a consumer; ``False``: none has that name.  Durable, as the level says."""
        known = self._records.remove(name, deadline)
        if self._keeps:
            self._records.flush(deadline)
        return known

    def _find(self, name: str, deadline: Deadline) -> Cursor | None:
        found = [one for one in self._records.consumers(deadline) if one.name == name]
        return found[0] if found else None

    def close(self) -> None:
        """End all turns."""
        self.disown()

    def disown(self) -> None:
        """Let go of all turns; those of a parent stay its own."""
        for turn in list(self._turns):
            turn.disown()


def _event(sequence: int, row: rows.Event) -> Event:
    return Event(
        sequence=sequence,
        kind=row.kind,
        file_id=row.file_id,
        segments=row.segments,
        size=row.size,
        name=None if row.path is None else os.fsdecode(row.path),
        sha256=None if row.sha256 is None else row.sha256.hex(),
        sender=row.sender,
        created_at=time_of(row.created_at),
        recorded_at=time_of(row.recorded_at),
    )
