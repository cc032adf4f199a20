"""Nothing piles up for ever: expiry of transfers, of what is recorded of them, and staged objects.

Runs by itself in bounded slices after answers, and whole in ``expire``.  Times are the database's.
One worker of a store cleans up at a time.
"""

from __future__ import annotations

import logging
import random
import time

from txstore.cluster import leftovers, records, turns
from txstore.cluster.consumers import Consumers
from txstore.cluster.journal import Journal, Transaction
from txstore.cluster.objects import STAGING, Objects
from txstore.cluster.parts import Parts
from txstore.cluster.publish import Publisher
from txstore.cluster.records import Transfer
from txstore.cluster.retry import ChangedError, TransientError, pass_on, retrying
from txstore.cluster.servers import Servers
from txstore.deadline import Deadline
from txstore.errors import TxStoreError
from txstore.process import threads

logger = logging.getLogger(__name__)

#: How many rows of each kind a slice takes away.
_SLICE = 32
#: Rows that one statement takes away where nobody waits for an answer.
_MANY = 1000
#: Keys that one listing gives.
_LISTED = 1000
#: Seconds between slices, at most; a tenth of the shortest lifetime if that is less.
_INTERVAL = 1.0
#: Seconds between two looks at the object store, which charges for each.
_LOOKING = 600.0
#: Seconds that a slice may take.
_PATIENCE = 1.0
#: Seconds in which an object is sent, whatever happens, or its worker begins anew.
_SENDING = 3600.0
#: Seconds after which an upload that nobody speaks of is abandoned.
_ABANDONED = 86400.0
#: Longer times never pass, and PostgreSQL could not count them.
_FOR_EVER = 1e10


def _expired(at: Transaction, row: Transfer) -> bool:
    ended = records.ended(at, row.id)
    return ended is not None and ended[0] == "expired"


