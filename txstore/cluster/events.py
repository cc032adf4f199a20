"""Events and their consumers, over many hosts: told, and handed to one process at a time.

An event is recorded without a number, so that transfers can end at the same time.  It gets the next
one when events are asked for, by one worker at a time: so whatever is numbered later was not seen
before, and no number is ever left out.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timezone
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from txstore.cluster.journal import Journal, Transaction
from txstore.cluster.retry import TransientError, retrying
from txstore.cluster.schema import consumer, event, store
from txstore.cluster.servers import Servers
from txstore.deadline import Deadline
from txstore.errors import UnknownConsumerError
from txstore.process import forks
from txstore.protocol.event import Consumer, Event

_ALIVE = sa.select(sa.literal(1))
_LAST = sa.select(store.c.events)
_LOCK_NUMBERS = _LAST.with_for_update()
_UNNUMBERED = sa.exists().where(event.c.sequence.is_(None))
_ANY_UNNUMBERED = sa.select(_UNNUMBERED)
_order = (
    sa.select(event.c.id, sa.func.row_number().over(order_by=event.c.id).label("place"))
    .where(event.c.sequence.is_(None))
    .subquery()
)
_NUMBER = (
    sa.update(event)
    .where(event.c.id == _order.c.id)
    .values(sequence=sa.bindparam("last") + _order.c.place)
)
_COUNTED = sa.update(store).values(events=store.c.events + sa.bindparam("more"))
_AFTER = (
    sa.select(event)
    .where(event.c.sequence > sa.bindparam("after"))
    .order_by(event.c.sequence)
    .limit(sa.bindparam("most"))
)
_OLDEST = sa.select(sa.func.min(event.c.sequence)).scalar_subquery()
_CONSUMERS = (
    sa.select(
        consumer.c.name,
        consumer.c.cursor,
        consumer.c.registered_at,
        sa.func.coalesce(_OLDEST, store.c.events + 1),
        store.c.events,
    )
    .join_from(consumer, store, sa.true())  # which has one row
    .order_by(consumer.c.name)
)
_REGISTER = (
    insert(consumer)
    .from_select(
        ["name", "cursor"],
        sa.select(
            sa.bindparam("name", type_=sa.Text),
            sa.func.coalesce(_OLDEST - 1, store.c.events),
        ),
    )
    .on_conflict_do_nothing()
)
_CURSOR = sa.select(consumer.c.id, consumer.c.cursor).where(consumer.c.name == sa.bindparam("name"))
_MOVE = (
    sa.update(consumer)
    .where(consumer.c.name == sa.bindparam("p_name"))
    .values(cursor=sa.func.greatest(consumer.c.cursor, sa.bindparam("p_to")))
)
_REMOVE = sa.delete(consumer).where(consumer.c.name == sa.bindparam("p_name"))


class ClusterTurn:
    """The turn of a consumer, as long as a connection of its own lives.

    So it lasts from call to call, and ends with its process at the latest, or when nobody refers to
    it any more.

    :ivar cursor: number of the last event that the consumer was done with when the turn began
    """

    cursor = 0

    def __init__(self, journal: Journal, connection: sa.Connection) -> None:
        self._process = forks.here()
        self._journal = journal
        self._connection: sa.Connection | None = connection

    def check(self) -> None:
        """:raises JournalError: the connection was lost, and somebody else may have the turn"""
        try:
            with self.using(self._journal.deadline()) as at:
                at.run(_ALIVE)
        except TransientError as error:
            raise error.told from error.told.__cause__

    @contextmanager
    def using(self, deadline: Deadline) -> Iterator[Transaction]:
        """A transaction on the turn's connection."""
        connection = self._connection
        if connection is None:
            raise self._journal.lost()
        with (
            self._journal.lent(connection, deadline),
            self._journal.within(connection, deadline) as at,
        ):
            yield at

    def end(self) -> None:
        """Let others have it.  May be called more than once, and by any thread."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._journal.drop(connection)

    def disown(self) -> None:
        """In a forked child: the connection is the parent's."""
        self._connection = None

    def __del__(self) -> None:
        if forks.is_here(self._process):
            self.end()


