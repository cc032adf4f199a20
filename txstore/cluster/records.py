"""What the journal is asked and told: the statements.  Each runs in a caller's transaction."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from txstore.cluster.journal import Transaction
from txstore.cluster.schema import completion, event, part, store, tail, transfer
from txstore.protocol.admission import Quota, Usage
from txstore.protocol.event import Kind

_NOW = sa.func.clock_timestamp()


class Transfer(NamedTuple):
    """A row of ``transfer``."""

    id: int
    file_id: str
    change: int
    segments: int
    offset: int
    last_size: int
    state: bytes | None
    before: bytes | None
    parts: int
    staged: int
    created_at: datetime
    updated_at: datetime
    publish_path: str | None
    publish_token: str | None
    publish_upload: str | None
    publish_size: int | None
    publish_sha256: bytes | None
    publish_last: bytes | None
    publish_sender: str | None

    @property
    def tail(self) -> int:
        """Bytes that are in no part yet."""
        return self.offset - self.staged


class Part(NamedTuple):
    """A recorded part."""

    key: str
    number: int
    size: int
    etag: str
    sha256: bytes


class Completion(NamedTuple):
    """A row of ``completion``."""

    id: int
    file_id: str
    segments: int
    path: str
    size: int
    sha256: bytes
    last: bytes
    token: str
    created_at: datetime
    completed_at: datetime


class Progress(NamedTuple):
    """What a segment makes of a transfer: the columns that it changes."""

    segments: int
    offset: int
    last_size: int
    state: bytes | None
    before: bytes | None


class Stored(NamedTuple):
    """What a last message stores: the columns of an intent, and of a completion."""

    path: str
    token: str
    size: int
    sha256: bytes
    last: bytes
    sender: str | None


def _transfers() -> sa.Select[Any]:
    return sa.select(*(transfer.c[name] for name in Transfer._fields))


_p = sa.bindparam
_FIND = _transfers().where(transfer.c.file_id == _p("file_id"))
_LOCK = _FIND.with_for_update()
_BY_ID = _transfers().where(transfer.c.id == _p("id"))
_BY_PATH = _transfers().where(transfer.c.publish_path == _p("path"))
_BEGIN = (
    insert(transfer)
    .values({name: _p(f"p_{name}") for name in ("file_id", "change", "parts", "staged")})
    .values({name: _p(f"p_{name}") for name in Progress._fields})
    .on_conflict_do_nothing()
    .returning(transfer.c.id)
)
_ADVANCE = (
    sa.update(transfer)
    .where(transfer.c.id == _p("p_id"), transfer.c.change == _p("p_change"))
    .values({name: _p(f"p_{name}") for name in Progress._fields})
    .values(change=transfer.c.change + 1, updated_at=_NOW)
)
_moved = _ADVANCE.returning(transfer.c.id).cte("moved")
#: Both at once: a round trip less.
_APPEND = (
    sa.insert(tail)
    .from_select(
        ["transfer_id", "number", "data"],
        sa.select(
            _moved.c.id, _p("p_number", type_=sa.BigInteger), _p("p_data", type_=sa.LargeBinary)
        ),
    )
    .returning(tail.c.number)
)
_TOUCH = sa.update(transfer).where(transfer.c.id == _p("p_id")).values(updated_at=_NOW)
_ADD_TAIL = sa.insert(tail)
_TAIL = sa.select(tail.c.data).where(tail.c.transfer_id == _p("id")).order_by(tail.c.number)
_DROP_TAIL = sa.delete(tail).where(tail.c.transfer_id == _p("id"))
_DROP = (
    sa.delete(transfer)
    .where(transfer.c.id == _p("p_id"), transfer.c.change == _p("p_change"))
    .returning(transfer.c.id)
)
_REGISTER = sa.insert(part)
_RECORD_PART = (
    sa.update(part)
    .where(part.c.key == _p("p_key"), part.c.number.is_(None))
    .values({name: _p(f"p_{name}") for name in ("transfer_id", *Part._fields[1:])})
)
_STAGE = (
    sa.update(transfer)
    .where(transfer.c.id == _p("p_id"), transfer.c.change == _p("p_change"))
    .values(
        parts=transfer.c.parts + 1,
        staged=_p("p_staged"),
        change=transfer.c.change + 1,
    )
)
_PARTS = (
    sa.select(*(part.c[name] for name in Part._fields))
    .where(part.c.transfer_id == _p("id"), part.c.number.is_not(None))
    .order_by(part.c.number)
)
_INTEND = (
    sa.update(transfer)
    .where(transfer.c.id == _p("p_id"), transfer.c.change == _p("p_change"))
    .values({f"publish_{name}": _p(f"p_{name}") for name in Stored._fields})
    .values(publish_upload=_p("p_upload"), change=transfer.c.change + 1)
)
_WITHDRAW = (
    sa.update(transfer)
    .where(transfer.c.id == _p("p_id"), transfer.c.publish_token == _p("p_token"))
    .values({f"publish_{name}": None for name in (*Stored._fields, "upload")})
    .values(change=transfer.c.change + 1)
)
_COMPLETIONS = (
    sa.select(*(completion.c[name] for name in Completion._fields))
    .where(completion.c.file_id == _p("file_id"))
    .order_by(completion.c.id.desc())
)
_LATEST_AT = sa.select(sa.func.max(completion.c.id)).where(completion.c.path == _p("path"))
_NEWEST = sa.select(sa.func.max(completion.c.id)).where(completion.c.file_id == _p("file_id"))
_COMPLETE = sa.insert(completion)
_EVENT = sa.insert(event)
_ENDED = (
    sa.select(event.c.kind, event.c.segments)
    .where(event.c.transfer_id == _p("id"))
    .order_by(event.c.id.desc())
    .limit(1)
)
_LIST = (
    _transfers()
    .where(
        transfer.c.file_id.startswith(_p("prefix"), autoescape=False),
        transfer.c.segments > 0,
    )
    .order_by(transfer.c.id)
)
_COUNT = sa.select(sa.func.count()).where(transfer.c.segments > 0)
_AGE = sa.extract("epoch", sa.func.now() - sa.func.min(transfer.c.created_at))
_TOTALS = sa.select(
    sa.func.count(),
    sa.func.coalesce(sa.func.sum(transfer.c.offset), 0),
    sa.func.coalesce(_AGE, 0),
).where(transfer.c.segments > 0)
_BYTES = sa.select(sa.func.coalesce(sa.func.sum(transfer.c.offset), 0))
_IDENTITY = sa.select(store.c.store_id, store.c.storage, store.c.conditional)
_MAKE_STORE = insert(store).on_conflict_do_nothing()


# --- which store it is ---------------------------------------------------------------------------


def identity(at: Transaction) -> tuple[str, str, bool] | None:
    """The store's id, its storage, and whether PUT keeps conditions; ``None``: not made yet."""
    row: Any = at.run(_IDENTITY).first()
    return None if row is None else (row[0], row[1], bool(row[2]))