class Cleaning:
    """Cleans up for one engine.  Thread-safe."""

    def __init__(
        self,
        journal: Journal,
        servers: Servers,
        objects: Objects,
        parts: Parts,
        publisher: Publisher,
        consumers: Consumers,
        *,
        expire_after: float,
        keep_completed: float,
    ) -> None:
        self._journal, self._servers = journal, servers
        self._objects, self._parts = objects, parts
        self._publisher, self._consumers = publisher, consumers
        self._expire_after, self._keep_completed = expire_after, keep_completed
        shortest = min(expire_after, keep_completed, consumers.keep)
        self._interval = min(_INTERVAL, shortest / 10)
        self._due = time.monotonic() + self._interval
        self._look_due = time.monotonic() + random.uniform(0, _LOOKING)
        self._after: str | None = None
        self._busy = threads.new_lock()  # one slice at a time

    def after_answer(self, file_id: str, deadline: Deadline) -> None:
        """One slice, if it is time; what goes wrong is logged, since the answer stands.

        :param file_id: whose transfer is being worked on, however short its time is
        :param deadline: of the call
        """
        if time.monotonic() < self._due or not threads.try_acquire(self._busy):
            return
        try:
            self._due = time.monotonic() + self._interval
            limit = deadline.sooner(_PATIENCE)
            with turns.cleaning(self._journal, limit) as mine:
                if mine and self._slice(file_id, limit):
                    self._due = 0.0  # there is more
        except (OSError, TxStoreError, TransientError, ChangedError) as error:
            pass_on(error)
            logger.warning("Cleaning up was put off: %s", error)
        finally:
            self._busy.release()

    def let_go(self) -> None:
        """After a call of this thread was cut off."""
        threads.let_go(self._busy)

    def _slice(self, file_id: str, deadline: Deadline) -> bool:
        """Take some away; whether there was as much as a slice takes."""
        self._settle_left(deadline)
        counts = [
            len(self._expire(_SLICE, deadline, spare=file_id)),
            self._forget(_SLICE, deadline),
            self._consumers.forget(_SLICE, deadline),
            self._remove_garbage(_SLICE, deadline),
        ]
        self._consumers.warn(deadline)
        if time.monotonic() >= self._look_due:
            self._after = self._sweep_page(self._after, deadline)
            if self._after is None:
                self._look_due = time.monotonic() + _LOOKING
                self._abort_uploads(deadline)
        return _SLICE in counts

    def expire(self, deadline: Deadline, *, spare: str | None = None) -> list[str]:
        """Drop all transfers whose time has passed, and all that dead workers left; forget all
        completions and events whose time has passed.

        :return: ids of the transfers dropped
        """
        dropped: list[str] = []
        doubtful: list[Transfer] = []

        def some() -> list[str]:
            return self._expire(_MANY, deadline, spare=spare, doubtful=doubtful)

        self._settle_left(deadline)
        while found := retrying(some, deadline, self._servers):
            dropped += found
        for remove in (self._forget, self._consumers.forget, self._remove_garbage):
            while remove(_MANY, deadline) == _MANY:
                pass
        after = self._sweep_page(None, deadline)
        while after is not None:
            after = self._sweep_page(after, deadline)
        self._abort_uploads(deadline)
        return dropped

    # --- rows --------------------------------------------------------------------------------

    def _settle_left(self, deadline: Deadline) -> None:
        """Settle what dead workers left; what cannot be settled now keeps nothing else waiting."""
        with self._journal.transaction(deadline) as at:
            left = leftovers.intents(at, _SLICE)
        for row in left:
            try:
                self._publisher.settle_if_left(row, deadline)
            except (OSError, TransientError, ChangedError) as error:
                pass_on(error)
                logger.warning("Transfer %r could not be settled: %s", row.file_id, error)

    def _expire(
        self,
        most: int,
        deadline: Deadline,
        *,
        spare: str | None,
        doubtful: list[Transfer] | None = None,
    ) -> list[str]:
        """Drop some transfers whose time has passed; their ids.

        :param doubtful: those of an attempt whose answer was lost, and then of this one
        """
        if self._expire_after >= _FOR_EVER:
            return []
        with self._journal.transaction(deadline) as at:
            dropped = [one for one in doubtful or () if _expired(at, one)]
            rows = leftovers.overdue(at, self._expire_after, spare, most)
            keys = [one.key for row in rows if row.parts for one in records.parts(at, row.id)]
            for row in rows:
                records.drop(at, row)
                records.dropped(at, "expired", row)
            dropped += rows
            if doubtful is not None:
                doubtful[:] = dropped
        if doubtful is not None:
            doubtful.clear()
        for row in dropped:
            logger.info("Transfer %r expired at segment %d", row.file_id, row.segments)
        self._parts.discard(keys, deadline)
        return [row.file_id for row in dropped]

    def _forget(self, most: int, deadline: Deadline) -> int:
        if self._keep_completed >= _FOR_EVER:
            return 0
        with self._journal.transaction(deadline) as at:
            return leftovers.forget_completions(at, self._keep_completed, most)

    # --- objects -----------------------------------------------------------------------------

    def _remove_garbage(self, most: int, deadline: Deadline) -> int:
        """Remove staged objects of transfers that ended, and those that were never recorded."""
        with self._journal.transaction(deadline) as at:
            leftovers.condemn(at, _SENDING, most)
        with self._journal.transaction(deadline) as at:
            keys = leftovers.garbage(at, most)
        if keys:
            self._objects.delete(keys, deadline)
            with self._journal.transaction(deadline) as at:
                records.forget_parts(at, keys)
        return len(keys)

    def _sweep_page(self, after: str | None, deadline: Deadline) -> str | None:
        """Remove those of some staged objects that no row speaks of; where to go on.

        A worker that was paused while it sent one, for longer than its row was kept, left them.
        """
        listed = self._objects.listed(STAGING, after, _LISTED, deadline)
        # After listing: whoever makes an object has recorded its row before.
        with self._journal.transaction(deadline) as at:
            known = leftovers.known(at, listed.keys)
        orphans = [key for key in listed.keys if key not in known]
        if orphans:
            self._objects.delete(orphans, deadline)
            logger.info("%d orphaned staged objects were removed", len(orphans))
        return listed.after

    def remove_orphan(self, key: str, deadline: Deadline) -> bool:
        """Remove a staged object if no row speaks of it; ``False``: one does."""
        with self._journal.transaction(deadline) as at:
            if leftovers.known(at, [key]):
                return False
        self._objects.delete([key], deadline)
        return True

    def _abort_uploads(self, deadline: Deadline) -> None:
        """Abort uploads that were begun long ago and that no intent speaks of."""
        uploads = self._objects.uploads(deadline)
        if not uploads:
            return
        with self._journal.transaction(deadline) as at:
            now, used = leftovers.uploads(at)
        for upload, begun in uploads:
            if upload.upload not in used and (now - begun).total_seconds() > _ABANDONED:
                self._objects.abort(upload.key, upload.upload, deadline)
                logger.info("An abandoned upload of %r was aborted", upload.key)
