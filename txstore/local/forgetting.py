"""Records of transfers that are over go when their time has passed: completions, events."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Protocol

from txstore.deadline import Deadline
from txstore.local import clock
from txstore.local.clock import Call, Cutoff, Moment
from txstore.local.journal.event_records import Cursor, EventRecords

logger = logging.getLogger(__name__)

#: Rows whose time is looked at, for having been written while the wall clock was ahead, in a slice.
_LOOKED_AT = 1024
#: Rows that one statement forgets where nobody waits for an answer.
_MANY = 1024


class Rows(Protocol):
    """Rows of one kind, as the journal has them."""

    def forget_over(self, over: Cutoff, among: int, deadline: Deadline) -> int: ...

    def stamp_ahead(self, at: Moment, after: int, among: int, deadline: Deadline) -> int: ...


class Slices(Protocol):
    """How records of one kind go, for one manager; by one thread at a time.

    :ivar lifetime: seconds that one is kept, at least
    """

    lifetime: float

    def some(self, among: int, seen: float, call: Call) -> int:
        """Remove some of those that may go; ``among``, the most there may be: more wait.

        :param seen: see ``clock.cutoff``
        """
        ...

    def all(self, seen: float, call: Call) -> Iterator[int]:
        """Remove more of them, where nobody waits for an answer; how many, some at a time."""
        ...

    def warn(self, seen: float, call: Call) -> None:
        """Log what an operator should know of them."""
        ...


class Forgetting:
    """Forgets the rows of one kind, for one manager; by one thread at a time.

    :param lifetime: seconds that a row is kept
    """

    def __init__(self, rows: Rows, lifetime: float) -> None:
        self._rows, self.lifetime = rows, lifetime
        self._stamping, self._stamped = True, 0

    def some(self, among: int, seen: float, call: Call) -> int:
        """Forget those of so many rows whose time has passed; how many they were.

        :param seen: see ``clock.cutoff``
        """
        if self._stamping:  # looks at all of them, but after a boot once is enough
            self._stamped = self._rows.stamp_ahead(call.at, self._stamped, _LOOKED_AT, call)
            self._stamping = self._stamped > 0
        return self._rows.forget_over(self._cutoff(seen, call), among, call)

    def all(self, seen: float, call: Call) -> Iterator[int]:
        """Forget all rows whose time has passed; how many they were, some at a time."""
        while forgotten := self._rows.forget_over(self._cutoff(seen, call), _MANY, call):
            yield forgotten

    def warn(self, seen: float, call: Call) -> None:
        """Log what an operator should know of them."""

    def _cutoff(self, seen: float, call: Call) -> Cutoff:
        return clock.cutoff(self.lifetime, call.at, seen)


class ForgettingEvents(Forgetting):
    """Forgets events, and warns of consumers that they are kept for, or that never saw them.

    :param most: how many events are kept
    """

    def __init__(self, records: EventRecords, lifetime: float, most: int) -> None:
        super().__init__(records, lifetime)
        self._records, self._most = records, most
        self._warned: dict[str, str] = {}

    def warn(self, seen: float, call: Call) -> None:
        """Log which consumers are late, and to which events are lost: once, while it is so."""
        over, found = self._cutoff(seen, call), {}
        for one in self._records.consumers(call):
            if one.lost:
                found[one.name] = "lost"
            elif one.behind > self._most // 2 or (one.behind and self._is_late(one, over, call)):
                found[one.name] = "late"
            how = found.get(one.name)
            if how == self._warned.get(one.name):
                continue
            if how == "lost":
                logger.warning(
                    "Consumer %r never saw %d events that are gone: more than max_events (%d) came"
                    " after them. Start it, or remove it",
                    *(one.name, one.lost, self._most),
                )
            elif how == "late":
                logger.warning(
                    "Consumer %r is %d events behind. They are kept for it until there are more"
                    " than max_events (%d). Start it, or remove it",
                    *(one.name, one.behind, self._most),
                )
        self._warned = found

    def _is_late(self, one: Cursor, over: Cutoff, call: Call) -> bool:
        """Whether its next event would have gone but for it."""
        return any(
            over.is_over(Moment(row.recorded_at, row.boot, row.ticks))
            for _, row in self._records.after(one.cursor, 1, call)
        )
