"""Rows that go when their time has passed: of transfers, completions and events."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sqlalchemy as sa

from txstore.deadline import Deadline
from txstore.local.clock import Cutoff, Moment
from txstore.local.journal.journal import Journal, Write
from txstore.local.journal.sqlite import Statement, parameter


def is_over(table: sa.Table | sa.Subquery, time: str) -> sa.ColumnElement[bool]:
    """What ``clock.Cutoff.is_over`` says, of a row; for ``values_of`` a cutoff.

    :param time: the column of the wall clock's time
    """
    here = table.c.boot == parameter("boot")
    ticks, wall = table.c.ticks <= parameter("ticks"), table.c[time] <= parameter("wall")
    return (here & ticks) | (~here & wall)


def is_ahead(table: sa.Table, time: str) -> sa.ColumnElement[bool]:
    """Whether a row was written, in another boot, when the wall clock was ahead."""
    return (table.c.boot != parameter("boot")) & (table.c[time] > parameter("now"))


def values_of(over: Cutoff) -> dict[str, object]:
    """The parameters of ``is_over``."""
    return {"p_boot": over.boot, "p_ticks": over.ticks, "p_wall": over.wall}


class Range:
    """Slices of a table, by its key."""

    def __init__(self, table: sa.Table) -> None:
        self.clause = (table.c.id > parameter("after")) & (table.c.id <= parameter("to"))
        some = sa.select(table.c.id).where(table.c.id > parameter("after")).order_by(table.c.id)
        ids = some.limit(parameter("limit")).subquery()
        self._end = Statement(sa.select(sa.func.max(ids.c.id), sa.func.count()).select_from(ids))

    def end(self, journal: Journal, after: int, among: int, deadline: Deadline) -> tuple[int, int]:
        """Where a slice of so many rows ends, and where the next goes on: 0 behind the last row."""
        found = journal.read(self._end, {"p_after": after, "p_limit": among}, deadline)
        [(end, count)] = found
        return end or 0, end if count == among else 0


class Aging:
    """How the rows of a table go, the oldest first.

    :param time: the column of the wall clock's time
    :param goes: whether a row may go; by default when its time has passed
    """

    def __init__(
        self,
        table: sa.Table,
        time: str,
        goes: Callable[[sa.Table | sa.Subquery], sa.ColumnElement[bool]] | None = None,
    ) -> None:
        goes = goes or (lambda rows: is_over(rows, time))
        columns = (table.c.id, table.c.boot, table.c.ticks, table.c[time])
        oldest = sa.select(*columns).order_by(table.c.id).limit(parameter("limit")).subquery()
        self._count = Statement(
            sa.select(sa.func.count(), sa.func.max(oldest.c.id)).where(goes(oldest))
        )
        self._forget = Statement(sa.delete(table).where(table.c.id <= parameter("to"), goes(table)))
        self._range = Range(table)
        ahead = sa.and_(self._range.clause, is_ahead(table, time))
        self._count_ahead = Statement(sa.select(sa.func.count()).select_from(table).where(ahead))
        # The boot stays: after it, what was recorded in it is not trusted.
        self._stamp = Statement(sa.update(table).where(ahead).values({time: parameter("now")}))

    def forget(
        self, journal: Journal, values: Mapping[str, object], among: int, deadline: Deadline
    ) -> int:
        """Remove those of the oldest rows that may go.

        :param values: of ``goes``
        :param among: how many are looked at
        :return: how many were removed
        """
        count, bounded = self.over(journal, values, among, deadline)
        if count:
            journal.write(deadline, self.removal(bounded), frees=True)
        return count

    def over(
        self, journal: Journal, values: Mapping[str, object], among: int, deadline: Deadline
    ) -> tuple[int, dict[str, object]]:
        """How many those are, and the values of ``goes`` with ``p_to``, the last of them."""
        [(count, last)] = journal.read(self._count, {**values, "p_limit": among}, deadline)
        return count, {**values, "p_to": last}

    def removal(self, bounded: Mapping[str, object]) -> Write:
        """What removes them.

        :param bounded: the values that ``over`` told
        """
        return Write(self._forget, bounded)

    def stamp_ahead(
        self, journal: Journal, at: Moment, after: int, among: int, deadline: Deadline
    ) -> int:
        """Let the time of rows begin now that were written, in another boot, while the wall clock
        was ahead.

        :param after: where the last slice ended; 0: at the beginning
        :param among: how many rows are looked at
        :return: where the next slice goes on; 0: all were looked at
        """
        end, following = self._range.end(journal, after, among, deadline)
        values = {"p_boot": at.boot, "p_now": at.wall, "p_after": after, "p_to": end}
        if journal.read(self._count_ahead, values, deadline) != [(0,)]:
            journal.write(deadline, Write(self._stamp, values))
        return following
