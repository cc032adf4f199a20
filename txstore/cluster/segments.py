"""The segments but the last: one transaction each, bytes and progress together."""

from __future__ import annotations

import sqlalchemy as sa

from txstore.cluster import records
from txstore.cluster.journal import Journal, Transaction
from txstore.cluster.parts import Parts
from txstore.cluster.records import Transfer
from txstore.cluster.retry import ChangedError
from txstore.deadline import Deadline
from txstore.limits import Limits
from txstore.options import Durability
from txstore.protocol.admission import Quota
from txstore.protocol.request import SegmentRequest
from txstore.protocol.rules import Fact, Known, Refusal, Step, decide


class Appender:
    """Takes segments for one engine.  Thread-safe."""

    def __init__(self, journal: Journal, parts: Parts, limits: Limits, level: Durability) -> None:
        self._journal, self._parts, self._limits = journal, parts, limits
        self._lazily = not level.keeps_segments

    def take(self, request: SegmentRequest, deadline: Deadline) -> None:
        """Take a segment.

        :raises RequestError: it is refused
        :raises ChangedError: somebody changed the transfer meanwhile
        """
        if len(request.payload) >= self._parts.size(None):
            self._take_large(request, deadline)
            return
        while (full := self._take(request, deadline)) is not None:
            # Before the tail grows: so it is bounded where the object store takes nothing.
            self._parts.flush(full, deadline)

    def _take(self, request: SegmentRequest, deadline: Deadline) -> Transfer | None:
        """Take a segment, unless its transfer's tail has to become a part before: that is the
        answer then."""
        with self._journal.transaction(deadline, lazily=self._lazily) as at:
            row = records.lock(at, request.file_id)
            _check_settled(row)
            step = self._decide(at, request, row, deadline)
            if step is Step.ACKNOWLEDGE:
                assert row is not None
                records.touch(at, row)
            elif row is not None and self._parts.is_due(row):
                return row
            else:
                self._append(at, request, row, deadline)
        return None

    def _append(
        self, at: Transaction, request: SegmentRequest, row: Transfer | None, deadline: Deadline
    ) -> None:
        progress = self._parts.progress(row, request.payload, deadline)
        if row is not None:
            if not records.append(at, row, progress, request.payload):
                raise ChangedError
            return
        key = records.begin(at, request.file_id, progress)
        if key is None:
            raise ChangedError
        if request.payload:
            records.add_tail(at, key, request.number, request.payload)

    def _take_large(self, request: SegmentRequest, deadline: Deadline) -> None:
        """A segment that is a part of its own, with the tail before it: its bytes go to the object
        store first, while nobody waits."""
        with self._journal.transaction(deadline) as at:
            row = records.find(at, request.file_id)
            _check_settled(row)
            step = self._decide(at, request, row, deadline)
            if step is Step.ACKNOWLEDGE:
                assert row is not None
                records.touch(at, row)
                return
        made = self._parts.make(row, request.payload, Deadline(deadline.timeout))
        progress = self._parts.progress(row, request.payload, deadline)
        with self._journal.transaction(deadline, lazily=self._lazily) as at:
            current = records.lock(at, request.file_id)
            if (current and current[:3]) != (row and row[:3]):
                raise ChangedError
            self._decide(at, request, current, deadline)
            if row is None:
                key = records.begin(at, request.file_id, progress)
            else:
                key = row.id if records.advance(at, row, progress) else None
            new = None if key is None else records.by_id(at, key)
            if new is None:
                raise ChangedError
            self._parts.record(at, new, made)

    def _decide(
        self, at: Transaction, request: SegmentRequest, row: Transfer | None, deadline: Deadline
    ) -> Step:
        """Ask the rules.

        :raises RequestError: they refuse
        """
        known = Known(row.segments, row.offset) if row is not None else Known(0)
        quota = Quota.of(self._limits, request, known.segments)
        if quota is not None and request.number == known.segments + 1:
            # Until this transaction ends nobody else takes a place.
            key = self._journal.key("quota", "")
            at.run(sa.select(sa.func.pg_advisory_xact_lock(key)))
        while isinstance(step := decide(request, known, self._limits), Fact):
            if step is Fact.SAME:
                assert row is not None
                known = known._replace(same=self._parts.is_same(row, request.payload, deadline))
            else:
                assert step is Fact.USAGE
                assert quota is not None
                known = known._replace(usage=records.usage(at, quota))
        if isinstance(step, Refusal):
            raise step.error
        return step


def _check_settled(row: Transfer | None) -> None:
    """:raises UnsettledError: it is being published, or a worker died there"""
    if row is not None and row.publish_token is not None:
        raise UnsettledError(row)


class UnsettledError(Exception):
    """A transfer has an intent that has to be settled first.

    :ivar row: the transfer
    """

    def __init__(self, row: Transfer) -> None:
        super().__init__(row.file_id)
        self.row = row
