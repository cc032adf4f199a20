"""What the journal is asked and told: the few statements, as methods.

Every method may raise what ``Journal.read`` and ``Journal.write`` raise.  Nothing is durable
before ``flush``.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import sqlalchemy as sa

from txstore.deadline import Deadline
from txstore.errors import JournalDamagedError
from txstore.local.clock import Call, Cutoff, Moment
from txstore.local.journal import quotas
from txstore.local.journal.aging import Range, is_ahead, is_over, values_of
from txstore.local.journal.journal import Journal, Write
from txstore.local.journal.rows import Completion, Event, Transfer
from txstore.local.journal.schema import (
    completion,
    consumer,
    event,
    store,
    transfer,
    version,
)
from txstore.local.journal.sqlite import IS_OURS, Row, Statement, check_version
from txstore.local.journal.sqlite import parameter as _p
from txstore.protocol.admission import Quota, Usage


def _columns(table: sa.Table, names: tuple[str, ...]) -> list[sa.Column[object]]:
    return [table.c[name] for name in names]


_TRANSFER = sa.select(*_columns(transfer, Transfer._fields))
_COMPLETION = sa.select(completion.c.id, *_columns(completion, Completion._fields))


# Brings the journal's revision along, also where there is no such transfer: whatever is written
# after it, a newer worker may have upgraded the journal before.
_FIND = Statement(
    sa.select(version.c.version_num, *_columns(transfer, Transfer._fields)).select_from(
        version.outerjoin(transfer, transfer.c.file_id == _p("file_id"))
    )
)
_BY_STAGING = Statement(_TRANSFER.where(transfer.c.staging == _p("staging")))
_BY_PLACE = Statement(_TRANSFER.where(transfer.c.publish_place == _p("place")))
_INTENTS = Statement(_TRANSFER.where(transfer.c.publish_place.is_not(None)).limit(_p("limit")))
#: Not a file in one segment whose publishing is recorded.
_BEGUN = transfer.c.segments > 0
_LIST = Statement(_TRANSFER.where(_BEGUN).order_by(transfer.c.id))
_LIST_SOME = Statement(
    _TRANSFER.where(
        transfer.c.file_id >= _p("first"), transfer.c.file_id <= _p("last"), _BEGUN
    ).order_by(transfer.c.id)
)
#: No id, which has 255 characters at most, comes after it: SQLite compares characters' numbers.
_LAST_ID = chr(sys.maxunicode) * 255
_COUNT = Statement(sa.select(quotas.TRANSFERS))
_TOTALS = Statement(
    sa.select(
        sa.func.count(),
        sa.func.coalesce(sa.func.sum(transfer.c.offset), sa.literal_column("0")),
        sa.func.min(transfer.c.created_at),
    )
    .select_from(transfer)
    .where(_BEGUN)
)
_STAGINGS = Statement(sa.select(transfer.c.staging))


_TRANSFERS = Range(transfer)
_OVERDUE = Statement(
    sa.select(transfer.c.id, *_columns(transfer, Transfer._fields))
    .where(_TRANSFERS.clause, is_over(transfer, "updated_at") | is_ahead(transfer, "updated_at"))
    .order_by(transfer.c.id)
    .limit(_p("limit"))
)
_INSERT = Statement(sa.insert(transfer).values({n: sa.bindparam(n) for n in Transfer._fields}))
# Row keys are used again by SQLite, also after the journal went back; the staging file's name is
# random, so it and the count of changes name exactly one version of one transfer.
_THE_VERSION = sa.and_(
    transfer.c.staging == _p("staging"), transfer.c.change == _p("change"), IS_OURS
)


def _update(names: tuple[str, ...], *more: sa.ColumnElement[bool]) -> Statement:
    """The UPDATE that sets these columns; then come the staging file and the change before.

    :param more: conditions
    """
    columns: list[tuple[sa.Column[Any], Any]] = [
        (transfer.c[name], sa.bindparam(name)) for name in names
    ]
    clause = sa.update(transfer).ordered_values(*columns).where(_THE_VERSION, *more)
    return Statement(clause, in_order=True)


# Nearly every update is one of progress alone.
_FIRST, _END = Transfer._fields.index("change"), Transfer._fields.index("publish_path")
_POINT, _SETBACKS = map(Transfer._fields.index, ("durable_segments", "setbacks"))
_PROGRESS = Transfer._fields[_FIRST:_END]
_ADVANCE, _REPLACE = _update(_PROGRESS), _update(Transfer._fields)
_ADVANCE_WITHIN = _update(_PROGRESS, quotas.HAS_BYTES)
_DELETE = Statement(sa.delete(transfer).where(_THE_VERSION))

_COMPLETED = Statement(
    _COMPLETION.where(completion.c.file_id == _p("file_id")).order_by(completion.c.id.desc())
)
_COMPLETE = Statement(
    sa.insert(completion).values({n: sa.bindparam(n) for n in (*Completion._fields, "catalogued")})
)
_PUBLISHED = Statement(
    _COMPLETION.where(completion.c.place == _p("place")).order_by(completion.c.id.desc()).limit(1)
)
_MARK_DURABLE = Statement(
    sa.update(completion).where(completion.c.id == _p("id")).values(durable=1)
)
_RECORD_EVENT = Statement(sa.insert(event).values({n: sa.bindparam(n) for n in Event._fields}))
_A_CONSUMER = Statement(sa.select(consumer.c.id).limit(1))
_FORGET_COMPLETED = Statement(sa.delete(completion).where(completion.c.id == _p("id")))

_STORE = Statement(
    sa.select(store.c.store_id, store.c.storage_dir, store.c.boot, store.c.boot_ticks)
)
_SEE_BOOT = Statement(
    sa.update(store).values(boot=sa.bindparam("boot"), boot_ticks=sa.bindparam("boot_ticks"))
)


class Records:
    """The journal's content.  Thread-safe, as ``Journal`` is.

    :ivar is_new: whether it was made for this manager, so that nobody left anything in it before
    :ivar catalogues: whether what it completes is to be in the catalogue
    """

    def __init__(self, journal: Journal, *, is_new: bool = False) -> None:
        self.journal, self.is_new = journal, is_new
        self.catalogues = True

    def flush(self, deadline: Deadline) -> None:
        """Make all that was recorded durable."""
        self.journal.flush(deadline)

    def check_in_place(self, deadline: Deadline) -> None:
        """Check, before an answer that records nothing, that the journal is still in place."""
        self.journal.check_in_place(deadline)

    # --- transfers ---------------------------------------------------------------------------

    def find(self, file_id: str, deadline: Deadline) -> Transfer | None:
        """The unfinished transfer of an id.

        :raises JournalVersionError: a newer txstore upgraded the journal meanwhile
        """
        rows = self.journal.read(_FIND, {"p_file_id": file_id}, deadline)
        check_version(self.journal.path, [row[:1] for row in rows])
        row = rows[0]
        return Transfer._make(row[1:]) if row[1] is not None else None

    def by_staging(self, staging: str, deadline: Deadline) -> Transfer | None:
        return self._one(_BY_STAGING, {"p_staging": staging}, deadline)

    def by_place(self, place: bytes, deadline: Deadline) -> list[Transfer]:
        """The transfers that intend to publish at a place."""
        return self._all(_BY_PLACE, {"p_place": place}, deadline)

    def intents(self, limit: int, deadline: Deadline) -> list[Transfer]:
        """Some of the transfers that intend to publish."""
        return self._all(_INTENTS, {"p_limit": limit}, deadline)

    def transfers(self, prefix: str, deadline: Deadline) -> list[Transfer]:
        """The unfinished transfers whose id begins with a text, oldest first."""
        if not prefix:
            return self._all(_LIST, {}, deadline)
        values: dict[str, object] = {"p_first": prefix, "p_last": prefix + _LAST_ID}
        return self._all(_LIST_SOME, values, deadline)

    def count(self, deadline: Deadline) -> int:
        """How many unfinished transfers there are."""
        [(count,)] = self.journal.read(_COUNT, {}, deadline)
        return int(count)

    def totals(self, deadline: Deadline) -> tuple[int, int, float | None]:
        """How many unfinished transfers there are, their bytes, and when the oldest was begun."""
        [(count, size, oldest)] = self.journal.read(_TOTALS, {}, deadline)
        return count, size, oldest

    def overdue(
        self, over: Cutoff, at: Moment, after: int, among: int, limit: int, deadline: Deadline
    ) -> tuple[list[Transfer], int]:
        """Some of the transfers whose time has passed, or that seem to be of the future.

        :param after: where the last slice ended; 0: at the beginning
        :param among: how many rows are looked at
        :param limit: how many are answered at most
        :return: with where the next slice goes on; 0: all were looked at
        """
        end, following = _TRANSFERS.end(self.journal, after, among, deadline)
        values = {
            **values_of(over),
            "p_now": at.wall,
            "p_after": after,
            "p_to": end,
            "p_limit": limit,
        }
        rows = self.journal.read(_OVERDUE, values, deadline)
        found = [Transfer(*row[1:]) for row in rows]
        return found, rows[-1][0] if len(rows) == limit else following

    def stagings(self, deadline: Deadline) -> set[str]:
        """The names of all staging files that belong to a transfer."""
        return {name for (name,) in self.journal.read(_STAGINGS, {}, deadline)}

    def usage(self, quota: Quota, deadline: Deadline) -> Usage:
        """What all unfinished transfers have together, as far as a quota bounds it."""
        [(transfers, size)] = self.journal.read(quotas.USAGE, quotas.values_of(quota), deadline)
        return Usage(transfers, size or 0)

    def insert(self, row: Transfer, deadline: Deadline, quota: Quota | None = None) -> bool:
        """Record a new transfer.

        :return: ``False`` where the quota has no place for it: then nothing was written
        """
        if quota is None:
            return self.journal.write(deadline, Write(_INSERT, row._asdict()))
        values = {**row._asdict(), **quotas.values_of(quota)}
        return self.journal.write(deadline, Write(quotas.INSERT, values, guarded=True))

    def advance(
        self,
        old: Transfer,
        size: int,
        state: bytes | None,
        quota: Quota | None,
        call: Call,
        *,
        durable: bool,
    ) -> Transfer | None:
        """Record one more segment, staged now, if the row is still the one that was read.

        :param size: bytes that the segment has
        :param state: of the hash with it, where that can be saved
        :param durable: whether its bytes, and all before, were flushed
        :return: the new row; ``None`` where another worker changed the old one, or the quota has
            no place: then nothing was written
        """
        segments, offset, state = old.segments + 1, old.offset + size, state or old.state
        point = (segments, offset, size, state) if durable else old[_POINT:_SETBACKS]
        taken = (old.change + 1, segments, offset, size, state, *call.at, call.at.boot)
        changed = (*taken, *point, old.setbacks, 0)
        update: Statement = _ADVANCE
        values: tuple[object, ...] = (*changed, old.staging, old.change)
        if quota is not None:
            bounds = quotas.values_of(quota)
            update, values = _ADVANCE_WITHIN, (*values, bounds["p_more"], bounds["p_max_bytes"])
        if not self.journal.write(call, Write(update, values, guarded=True)):
            return None
        return Transfer._make((*old[:_FIRST], *changed, *old[_END:]))

    def save(self, old: Transfer, new: Transfer, deadline: Deadline) -> bool:
        """Replace a row, if it is still the one that was read.

        :return: ``False`` where another worker changed it: then nothing was written
        """
        update, changed = _REPLACE, tuple(new)
        if old[:_FIRST] == new[:_FIRST] and old[_END:] == new[_END:]:
            update, changed = _ADVANCE, new[_FIRST:_END]
        values = (*changed, old.staging, old.change)
        withdraws = old.publish_place is not None and new.publish_place is None
        return self.journal.write(deadline, Write(update, values, guarded=True), frees=withdraws)

    def delete(self, row: Transfer, deadline: Deadline, event: Event | None = None) -> bool:
        """Remove a row, if it is still the one that was read.

        :param event: recorded in the same transaction
        """
        writes = [self._deletion(row)]
        if event is not None:
            writes.append(Write(_RECORD_EVENT, event._asdict()))
        return self.journal.write(deadline, *writes, frees=True)

    @staticmethod
    def _deletion(row: Transfer) -> Write:
        return Write(_DELETE, {"p_staging": row.staging, "p_change": row.change}, guarded=True)

    def _one(
        self, statement: Statement, values: dict[str, object], deadline: Deadline
    ) -> Transfer | None:
        rows = self.journal.read(statement, values, deadline)
        return Transfer._make(rows[0]) if rows else None

    def _all(
        self, statement: Statement, values: dict[str, object], deadline: Deadline
    ) -> list[Transfer]:
        return [Transfer(*row) for row in self.journal.read(statement, values, deadline)]

    # --- completions -------------------------------------------------------------------------

    def complete(
        self, done: Completion, row: Transfer | None, sender: str | None, deadline: Deadline
    ) -> bool:
        """Record a published file and, in the same transaction, that its transfer is over, and the
        event that tells so.

        :param sender: who sent its last message
        """
        writes = [self._deletion(row)] if row is not None else []
        writes.append(Write(_COMPLETE, {**done._asdict(), "catalogued": self.catalogues}))
        writes.append(Write(_RECORD_EVENT, Event.stored(done, sender)._asdict()))
        return self.journal.write(deadline, *writes)

    def has_consumers(self, deadline: Deadline) -> bool:
        """Whether anybody wants to see every event."""
        return bool(self.journal.read(_A_CONSUMER, {}, deadline))

    def completions(self, file_id: str, deadline: Deadline) -> list[tuple[int, Completion]]:
        """The finished transfers of an id, latest first, with their row keys."""
        return self._completions(_COMPLETED, {"p_file_id": file_id}, deadline)

    def latest_at(self, place: bytes, deadline: Deadline) -> tuple[int, Completion] | None:
        """What was published last at a place, as far as it is remembered, with its row key."""
        found = self._completions(_PUBLISHED, {"p_place": place}, deadline)
        return found[0] if found else None

    def mark_durable(self, key: int, deadline: Deadline) -> None:
        """Note that a completion's file and name have been flushed."""
        self.journal.write(deadline, Write(_MARK_DURABLE, {"p_id": key}))

    def forget_completion(self, key: int, deadline: Deadline) -> None:
        self.journal.write(deadline, Write(_FORGET_COMPLETED, {"p_id": key}), frees=True)

    def _completions(
        self, statement: Statement, values: dict[str, object], deadline: Deadline
    ) -> list[tuple[int, Completion]]:
        rows: list[Row] = self.journal.read(statement, values, deadline)
        return [(row[0], Completion(*row[1:])) for row in rows]

    # --- the store itself --------------------------------------------------------------------

    def make_reserve(self, deadline: Deadline) -> None:
        """Keep what a full disk needs, as far as there is space for it."""
        self.journal.make_ready(deadline)

    def close(self) -> None:
        """Let go of the journal."""
        self.journal.close()

    def abandon(self) -> None:
        """Let go of the journal without waiting for anybody."""
        self.journal.abandon()

    def identity(self, deadline: Deadline) -> tuple[str, str]:
        """The store's id, and its storage dir relative to its working dir."""
        store_id, storage_dir, _boot, _ticks = self._store_row(deadline)
        return store_id, os.fsdecode(storage_dir)

    def boot_seen(self, at: Moment, deadline: Deadline) -> float:
        """Ticks at which this boot first saw the store; noted now if it did not yet."""
        _store_id, _storage_dir, boot, ticks = self._store_row(deadline)
        if boot == at.boot and ticks <= at.ticks:
            return float(ticks)
        self.journal.write(deadline, Write(_SEE_BOOT, {"boot": at.boot, "boot_ticks": at.ticks}))
        return at.ticks

    def _store_row(self, deadline: Deadline) -> tuple[str, str | bytes, str, float]:
        rows = self.journal.read(_STORE, {}, deadline)
        if len(rows) != 1:
            raise JournalDamagedError(self.journal.path, "its store's row is missing")
        store_id, storage_dir, boot, ticks = rows[0]
        return store_id, storage_dir, boot, ticks
