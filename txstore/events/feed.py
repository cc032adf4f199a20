"""The events of a store as a program reads them: in order, each at least once.

An iterator asks an engine for a batch at a time, in calls of their own: while the program works on
an event nothing is held but the consumer's turn.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from txstore.deadline import Deadline
from txstore.engine import Engine, Turn
from txstore.errors import LockTimeoutError
from txstore.protocol.event import Event

if TYPE_CHECKING:
    import sys

    if sys.version_info >= (3, 11):
        from typing import Self
    else:
        from typing_extensions import Self

#: Events that are asked for at once.
_BATCH = 256
#: Seconds between two looks for new events, or for the turn: growing as long as nothing comes.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.5

E = TypeVar("E", bound=Event)
#: Makes a call of the manager's, with what is open in this process.
Run = Callable[[Callable[[Engine, Deadline], Any]], Any]


@dataclass(frozen=True)
class Delivery(Event):
    """An event, handed to a consumer."""

    _done: Callable[[int], None] = field(repr=False, compare=False)

    def done(self) -> None:
        """This event, and all before it, are done with: they do not come again under this name.
        Durable on return, except at level ``"none"``.

        One call for many events, after the last of them, costs a flush in place of one each.

        :raises UnknownConsumerError: the consumer was removed
        :raises OSError: the disk failed; whether the event comes again is not known
        """
        self._done(self.sequence)


class Feed(Iterator[E], Generic[E]):
    """Events in order.  Ends after the last one, or with ``follow`` waits for the next.

    To be iterated by one thread at a time.

    :param run: makes a call
    :param follow: whether it goes on when there are no more for now
    """

    def __init__(self, run: Run, *, follow: bool) -> None:
        self._run, self._follow = run, follow
        self._batch: deque[Event] = deque()
        self._after = 0
        #: Set when it is to end.
        self.stopped = threading.Event()

    def __next__(self) -> E:
        """:raises StoreClosedError: the manager is closed"""
        pause = _FIRST_PAUSE
        while not self._batch or self.stopped.is_set():
            if self.stopped.is_set():
                self.close()
                raise StopIteration
            found = self._run(self._next_batch)
            if found:
                self._batch.extend(found)
                self._after = found[-1].sequence
            elif found is not None and not self._follow:
                self.stop()
            else:
                self.stopped.wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
        return self._given(self._batch.popleft())

    @abstractmethod
    def _next_batch(self, engine: Engine, deadline: Deadline) -> list[Event] | None:
        """The next events; ``None``: somebody else's turn is not over."""

    @abstractmethod
    def _given(self, event: Event) -> E:
        """An event as it is handed out."""

    def stop(self) -> None:
        """Have it end where it is asked for the next event.  Any thread may call this."""
        self.stopped.set()

    def close(self) -> None:
        """End it, and the consumer's turn, so that another process may go on."""
        self.stop()
        self._batch.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Look(Feed[Event]):
    """All events that are kept, for somebody who only looks: nothing is changed by that."""

    def _next_batch(self, engine: Engine, deadline: Deadline) -> list[Event]:
        return engine.events.after(self._after, _BATCH, deadline)

    def _given(self, event: Event) -> Event:
        return event


class Consuming(Feed[Delivery]):
    """The events that a consumer is not done with, for the one process whose turn it is.

    :param consumer: its name
    :param patience: seconds to wait for the turn, where this is not to ``follow``
    :param where: which store it is, for messages to people
    """

    def __init__(
        self, run: Run, consumer: str, *, follow: bool, patience: float, where: str
    ) -> None:
        super().__init__(run, follow=follow)
        self._consumer, self._patience, self._where = consumer, patience, where
        self._engine: Engine | None = None
        self._turn: Turn | None = None
        self._waiting_since: float | None = None

    def _next_batch(self, engine: Engine, deadline: Deadline) -> list[Event] | None:
        if self._turn is None or self._engine is not engine:
            # In a forked child, or after a call was cut off, the turn was the old engine's.  From
            # the cursor on: what somebody was handed and is not done with comes again.
            self._turn = engine.events.take_turn(self._consumer, deadline)
            if self._turn is None:
                self._check_patience()
                return None
            self._engine, self._after = engine, self._turn.cursor
        self._waiting_since = None
        try:
            self._turn.check()
        except OSError:
            # Whoever asks once more takes a new one.
            self._turn.end()
            self._turn = None
            raise
        return engine.events.after(self._after, _BATCH, deadline)

    def _check_patience(self) -> None:
        """:raises LockTimeoutError: somebody else has had the turn for too long"""
        now = time.monotonic()
        since = self._waiting_since = self._waiting_since or now
        if not self._follow and now - since >= self._patience:
            raise LockTimeoutError(self._where, self._patience, f"consumer {self._consumer}")

    def _given(self, event: Event) -> Delivery:
        facts = {one.name: getattr(event, one.name) for one in fields(Event)}
        # Not a method of this feed: an event that somebody keeps would keep the turn.
        return Delivery(**facts, _done=partial(_record, self._run, self._consumer))

    def close(self) -> None:
        """End it, and the turn."""
        super().close()
        if self._turn is not None:
            self._turn.end()


def _record(run: Run, consumer: str, sequence: int) -> None:
    run(lambda engine, deadline: engine.events.done(consumer, sequence, deadline))
