"""What the journal says, for who looks at all of it: in slices, however much there is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import sqlalchemy as sa

from txstore.deadline import Deadline
from txstore.local.journal.journal import Journal
from txstore.local.journal.records import Records
from txstore.local.journal.rows import Completion, Transfer
from txstore.local.journal.schema import completion, transfer
from txstore.local.journal.sqlite import Statement
from txstore.local.looking.reader import JournalReader

_SLICE = 500

_AFTER: sa.BindParameter[Any] = sa.bindparam("p_after")
_LIMIT: sa.BindParameter[Any] = sa.bindparam("p_limit")
_TRANSFERS = Statement(
    sa.select(transfer.c.id, *(transfer.c[name] for name in Transfer._fields))
    .where(transfer.c.id > _AFTER)
    .order_by(transfer.c.id)
    .limit(_LIMIT)
)
_later = completion.alias()
#: Of each place the completion that is remembered last.
_LATEST = Statement(
    sa.select(completion.c.id, *(completion.c[name] for name in Completion._fields))
    .where(
        completion.c.id > _AFTER,
        ~sa.exists().where(_later.c.place == completion.c.place, _later.c.id > completion.c.id),
    )
    .order_by(completion.c.id)
    .limit(_LIMIT)
)


class SeenRecords(Records):
    """The journal's content, read without writing a byte."""

    def __init__(self, reader: JournalReader) -> None:
        super().__init__(cast(Journal, reader))

    def every_transfer(self, timeout: float) -> Iterator[Transfer]:
        """All unfinished transfers, oldest first; each as it was a moment ago."""
        return (Transfer(*row) for row in self._every(_TRANSFERS, timeout))

    def every_latest(self, timeout: float) -> Iterator[Completion]:
        """What was published last at each place, as far as it is remembered."""
        return (Completion(*row) for row in self._every(_LATEST, timeout))

    def _every(self, statement: Statement, timeout: float) -> Iterator[tuple[Any, ...]]:
        after = 0
        while True:
            values = {"p_after": after, "p_limit": _SLICE}
            rows = self.journal.read(statement, values, Deadline(timeout))
            for row in rows:
                yield row[1:]
            if len(rows) < _SLICE:
                return
            after = rows[-1][0]