def make_identity(at: Transaction, store_id: str, storage: str, *, conditional: bool) -> None:
    """Say whose journal this is, unless somebody just did."""
    values = {"store_id": store_id, "storage": storage, "conditional": int(conditional)}
    at.run(_MAKE_STORE, {"id": 1, **values})


# --- transfers -----------------------------------------------------------------------------------


def find(at: Transaction, file_id: str) -> Transfer | None:
    """The row of an open transfer."""
    return _transfer(at.run(_FIND, {"file_id": file_id}).first())


def lock(at: Transaction, file_id: str) -> Transfer | None:
    """The same, and nobody else changes it before this transaction ends."""
    return _transfer(at.run(_LOCK, {"file_id": file_id}).first())


def by_id(at: Transaction, key: int) -> Transfer | None:
    """The row with a key."""
    return _transfer(at.run(_BY_ID, {"id": key}).first())


def by_path(at: Transaction, path: str) -> Transfer | None:
    """The row with an intent to publish under a name."""
    return _transfer(at.run(_BY_PATH, {"path": path}).first())


def _transfer(row: Any) -> Transfer | None:
    return None if row is None else Transfer._make(row)


def begin(at: Transaction, file_id: str, progress: Progress) -> int | None:
    """Open a transfer; its key.  ``None``: one with the id is open."""
    values = {"p_file_id": file_id, "p_change": 0, "p_parts": 0, "p_staged": 0}
    found = at.run(_BEGIN, {**values, **_values(progress)}).scalar()
    return None if found is None else int(found)


def advance(at: Transaction, row: Transfer, progress: Progress) -> bool:
    """Move a transfer on; ``False``: somebody changed it."""
    values = {"p_id": row.id, "p_change": row.change, **_values(progress)}
    return at.run(_ADVANCE, values).rowcount == 1


def append(at: Transaction, row: Transfer, progress: Progress, data: bytes) -> bool:
    """Move a transfer on, its segment's bytes in its tail; ``False``: somebody changed it."""
    if not data:
        return advance(at, row, progress)
    values = {"p_id": row.id, "p_change": row.change, **_values(progress)}
    more = {"p_number": progress.segments, "p_data": data}
    return at.run(_APPEND, {**values, **more}).scalar() is not None


def touch(at: Transaction, row: Transfer) -> None:
    """A transfer was worked on, though nothing new came."""
    at.run(_TOUCH, {"p_id": row.id})


def drop(at: Transaction, row: Transfer) -> bool:
    """Remove a transfer and its tail; ``False``: somebody changed it.  Its parts are nobody's."""
    if at.run(_DROP, {"p_id": row.id, "p_change": row.change}).scalar() is None:
        return False
    at.run(_DROP_TAIL, {"id": row.id})
    return True


def _values(columns: Any) -> dict[str, Any]:
    return {f"p_{name}": value for name, value in columns._asdict().items()}


