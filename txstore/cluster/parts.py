"""The bytes of unfinished transfers: parts in the object store, and the tail in the journal.

A part is an object of its own under a random key.  Its row is there before it is, and it is a part
only once a transaction says so.  So what a worker left that died, or that comes back after a long
time, is nobody's and is removed.
"""

from __future__ import annotations

import hashlib
import logging
import uuid

from txstore import digest
from txstore.cluster import records
from txstore.cluster.journal import Journal, Transaction
from txstore.cluster.objects import STAGING, Objects
from txstore.cluster.records import Part, Progress, Transfer
from txstore.cluster.retry import ChangedError, TransientError, pass_on
from txstore.deadline import Deadline
from txstore.digest import Hasher
from txstore.errors import StagingDamagedError, TxStoreError

logger = logging.getLogger(__name__)

#: After so many parts the next ones are larger, since an object cannot have more than 10,000.
_LARGER_AFTER = 1000


class Parts:
    """Bytes of transfers, for one engine.  Thread-safe."""

    def __init__(self, journal: Journal, objects: Objects, part_size: int) -> None:
        self._journal, self._objects, self._size = journal, objects, part_size

    def size(self, row: Transfer | None) -> int:
        """How many bytes the next part of a transfer has at least."""
        return self._size * (1 + (row.parts if row else 0) // _LARGER_AFTER)

    def is_due(self, row: Transfer) -> bool:
        """Whether the tail is to become a part before it grows."""
        return row.tail >= self.size(row)

    def make(self, row: Transfer | None, more: bytes, deadline: Deadline) -> Part:
        """Make an object of a transfer's tail and more bytes.  It is no part yet.

        :raises ChangedError: the tail is another one meanwhile
        """
        key = f"{STAGING}{uuid.uuid4().hex}"
        with self._journal.transaction(deadline) as at:
            records.register(at, key)
            data = records.read_tail(at, row) + more if row is not None and row.tail else more
        if row is not None and len(data) != row.tail + len(more):
            raise ChangedError
        etag = self._objects.put(key, data, deadline)
        number = row.parts + 1 if row is not None else 1
        return Part(key, number, len(data), etag, hashlib.sha256(data).digest())

    def flush(self, row: Transfer, deadline: Deadline) -> None:
        """Make a part of the tail.

        :raises ChangedError: somebody changed the transfer meanwhile
        """
        made = self.make(row, b"", deadline)
        with self._journal.transaction(deadline) as at:
            self.record(at, row, made)

    @staticmethod
    def record(at: Transaction, row: Transfer, made: Part) -> None:
        """Have an object be the transfer's next part, in place of its tail.

        :raises ChangedError: somebody changed the transfer, or the object was too long in coming
        """
        if not records.stage(at, row, row.staged + made.size) or not records.record_part(
            at, row.id, made
        ):
            raise ChangedError

    def progress(self, row: Transfer | None, payload: bytes, deadline: Deadline) -> Progress:
        """What a segment makes of a transfer."""
        hasher = self.hasher(row, deadline)
        before = hasher.save()
        hasher.update(payload)
        segments, offset = (row.segments, row.offset) if row is not None else (0, 0)
        return Progress(segments + 1, offset + len(payload), len(payload), hasher.save(), before)

    def hasher(self, row: Transfer | None, deadline: Deadline) -> Hasher:
        """The running hash of all bytes."""
        if row is None:
            return digest.new()
        loaded = digest.load(row.state)
        if loaded is not None and loaded.total == row.offset:
            return loaded
        # A worker without OpenSSL's state wrote last, or this one has none.
        hasher = digest.new()
        hasher.update(self._read(row, deadline))
        return hasher

    def is_same(self, row: Transfer, payload: bytes, deadline: Deadline) -> bool:
        """Whether the last recorded segment has these bytes."""
        if row.last_size != len(payload):
            return False
        hasher = digest.load(row.before)
        if hasher is not None and row.state is not None:
            hasher.update(payload)
            return hasher.save() == row.state
        return self._read(row, deadline)[row.offset - row.last_size :] == payload

    def _read(self, row: Transfer, deadline: Deadline) -> bytes:
        """All bytes of a transfer.

        :raises ChangedError: it is another one meanwhile
        """
        with self._journal.transaction(deadline) as at:
            parts, tail = records.parts(at, row.id), records.read_tail(at, row)
        data = b"".join([*(self._objects.get(one.key, deadline) for one in parts), tail])
        if len(data) != row.offset:
            raise ChangedError
        return data

    def compose(
        self, row: Transfer | None, more: bytes, path: str, upload: str, deadline: Deadline
    ) -> list[str]:
        """Have all bytes of a transfer, and more, be the parts of an upload; their ETags.

        :param row: ``None``: there is none yet
        :raises ChangedError: the transfer is another one meanwhile
        :raises StagingDamagedError: a staged object is gone
        """
        parts, last = self._pieces(row, more, deadline) if row is not None else ([], more)
        etags = []
        for one in parts:
            # Copying takes its time; what is waited for is the next answer.
            at_most = Deadline(deadline.timeout)
            try:
                etags.append(self._objects.copy(path, upload, one.number, one.key, at_most))
            except OSError as error:
                pass_on(error)
                if row is not None and self._objects.head(one.key, at_most) is None:
                    self._check(row, at_most)
                    raise StagingDamagedError(one.key, row.file_id, "is gone") from None
                raise
        if last or not parts:
            number, at_most = len(parts) + 1, Deadline(deadline.timeout)
            etags.append(self._objects.add(path, upload, number, last, at_most))
        return etags

    def _pieces(self, row: Transfer, more: bytes, deadline: Deadline) -> tuple[list[Part], bytes]:
        """The parts of a transfer, and what comes after them."""
        with self._journal.transaction(deadline) as at:
            parts = records.parts(at, row.id)
            last = records.read_tail(at, row) + more
        if sum(one.size for one in parts) != row.staged or len(last) != row.tail + len(more):
            raise ChangedError
        return parts, last

    def _check(self, row: Transfer, deadline: Deadline) -> None:
        """:raises ChangedError: the transfer is another one meanwhile, so its parts may be gone"""
        with self._journal.transaction(deadline) as at:
            current = records.by_id(at, row.id)
        if current is None or current.change != row.change:
            raise ChangedError

    def discard(self, keys: list[str], deadline: Deadline) -> None:
        """Remove objects that are nobody's; what cannot be removed now is removed later."""
        if not keys:
            return
        try:
            self._objects.delete(keys, deadline)
            with self._journal.transaction(deadline, lazily=True) as at:
                records.forget_parts(at, keys)
        except (OSError, TxStoreError, TransientError) as error:
            pass_on(error)
            logger.warning("Staged objects were left to be removed later: %s", error)
