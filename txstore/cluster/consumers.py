"""Events go when their time has passed and every consumer is done with them, or when there are too
many; and operators are told of consumers that are late."""

from __future__ import annotations

import logging
from typing import Any

import sqlalchemy as sa

from txstore.cluster.events import number
from txstore.cluster.journal import Journal
from txstore.cluster.schema import consumer, event, store
from txstore.deadline import Deadline

logger = logging.getLogger(__name__)

_FOR_EVER = 1e10
_p = sa.bindparam
_LAST = sa.select(store.c.events).scalar_subquery()
#: What every consumer is done with: where there is none, all.
_SEEN = sa.func.coalesce(sa.select(sa.func.min(consumer.c.cursor)).scalar_subquery(), _LAST)
_AGO = sa.func.clock_timestamp() - sa.func.make_interval(
    0, 0, 0, 0, 0, 0, _p("seconds", type_=sa.Double)
)
_goes = (
    sa.select(event.c.id)
    .where(
        event.c.sequence.is_not(None),
        ((event.c.sequence <= _SEEN) & (event.c.recorded_at < _AGO))
        | (event.c.sequence <= _LAST - _p("kept")),
    )
    .order_by(event.c.sequence)
    .limit(_p("most"))
)
_FORGET = sa.delete(event).where(event.c.id.in_(_goes))
_OLDEST = sa.select(sa.func.min(event.c.sequence)).scalar_subquery()
_next = event.alias("next_event")
_LATE = (
    sa.select(
        consumer.c.name,
        store.c.events - consumer.c.cursor,
        sa.func.coalesce(_OLDEST, store.c.events + 1) - 1 - consumer.c.cursor,
        sa.select(_next.c.recorded_at < _AGO)
        .where(_next.c.sequence > consumer.c.cursor)
        .order_by(_next.c.sequence)
        .limit(1)
        .correlate(consumer)
        .scalar_subquery(),
    )
    .join_from(consumer, store, sa.true())
    .where(consumer.c.cursor < store.c.events)
)


class Consumers:
    """Forgets events, for one engine; by one thread at a time.

    :param keep: seconds that an event is kept at least
    :param most: how many events are kept
    """

    def __init__(self, journal: Journal, keep: float, most: int) -> None:
        self._journal, self.keep, self._most = journal, keep, most
        self._warned: dict[str, str] = {}

    def forget(self, most: int, deadline: Deadline) -> int:
        """Forget some events; how many."""
        values = {"seconds": min(self.keep, _FOR_EVER), "kept": self._most, "most": most}
        with self._journal.transaction(deadline) as at:
            number(at)
            return at.run(_FORGET, values).rowcount

    def warn(self, deadline: Deadline) -> None:
        """Log which consumers are late, and to which events are lost: once, while it is so."""
        with self._journal.transaction(deadline) as at:
            rows: Any = at.run(_LATE, {"seconds": min(self.keep, _FOR_EVER)}).all()
        found = {}
        for name, behind, lost, late in rows:
            if lost > 0:
                found[name] = "lost"
                if self._warned.get(name) != "lost":
                    logger.warning(
                        "Consumer %r never saw %d events that are gone: more than max_events (%d)"
                        " came after them. Start it, or remove it",
                        *(name, lost, self._most),
                    )
            elif late or behind > self._most // 2:
                found[name] = "late"
                if self._warned.get(name) != "late":
                    logger.warning(
                        "Consumer %r is %d events behind. They are kept for it until there are more"
                        " than max_events (%d). Start it, or remove it",
                        *(name, behind, self._most),
                    )
        self._warned = found