def add_tail(at: Transaction, key: int, number: int, data: bytes) -> None:
    """Keep a segment's bytes."""
    at.run(_ADD_TAIL, {"transfer_id": key, "number": number, "data": data})


def read_tail(at: Transaction, row: Transfer) -> bytes:
    """All bytes that are in no part."""
    return b"".join(at.run(_TAIL, {"id": row.id}).scalars())


def transfers(at: Transaction, prefix: str) -> list[Transfer]:
    """The open transfers whose ids begin with a text, oldest first."""
    escaped = prefix.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return [Transfer._make(row) for row in at.run(_LIST, {"prefix": escaped})]


def count(at: Transaction) -> int:
    """How many transfers are open."""
    return int(at.run(_COUNT).scalar_one())


def totals(at: Transaction) -> tuple[int, int, float]:
    """How many transfers are open, their bytes, and the age of the oldest in seconds."""
    found: tuple[Any, ...] = tuple(at.run(_TOTALS).one())
    number, size, age = found
    return number, int(size), max(float(age), 0.0)


def usage(at: Transaction, quota: Quota) -> Usage:
    """What they have together; bytes only where these are bounded."""
    size = int(at.run(_BYTES).scalar_one()) if quota.max_bytes is not None else 0
    return Usage(count(at), size)


# --- parts ---------------------------------------------------------------------------------------


def register(at: Transaction, key: str) -> None:
    """An object is about to be made."""
    at.run(_REGISTER, {"key": key})


def record_part(at: Transaction, key: int, made: Part) -> bool:
    """An object is a transfer's next part; ``False``: it was removed meanwhile."""
    return at.run(_RECORD_PART, {"p_transfer_id": key, **_values(made)}).rowcount == 1


def stage(at: Transaction, row: Transfer, staged: int) -> bool:
    """So many bytes of a transfer are in parts, and none is in its tail; ``False``: somebody
    changed it."""
    values = {"p_id": row.id, "p_change": row.change, "p_staged": staged}
    if at.run(_STAGE, values).rowcount != 1:
        return False
    at.run(_DROP_TAIL, {"id": row.id})
    return True


def parts(at: Transaction, key: int) -> list[Part]:
    """The parts of a transfer, in order."""
    return [Part._make(row) for row in at.run(_PARTS, {"id": key})]


# --- ends ----------------------------------------------------------------------------------------


def intend(at: Transaction, row: Transfer, stored: Stored, upload: str) -> bool:
    """Record the intent to publish; ``False``: somebody changed the transfer."""
    values = {"p_id": row.id, "p_change": row.change, "p_upload": upload, **_values(stored)}
    return at.run(_INTEND, values).rowcount == 1


def withdraw(at: Transaction, row: Transfer) -> None:
    """Take an intent back.  What was none before it is none again."""
    if row.segments == 0:
        drop(at, row)
    else:
        at.run(_WITHDRAW, {"p_id": row.id, "p_token": row.publish_token})


def complete(
    at: Transaction, file_id: str, segments: int, stored: Stored, row: Transfer | None
) -> None:
    """A file was stored: its completion, and its event."""
    created = row.created_at if row is not None else _NOW
    facts = {"path": stored.path, "size": stored.size, "sha256": stored.sha256}
    same = {"file_id": file_id, "segments": segments, **facts}
    at.run(_COMPLETE.values(created_at=created, last=stored.last, token=stored.token, **same))
    at.run(
        _EVENT.values(
            kind="stored",
            transfer_id=None if row is None else row.id,
            sender=stored.sender,
            created_at=created,
            **same,
        )
    )


def dropped(at: Transaction, kind: Kind, row: Transfer, sender: str | None = None) -> None:
    """The event of a transfer that was not finished."""
    at.run(
        _EVENT,
        {
            "kind": kind,
            "transfer_id": row.id,
            "file_id": row.file_id,
            "segments": row.segments,
            "size": row.offset,
            "sender": sender,
            "created_at": row.created_at,
        },
    )


def ended(at: Transaction, key: int) -> tuple[str, int] | None:
    """How a transfer ended, and with how many segments; ``None``: without an event."""
    row: Any = at.run(_ENDED, {"id": key}).first()
    return None if row is None else (row[0], row[1])


def completions(at: Transaction, file_id: str) -> list[Completion]:
    """Last messages with an id that were carried out, latest first."""
    return [Completion._make(row) for row in at.run(_COMPLETIONS, {"file_id": file_id})]


def newest(at: Transaction, file_id: str) -> int:
    """The newest completion with an id; 0: there is none."""
    return int(at.run(_NEWEST, {"file_id": file_id}).scalar() or 0)


def latest_at(at: Transaction, path: str) -> int | None:
    """The newest completion under a name."""
    found = at.run(_LATEST_AT, {"path": path}).scalar()
    return None if found is None else int(found)


def forget_parts(at: Transaction, keys: list[str]) -> None:
    """Objects are gone."""
    at.run(sa.delete(part).where(part.c.key.in_(keys)))
