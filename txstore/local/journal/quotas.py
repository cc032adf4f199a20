"""What all unfinished transfers may have together, as SQL.

A quota is judged by the statement that records: no other writer comes between the two.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from txstore.local.journal.rows import Transfer
from txstore.local.journal.schema import transfer
from txstore.local.journal.sqlite import IS_OURS, Statement
from txstore.protocol.admission import Quota

#: The greatest number whose sum with another one SQLite counts exactly.  No file has more bytes.
_MOST = 2**62 - 1

_more: sa.BindParameter[int] = sa.bindparam("p_more")
_max_bytes: sa.BindParameter[int] = sa.bindparam("p_max_bytes")
_max_transfers: sa.BindParameter[int] = sa.bindparam("p_max_transfers")

_rows = sa.select(sa.func.count()).select_from(transfer)
#: A file in one segment is none, though its intent may be recorded.  Few have an intent, and they
#: have an index: all others are counted without being read.
_whole = _rows.where(transfer.c.publish_place.is_not(None), transfer.c.segments == 0)
#: How many unfinished transfers there are.
TRANSFERS = _rows.scalar_subquery() - _whole.scalar_subquery()
_sum = sa.func.coalesce(sa.func.sum(transfer.c.offset), sa.literal_column("0"))
_bytes = sa.select(_sum).scalar_subquery()
#: What they have: how many there are and, where these are bounded, their bytes.
USAGE = Statement(sa.select(TRANSFERS, sa.case((_max_bytes.is_not(None), _bytes))))
#: Whether there is a place for more bytes.
HAS_BYTES = _bytes + _more <= _max_bytes
#: The INSERT of a row, if there is a place for it.
INSERT = Statement(
    sa.insert(transfer).from_select(
        Transfer._fields,
        sa.select(
            *(sa.bindparam(name, type_=transfer.c[name].type) for name in Transfer._fields)
        ).where(
            IS_OURS,
            _max_transfers.is_(None) | (_max_transfers > TRANSFERS),
            _max_bytes.is_(None) | HAS_BYTES,
        ),
    )
)


def values_of(quota: Quota) -> dict[str, Any]:
    """The parameters of these statements."""
    return {
        "p_more": _bounded(quota.more),
        "p_max_bytes": _bounded(quota.max_bytes),
        "p_max_transfers": _bounded(quota.max_transfers),
    }


def _bounded(number: int | None) -> int | None:
    return None if number is None else min(number, _MOST)