class ClusterEvents:
    """The events of one engine's store.  Thread-safe; ``disown`` in a forked child."""

    def __init__(self, journal: Journal, servers: Servers) -> None:
        self._journal, self._servers = journal, servers
        self._turns: weakref.WeakSet[ClusterTurn] = weakref.WeakSet()

    def after(self, sequence: int, limit: int, deadline: Deadline) -> list[Event]:
        """The next events, oldest first."""

        def newer(at: Transaction) -> list[Event]:
            number(at)
            found = at.run(_AFTER, {"after": sequence, "most": limit}).mappings().all()
            return [_event(row) for row in found]

        return self._journal.ask(newer, deadline)

    # --- consumers ---------------------------------------------------------------------------

    def consumers(self, deadline: Deadline) -> list[Consumer]:
        """All consumers, by name."""

        def known(at: Transaction) -> list[Consumer]:
            number(at)
            rows: Any = at.run(_CONSUMERS).all()
            return [
                Consumer(
                    name,
                    cursor,
                    newest - max(cursor, oldest - 1),
                    max(oldest - 1 - cursor, 0),
                    registered.astimezone(timezone.utc),
                )
                for name, cursor, registered, oldest, newest in rows
            ]

        return self._journal.ask(known, deadline)

    def take_turn(self, name: str, deadline: Deadline) -> ClusterTurn | None:
        """Register a consumer, if need be, and take its turn; ``None``: another has it."""
        return retrying(lambda: self._take_turn(name, deadline), deadline, self._servers)

    def _take_turn(self, name: str, deadline: Deadline) -> ClusterTurn | None:
        while True:
            with self._journal.transaction(deadline) as at:
                number(at)
                at.run(_REGISTER, {"name": name})
                known: Any = at.run(_CURSOR, {"name": name}).one()
            turn = ClusterTurn(self._journal, self._journal.apart(deadline))
            self._turns.add(turn)
            # By its row's key, so that one that is removed and registered anew is another.
            lock = sa.func.pg_try_advisory_lock(self._journal.key("consumer", str(known.id)))
            with turn.using(deadline) as at:
                mine = at.run(sa.select(lock)).scalar()
                # Who had it before may have gone on meanwhile, or the consumer was removed.
                current: Any = at.run(_CURSOR, {"name": name}).first()
            if mine and current is not None and current.id == known.id:
                turn.cursor = current.cursor
                return turn
            turn.end()
            if not mine:
                return None

    def done(self, name: str, sequence: int, deadline: Deadline) -> None:
        """A consumer is done with an event and all before."""

        def move(at: Transaction) -> bool:
            return at.run(_MOVE, {"p_name": name, "p_to": sequence}).rowcount == 1

        if not self._journal.ask(move, deadline):
            raise UnknownConsumerError(name)

    def remove_consumer(self, name: str, deadline: Deadline) -> bool:
        """Forget a consumer; ``False``: none has that name."""
        removed = False

        def remove(at: Transaction) -> bool:
            nonlocal removed
            # An attempt whose answer was lost may have removed it.
            removed = at.run(_REMOVE, {"p_name": name}).rowcount == 1 or removed
            return removed

        return self._journal.ask(remove, deadline)

    def close(self) -> None:
        """End all turns."""
        for turn in list(self._turns):
            turn.end()

    def disown(self) -> None:
        """In a forked child: all turns are the parent's."""
        for turn in list(self._turns):
            turn.disown()


def number(at: Transaction) -> None:
    """Give every event that has none the next number.  Others who want to wait for that."""
    if not at.run(_ANY_UNNUMBERED).scalar():
        return
    last = at.run(_LOCK_NUMBERS).scalar_one()
    more = at.run(_NUMBER, {"last": last}).rowcount
    if more:
        at.run(_COUNTED, {"more": more})


def _event(row: Any) -> Event:
    return Event(
        sequence=row["sequence"],
        kind=row["kind"],
        file_id=row["file_id"],
        segments=row["segments"],
        size=row["size"],
        name=row["path"],
        sha256=None if row["sha256"] is None else bytes(row["sha256"]).hex(),
        sender=row["sender"],
        created_at=row["created_at"].astimezone(timezone.utc),
        recorded_at=row["recorded_at"].astimezone(timezone.utc),
    )
