"""What the journal says of stored files, for as long as they are there: the few statements.

A completion says it for as long as it is kept, and its place has no other word: what is stored
costs nothing more for the catalogue.  When it goes, a row of the catalogue takes its place.  Every
method may raise what ``Journal.read`` and ``Journal.write`` raise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import sqlalchemy as sa

from txstore.deadline import Deadline
from txstore.errors import JournalError
from txstore.local.clock import Cutoff, Moment
from txstore.local.files.machine import NO_SPACE
from txstore.local.journal.aging import Aging, is_over, values_of
from txstore.local.journal.journal import Journal, Write
from txstore.local.journal.rows import Stored
from txstore.local.journal.schema import catalogue, completion
from txstore.local.journal.sqlite import Statement
from txstore.local.journal.sqlite import parameter as _p

_later = completion.alias("later")
#: Of those of a place, the completion that is remembered last.
_NEWEST = ~sa.exists().where(_later.c.place == completion.c.place, _later.c.id > completion.c.id)
_ALONE = ~sa.exists().where(completion.c.place == catalogue.c.place)


def _columns(table: sa.Table) -> list[sa.Column[Any]]:
    return [table.c[name] for name in Stored._fields]


def _where(
    of_completions: sa.ColumnElement[bool], of_rows: sa.ColumnElement[bool]
) -> sa.CompoundSelect[Any]:
    """What is known of some places, each of them once."""
    return sa.union_all(
        sa.select(*_columns(completion)).where(_NEWEST, of_completions),
        sa.select(*_columns(catalogue)).where(_ALONE, of_rows),
    )


_AT = Statement(_where(completion.c.place == _p("place"), catalogue.c.place == _p("place")))
_AFTER = Statement(
    _where(completion.c.place > _p("after"), catalogue.c.place > _p("after"))
    .order_by("place")
    .limit(_p("limit"))
)

_AGING = Aging(completion, "completed_at")
_GOES = (completion.c.id <= _p("to")) & is_over(completion, "completed_at")
_LISTED = Statement(
    sa.select(completion.c.id, completion.c.place, completion.c.size)
    .where(_GOES, completion.c.catalogued == sa.literal_column("1"), _NEWEST)
    .order_by(completion.c.id)
)
_UNLIST = Statement(
    sa.delete(catalogue).where(catalogue.c.place.in_(sa.select(completion.c.place).where(_GOES)))
)
# From the completion itself: another worker may have moved a newer one there meanwhile.
_LIST = Statement(
    sa.insert(catalogue)
    .prefix_with("OR REPLACE")
    .from_select(
        Stored._fields,
        sa.select(*_columns(completion)).where(completion.c.id == _p("id")),
    )
)

_SOME = Statement(
    sa.select(
        catalogue.c.id,
        *(catalogue.c[n] for n in ("place", "size")),
        *(catalogue.c[n] for n in ("missed_at", "missed_boot", "missed_ticks")),
    )
    .where(catalogue.c.id > _p("after"))
    .order_by(catalogue.c.id)
    .limit(_p("limit"))
)
_LAST = Statement(sa.select(sa.func.coalesce(sa.func.max(catalogue.c.id), 0)))
# SQLite uses the highest keys again.
_THE_ROW = (catalogue.c.id == _p("id")) & (catalogue.c.place == _p("place"))
_MISS = Statement(
    sa.update(catalogue)
    .where(_THE_ROW)
    .values(
        missed_at=sa.bindparam("wall"),
        missed_boot=sa.bindparam("boot"),
        missed_ticks=sa.bindparam("ticks"),
    )
)
_REMOVE = Statement(sa.delete(catalogue).where(_THE_ROW))


class Listed(NamedTuple):
    """A row of the catalogue, as the sweep sees it.

    :ivar missed: since when it is known that its file is not there any more
    """

    key: int
    place: bytes
    size: int
    missed: Moment | None


class CatalogueRecords:
    """What is known of stored files.  Thread-safe, as ``Journal`` is.

    :param is_there: whether a file is at its place still, as far as its size tells: place, bytes
    """

    def __init__(
        self, journal: Journal, is_there: Callable[[bytes, int], bool] = lambda *_: True
    ) -> None:
        self._journal, self._is_there = journal, is_there

    def at(self, place: bytes, deadline: Deadline) -> Stored | None:
        """What was stored last at a place."""
        rows = self._journal.read(_AT, {"p_place": place}, deadline)
        return Stored(*rows[0]) if rows else None

    def after(self, place: bytes, limit: int, deadline: Deadline) -> list[Stored]:
        """What was stored last at some places after one, in the order of the places."""
        values = {"p_after": place, "p_limit": limit}
        return [Stored(*row) for row in self._journal.read(_AFTER, values, deadline)]

    # --- completions go ----------------------------------------------------------------------

    def forget_over(self, over: Cutoff, among: int, deadline: Deadline) -> int:
        """Forget those of the oldest completions whose time has passed.  What is to be in the
        catalogue, and is there still, is in it then.

        :param among: how many are looked at
        :return: how many were forgotten
        """
        count, bounded = _AGING.over(self._journal, values_of(over), among, deadline)
        if not count:
            return 0
        listed = [
            Write(_LIST, {"p_id": key})
            for key, *facts in self._journal.read(_LISTED, bounded, deadline)
            if self._is_there(*facts)
        ]
        try:
            writes = Write(_UNLIST, bounded), *listed, _AGING.removal(bounded)
            self._journal.write(deadline, *writes, frees=not listed)
        except JournalError as error:
            if error.errno not in NO_SPACE:
                raise
            return 0  # they stay until there is space
        return count

    def stamp_ahead(self, at: Moment, after: int, among: int, deadline: Deadline) -> int:
        """Let the time of completions begin now that were written while the wall clock was ahead,
        in another boot.

        :param after: where the last slice ended; 0: at the beginning
        :param among: how many rows are looked at
        :return: where the next slice goes on; 0: all were looked at
        """
        return _AGING.stamp_ahead(self._journal, at, after, among, deadline)

    # --- rows go -----------------------------------------------------------------------------

    def last(self, deadline: Deadline) -> int:
        """The highest key of a row."""
        [(key,)] = self._journal.read(_LAST, {}, deadline)
        return int(key)

    def some(self, after: int, limit: int, deadline: Deadline) -> list[Listed]:
        """Some rows after a key."""
        rows = self._journal.read(_SOME, {"p_after": after, "p_limit": limit}, deadline)
        return [
            Listed(key, place, size, None if since[0] is None else Moment(*since))
            for key, place, size, *since in rows
        ]

    def note(
        self,
        missed: list[Listed],
        back: list[Listed],
        gone: list[Listed],
        at: Moment,
        deadline: Deadline,
    ) -> None:
        """Note of which rows the files are not there any more, or there again; remove others."""
        nothing: dict[str, object] = {"wall": None, "boot": None, "ticks": None}
        writes = [Write(_MISS, {**_of(one), **at._asdict()}) for one in missed]
        writes += [Write(_MISS, {**_of(one), **nothing}) for one in back]
        writes += [Write(_REMOVE, _of(one)) for one in gone]
        if writes:
            self._journal.write(deadline, *writes, frees=not missed)


def _of(row: Listed) -> dict[str, object]:
    return {"p_id": row.key, "p_place": row.place}
