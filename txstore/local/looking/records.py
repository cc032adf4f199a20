"""What the journal says, for who looks at all of it: in slices, however much there is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import sqlalchemy as sa

from txstore.deadline import Deadline
from txstore.local.journal.catalogue_records import CatalogueRecords
from txstore.local.journal.journal import Journal
from txstore.local.journal.records import Records
from txstore.local.journal.rows import Stored, Transfer
from txstore.local.journal.schema import transfer
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


class SeenRecords(Records):
    """The journal's content, read without writing a byte.

    :ivar catalogue: what is known of stored files
    """

    def __init__(self, reader: JournalReader) -> None:
        super().__init__(cast(Journal, reader))
        self.catalogue = CatalogueRecords(self.journal)

    def every_transfer(self, timeout: float) -> Iterator[Transfer]:
        """All unfinished transfers, oldest first; each as it was a moment ago."""
        return (Transfer(*row) for row in self._every(_TRANSFERS, timeout))

    def stored(self, after: bytes, timeout: float) -> Iterator[Stored]:
        """What was published last at each place after one, as far as it is known."""
        while True:
            rows = self.catalogue.after(after, _SLICE, Deadline(timeout))
            yield from rows
            if len(rows) < _SLICE:
                return
            after = rows[-1].place

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
