"""What the journal is asked and told where things are cleaned up: the statements.

Each runs in a caller's transaction, and takes a bounded number of rows.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from txstore.cluster.journal import Transaction
from txstore.cluster.records import Transfer
from txstore.cluster.schema import completion, part, transfer

_p = sa.bindparam
_NOW = sa.func.clock_timestamp()


def _ago(seconds: str) -> sa.ColumnElement[datetime]:
    """So many seconds ago, by the database's clock."""
    ago: sa.ColumnElement[datetime] = _NOW - sa.func.make_interval(
        0, 0, 0, 0, 0, 0, _p(seconds, type_=sa.Double)
    )
    return ago


_columns = [transfer.c[name] for name in Transfer._fields]
_INTENTS = (
    sa.select(*_columns)
    .where(transfer.c.publish_path.is_not(None))
    .order_by(transfer.c.publish_path)
    .limit(_p("most"))
)
# Whoever works on one has it locked; and once it is, its time is looked at again.
_OVERDUE = (
    sa.select(*_columns)
    .where(
        transfer.c.updated_at < _ago("seconds"),
        transfer.c.publish_path.is_(None),
        transfer.c.file_id != _p("spare"),
    )
    .order_by(transfer.c.updated_at)
    .limit(_p("most"))
    .with_for_update(skip_locked=True)
)
_old = (
    sa.select(completion.c.id)
    .where(completion.c.completed_at < _ago("seconds"))
    .order_by(completion.c.completed_at)
    .limit(_p("most"))
)
_FORGET = sa.delete(completion).where(completion.c.id.in_(_old))
_unrecorded = (
    sa.select(part.c.key)
    .where(part.c.number.is_(None), part.c.registered_at < _ago("seconds"))
    .limit(_p("most"))
)
_CONDEMN = (
    sa.update(part)
    .where(part.c.key.in_(_unrecorded), part.c.number.is_(None))
    .values(number=0, transfer_id=None)
)
_GARBAGE = (
    sa.select(part.c.key)
    .where(
        part.c.number.is_not(None),
        ~sa.exists().where(transfer.c.id == part.c.transfer_id),
    )
    .limit(_p("most"))
)
_USED = sa.select(transfer.c.publish_upload).where(transfer.c.publish_upload.is_not(None))


def intents(at: Transaction, most: int) -> list[Transfer]:
    """Some transfers that are being published, or whose worker died there."""
    return [Transfer._make(row) for row in at.run(_INTENTS, {"most": most})]


def overdue(at: Transaction, seconds: float, spare: str | None, most: int) -> list[Transfer]:
    """Some transfers without activity for so long, oldest first, locked.

    :param spare: id of one that is being worked on
    """
    values = {"seconds": seconds, "spare": spare or "", "most": most}
    return [Transfer._make(row) for row in at.run(_OVERDUE, values)]


def forget_completions(at: Transaction, seconds: float, most: int) -> int:
    """Forget some completions that are older; how many."""
    return at.run(_FORGET, {"seconds": seconds, "most": most}).rowcount


def condemn(at: Transaction, seconds: float, most: int) -> None:
    """Have some objects that were announced so long ago, and never recorded, never be recorded:
    only then may they be removed."""
    at.run(_CONDEMN, {"seconds": seconds, "most": most})


def garbage(at: Transaction, most: int) -> list[str]:
    """Keys of some objects that are no part of any transfer, and never will be."""
    return list(at.run(_GARBAGE, {"most": most}).scalars())


def known(at: Transaction, keys: list[str]) -> set[str]:
    """Those of some keys that there are rows of."""
    return set(at.run(sa.select(part.c.key).where(part.c.key.in_(keys))).scalars())


def uploads(at: Transaction) -> tuple[Any, set[str]]:
    """The database's time, and the uploads that intents speak of."""
    return at.run(sa.select(_NOW)).scalar_one(), set(at.run(_USED).scalars())
