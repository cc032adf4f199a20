"""What the journal is asked and told of events and their consumers: the few statements.

The events themselves are recorded by ``records``, with what they tell of.  Every method may raise
what ``Journal.read`` and ``Journal.write`` raise.  Nothing is durable before ``Journal.flush``.
"""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from txstore.deadline import Deadline
from txstore.local.clock import Cutoff, Moment
from txstore.local.journal.aging import Aging, is_over, values_of
from txstore.local.journal.journal import Journal, Write
from txstore.local.journal.rows import Event
from txstore.local.journal.schema import consumer, event
from txstore.local.journal.sqlite import IS_OURS, Statement
from txstore.local.journal.sqlite import parameter as _p

_any = event.alias("any_event")
_OLDEST = sa.select(sa.func.min(_any.c.id)).scalar_subquery()
_NEWEST = sa.select(sa.func.max(_any.c.id)).scalar_subquery()
#: What every consumer is done with: where there is none, all.
_SEEN = sa.func.coalesce(sa.select(sa.func.min(consumer.c.cursor)).scalar_subquery(), _NEWEST)


def _goes(rows: sa.Table | sa.Subquery) -> sa.ColumnElement[bool]:
    """Whether an event may go.  The newest stays: a new row's number is the next one, so none
    comes a second time."""
    number: sa.ColumnElement[int] = rows.c.id
    over = (number <= _SEEN) & is_over(rows, "recorded_at")
    too_many = number <= _NEWEST - _p("most")
    return (number < _NEWEST) & (over | too_many)


_AGING = Aging(event, "recorded_at", _goes)
_AFTER = Statement(
    sa.select(event.c.id, *(event.c[name] for name in Event._fields))
    .where(event.c.id > _p("after"))
    .order_by(event.c.id)
    .limit(_p("limit"))
)
_CONSUMERS = Statement(
    sa.select(
        consumer.c.id,
        consumer.c.name,
        consumer.c.cursor,
        consumer.c.registered_at,
        sa.func.coalesce(_OLDEST, 1),
        sa.func.coalesce(_NEWEST, 0),
    ).order_by(consumer.c.name)
)
# Whoever else registers it at the same time was first then.
_REGISTER = Statement(
    sa.insert(consumer)
    .prefix_with("OR IGNORE")
    .from_select(
        ["name", "cursor", "registered_at"],
        sa.select(_p("name"), sa.func.coalesce(_OLDEST - 1, 0), _p("now")),
    )
)
_MOVE = Statement(
    sa.update(consumer)
    .where(consumer.c.name == _p("name"), IS_OURS)
    .values(cursor=sa.func.max(consumer.c.cursor, _p("to")))
)
_REMOVE = Statement(sa.delete(consumer).where(consumer.c.name == _p("name"), IS_OURS))


class Cursor(NamedTuple):
    """A consumer, and where it is among the events that are kept.

    :ivar key: of its row
    :ivar cursor: number of the last event that it is done with
    :ivar oldest: number of the oldest event that is kept
    :ivar newest: of the newest
    """

    key: int
    name: str
    cursor: int
    registered_at: float
    oldest: int
    newest: int

    @property
    def behind(self) -> int:
        """How many events it has not seen that it can still see."""
        return self.newest - max(self.cursor, self.oldest - 1)

    @property
    def lost(self) -> int:
        """How many events it has not seen and cannot see any more."""
        return max(self.oldest - 1 - self.cursor, 0)


class EventRecords:
    """Events and consumers of one journal.  Thread-safe, as ``Journal`` is.

    :param most: how many events are kept
    """

    def __init__(self, journal: Journal, most: int) -> None:
        self._journal, self._most = journal, most

    def flush(self, deadline: Deadline) -> None:
        """Make all that was recorded durable."""
        self._journal.flush(deadline)

    def check_in_place(self, deadline: Deadline) -> None:
        """Check that the journal is still in place."""
        self._journal.check_in_place(deadline)

    def after(self, sequence: int, limit: int, deadline: Deadline) -> list[tuple[int, Event]]:
        """Some of the events after one, oldest first, with their numbers."""
        rows = self._journal.read(_AFTER, {"p_after": sequence, "p_limit": limit}, deadline)
        return [(row[0], Event(*row[1:])) for row in rows]

    def consumers(self, deadline: Deadline) -> list[Cursor]:
        """All consumers, by name."""
        return [Cursor(*row) for row in self._journal.read(_CONSUMERS, {}, deadline)]

    def register(self, name: str, at: Moment, deadline: Deadline) -> None:
        """Make a consumer of that name, unless there is one.  It begins with the oldest event."""
        write = Write(_REGISTER, {"p_name": name, "p_now": at.wall})
        self._journal.write(deadline, write)

    def move(self, name: str, sequence: int, deadline: Deadline) -> bool:
        """A consumer is done with an event and all before; its cursor never goes back.

        :return: ``False``: there is no such consumer
        """
        values = {"p_name": name, "p_to": sequence}
        return self._journal.write(deadline, Write(_MOVE, values, guarded=True))

    def remove(self, name: str, deadline: Deadline) -> bool:
        """Forget a consumer; ``False``: there is no such one."""
        write = Write(_REMOVE, {"p_name": name}, guarded=True)
        return self._journal.write(deadline, write, frees=True)

    def forget_over(self, over: Cutoff, among: int, deadline: Deadline) -> int:
        """Forget those of the oldest events whose time has passed and that every consumer is done
        with, and those that are too many.

        :param among: how many are looked at
        :return: how many were forgotten
        """
        values = {**values_of(over), "p_most": self._most}
        return _AGING.forget(self._journal, values, among, deadline)

    def stamp_ahead(self, at: Moment, after: int, among: int, deadline: Deadline) -> int:
        """As ``Records.stamp_ahead`` of completions."""
        return _AGING.stamp_ahead(self._journal, at, after, among, deadline)
