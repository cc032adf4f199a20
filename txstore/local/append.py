"""The segments of a transfer but the last: staged, recorded, made durable as the level says.

``docs/design.md`` lists the state after a crash between any two steps.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from txstore.errors import JournalError, LimitError
from txstore.local.clock import Call
from txstore.local.files.machine import NO_SPACE
from txstore.local.files.staged import StagedFile
from txstore.local.files.staging import Staging
from txstore.local.journal.records import Records
from txstore.local.journal.rows import Transfer
from txstore.local.transfers import Transfers
from txstore.options import Durability
from txstore.protocol.admission import Quota
from txstore.protocol.request import SegmentRequest

#: At level "file" no more than this many bytes are recorded without being durable.
_DURABLE_POINT = 64 * 1024 * 1024
#: At level "file" the device begins to write each time this many bytes came, so that the last
#: segment does not wait for all of them.
_EARLY = 1024 * 1024
#: Bytes of a segment up to which its flush costs more where the file grows than where it does not.
_SMALL = 64 * 1024


class Appender:
    """Takes segments for one manager; the transfer's lock is held.  Thread-safe."""

    def __init__(
        self,
        staging: Staging,
        records: Records,
        transfers: Transfers,
        durability: Durability,
    ) -> None:
        self._staging, self._records, self._transfers = staging, records, transfers
        self._level = durability

    def will_flush(self, row: Transfer, request: SegmentRequest) -> bool:
        """Whether taking a segment will make staged bytes durable."""
        # After a failed flush nobody else would write these bytes again.
        if row.doubted:
            return True
        if request.store is not None:
            return self._level.keeps_files or row.durable_segments > 0
        return self._level.keeps_segments or self._is_too_much(row, len(request.payload))

    def _is_too_much(self, row: Transfer, more: int) -> bool:
        """Whether too many bytes would be at stake with some more."""
        at_stake = row.offset + more - row.durable_offset
        return self._level.keeps_files and at_stake >= _DURABLE_POINT

    def begin(self, request: SegmentRequest, quota: Quota | None, call: Call) -> None:
        """The first of several segments opens a transfer.

        :raises LimitError: others took the last place meanwhile
        """
        with self._staging.create(request.file_id, like=request.like) as staged:
            try:
                staged.write(0, request.payload)
                if self._level.keeps_segments:
                    staged.start_flush()
                hasher = staged.hasher_new()
                hasher.update(request.payload)
                row = Transfer.begun(
                    request.file_id,
                    staged.name,
                    staged.inode,
                    len(request.payload),
                    hasher.save(),
                    call.at,
                    said_path=None if request.path is None else os.fsencode(request.path),
                    said_size=request.size,
                )
                durable = self.will_flush(row.at_durable_point(), request)
                if durable:
                    staged.flush()
                    self._staging.flush_folder(staged.name)
                    row = row.made_durable()
                self._staging.check_in_place(staged)
            except BaseException:
                self._staging.remove(staged.name)
                raise
            self._transfers.begin(row, quota, call)
            if durable:
                self._records.flush(call)
            staged.row, staged.turn = row, call.turn

    def append(
        self,
        row: Transfer,
        staged: StagedFile,
        request: SegmentRequest,
        quota: Quota | None,
        call: Call,
    ) -> None:
        """The next segment: its bytes, then one commit that moves the row.

        :raises LimitError: others took the last place meanwhile
        """
        durably = self.will_flush(row, request)
        hasher, size = staged.hasher_at(row), len(request.payload)
        if durably:
            staged.write(row.offset, request.payload)
            if size <= _SMALL and staged.row is row:
                # It was in hand: workers that take turns would cut each other's.
                staged.write_ahead(row.offset + size)
            staged.start_flush()  # the device writes while the processor hashes
            hasher.update(request.payload)
        else:
            # The other way round: what was hashed is copied from the processor's cache.
            hasher.update(request.payload)
            staged.write(row.offset, request.payload)
            if self._level.keeps_files and (row.offset + size) // _EARLY > row.offset // _EARLY:
                staged.start_flush()
        state = hasher.save()
        if not staged.is_in_place():
            raise self._staging.misplaced(staged)

        def record() -> Transfer:
            while True:
                new = self._records.advance(row, size, state, quota, call, durable=durably)
                if new is not None:
                    return new
                self._transfers.find_out(row, quota, call)

        try:
            if durably:
                self._record_durably(row, staged, record, call)
            else:
                staged.row = record()
        except LimitError:
            staged.cut(row.offset)  # what is refused holds no space
            raise

    @staticmethod
    def is_same(row: Transfer, staged: StagedFile, request: SegmentRequest) -> bool:
        """Whether the last recorded segment has the bytes of a request."""
        return (
            row.last_size == len(request.payload)
            and staged.read(row.offset - row.last_size, row.last_size) == request.payload
        )

    def repeat(self, row: Transfer, staged: StagedFile, call: Call) -> None:
        """The last recorded segment again: its answer was lost, or is asked for a second time."""
        self._staging.check_in_place(staged)
        # Who recorded it may have died before its flush, or have had a lower level.
        if not row.durable and (self._level.keeps_segments or self._is_too_much(row, 0)):
            durable = row.touched(call.at).made_durable()
            self._record_durably(
                row, staged, lambda: self._transfers.save(row, durable, call), call
            )
            return
        # A transfer that is answered is worked on, though nothing new comes; recorded each time,
        # since whoever drops it may have a much shorter ``expire_after`` than this manager.
        active = row.stamped(call.at)
        try:
            self._transfers.save(row, active, call)
            staged.row = active
        except JournalError as error:
            # A repeat brings nothing that needs space; it is answered on a full disk, too.
            if error.errno not in NO_SPACE:
                raise
            staged.row = None
        if row.durable and self._level.keeps_files:
            self._records.flush(call)
        else:
            self._records.check_in_place(call)

    def _record_durably(
        self, old: Transfer, staged: StagedFile, record: Callable[[], Transfer], call: Call
    ) -> None:
        """Flush the staged bytes, then record the row, then flush that: never the row first.

        :param record: has the new row recorded, and answers it
        """
        try:
            staged.flush()
        except OSError:
            self._transfers.doubt(old, call)
            raise
        if old.durable_segments == 0:
            self._staging.flush_folder(staged.name)
        staged.row = record()
        self._records.flush(call)
