"""Nothing piles up for ever: expiry of transfers and completions, orphaned staging files.

Runs by itself in bounded slices after answers, and whole in ``expire``.  A slice never waits for
a transfer's lock: who holds it is working on it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack

from txstore import clock, threads
from txstore.clock import Cutoff, Moment
from txstore.descriptors import never_collect
from txstore.errors import LockTimeoutError, TxStoreError
from txstore.home import Home
from txstore.intents import Intents
from txstore.journal.records import Records
from txstore.journal.rows import Transfer
from txstore.locks import Deadline, Locks
from txstore.staging import Staging, stripe_in
from txstore.transfers import Transfers

logger = logging.getLogger(__name__)

#: How much one slice takes away, or looks at one by one: transfers, completions, staging files.
_SLICE = 32
#: Rows that a slice has SQLite look at, which takes less than a millisecond.
_LOOKED_AT = 1024
#: Completions that one statement forgets where nobody waits for an answer; all rows there are.
_MANY, _ALL = 1024, 2**62
#: Seconds between slices, at most; a tenth of the shortest lifetime if that is less.
_INTERVAL = 1.0
#: Seconds for which a staging file is kept open for a transfer that may come back.
_KEPT_OPEN_FOR = 60.0
#: Seconds that a slice waits for the journal altogether.
_PATIENCE = 1.0


class Housekeeping:
    """Cleans up for one manager.  Thread-safe."""

    def __init__(
        self,
        home: Home,
        locks: Locks,
        staging: Staging,
        records: Records,
        transfers: Transfers,
        intents: Intents,
        expire_after: float,
        keep_completed: float,
    ) -> None:
        self._home, self._locks, self._staging = home, locks, staging
        self._records, self._transfers, self._intents = records, transfers, intents
        self._expire_after, self._keep_completed = expire_after, keep_completed
        self._interval = min(_INTERVAL, expire_after / 10, keep_completed / 10)
        self._due = 0.0
        self._behind = False
        self._after = 0
        self._stamping, self._stamped = True, 0
        self._names: Iterator[str] | None = None
        self._given_back = 0  # counts transfers, completions and orphans
        self._busy = threads.new_lock()  # one slice at a time
        self._making_room = threads.new_lock()

    def after_answer(self, file_id: str, deadline: Deadline) -> None:
        """One slice, if it is time; what goes wrong is logged, since the answer stands.

        :param file_id: whose transfer is being worked on, however short its time is
        :param deadline: of the call
        """
        at = self._home.now()
        due = at.ticks >= self._due
        if not (due or self._behind) or not threads.acquire(self._busy, 0):
            return
        try:
            behind, self._behind = self._behind, False
            if due:
                self._due = at.ticks + self._interval
            self._slice(file_id, at, deadline.sooner(_PATIENCE), whole=due or not behind)
        except (OSError, TxStoreError) as error:
            logger.warning("Cleaning up was put off: %s", error)
        finally:
            self._busy.release()

    def _slice(self, file_id: str, at: Moment, deadline: Deadline, *, whole: bool) -> None:
        # What a replaced journal does not know is no orphan.
        self._records.verify(deadline)
        seen = self._records.boot_seen(at, deadline)
        over = clock.cutoff(self._expire_after, at, seen)
        found, self._after = self._records.overdue(
            over, at, self._after, _LOOKED_AT, _SLICE, deadline
        )
        self._drop(found, over, at, deadline, spare=file_id)
        if self._stamping:  # looks at all of them, but after a boot once is enough
            self._stamped = self._records.stamp_ahead(at, self._stamped, _LOOKED_AT, deadline)
            self._stamping = self._stamped > 0
        over = clock.cutoff(self._keep_completed, at, seen)
        forgotten = self._records.forget_over(over, _SLICE, deadline)
        # An answer makes one at most, and the next takes so many away: whatever the rate, no
        # more pile up.
        self._behind = _SLICE in (len(found), forgotten)
        if whole:
            self._staging.trim(time.monotonic() - _KEPT_OPEN_FOR)
            self._settle_left(at, deadline)
            self._sweep_slice(deadline)
            self._records.make_reserve()

    def expire(self, deadline: Deadline) -> list[str]:
        """Drop all transfers whose time has passed, and all that dead workers left; forget all
        completions whose time has passed.

        :return: ids of the transfers dropped
        """
        dropped: list[str] = []
        self._expire(dropped, deadline, spare=None)
        return dropped

    def make_room(self, file_id: str, deadline: Deadline) -> bool:
        """A call found no space left: drop at once what has no claim to it.  No lock is held.

        :param file_id: whose transfer is being worked on
        :return: whether anything was given back, by whatever thread, so that it is worth another
            attempt
        """
        before = self._given_back
        if not threads.acquire(self._making_room, deadline.left()):
            return False
        try:
            self._expire([], deadline, spare=file_id)
        except (OSError, TxStoreError) as error:
            logger.warning("No more room could be made: %s", error)
        finally:
            self._making_room.release()
        return self._given_back != before

    def _expire(self, dropped: list[str], deadline: Deadline, spare: str | None) -> None:
        # An idle service learns here, and in the sweep, that its store is another.
        self._home.verify_storage()
        at = self._home.now()
        seen = self._records.boot_seen(at, deadline)
        over, after = clock.cutoff(self._expire_after, at, seen), 0
        while True:
            found, after = self._records.overdue(over, at, after, _ALL, _SLICE, deadline)
            dropped += self._drop(found, over, at, deadline, spare=spare)
            if len(found) < _SLICE:
                break
        self._sweep(deadline)
        over = clock.cutoff(self._keep_completed, at, seen)
        while forgotten := self._records.forget_over(over, _MANY, deadline):
            self._given_back += forgotten

    # --- transfers ---------------------------------------------------------------------------

    def _drop(
        self, found: list[Transfer], over: Cutoff, at: Moment, deadline: Deadline, spare: str | None
    ) -> list[str]:
        """Drop transfers: first all the rows, then one flush, then the bytes.

        A crash in between leaves orphans.

        :param spare: the id of one that is being worked on
        :return: ids of those dropped
        """
        dropped = [
            row for row in found if row.file_id != spare and self._drop_row(row, over, at, deadline)
        ]
        if dropped:
            self._transfers.discard([row.staging for row in dropped], deadline)
            self._given_back += len(dropped)
        for row in dropped:
            logger.info("Transfer %r expired at segment %d", row.file_id, row.segments)
        return [row.file_id for row in dropped]

    def _drop_row(self, row: Transfer, over: Cutoff, at: Moment, deadline: Deadline) -> bool:
        """Drop a row, if it is still over when its transfer's lock is held; not waiting for that,
        since who holds it is working on it."""
        with ExitStack() as held:
            try:
                lock = held.enter_context(self._locks.transfer(row.file_id, Deadline(0.0)))
            except LockTimeoutError:
                return False
            lock.begin_turn()
            current = self._records.by_staging(row.staging, deadline)
            if current is None:
                return False
            is_ahead = current.boot != at.boot and current.updated_at > at.wall
            if not is_ahead and not over.is_over(current.activity):
                return False
            if current.publish_place is not None:
                self._settle(current, at, deadline)
                return False
            if is_ahead:
                # Its time begins now.
                self._records.save(current, current.stamped(at), deadline)
                return False
            return self._records.delete(current, deadline)

    def settle_left(self, deadline: Deadline) -> None:
        """At open: settle intents that dead workers left; what cannot be settled now stays."""
        try:
            self._settle_left(self._home.now(), deadline.sooner(_PATIENCE))
        except (OSError, TxStoreError) as error:
            logger.warning("Recovery was put off: %s", error)

    def _settle_left(self, at: Moment, deadline: Deadline) -> None:
        for row in self._records.intents(_SLICE, deadline):
            try:
                # Not waiting: who holds the transfer's lock is alive and busy with it.
                with self._locks.transfer(row.file_id, Deadline(0.0)) as lock:
                    lock.begin_turn()
                    self._settle(row, at, deadline)
            except LockTimeoutError:
                continue

    def _settle(self, row: Transfer, at: Moment, deadline: Deadline) -> None:
        """Settle an intent; one that cannot be keeps nothing else from being cleaned up."""
        try:
            self._intents.settle(row, at, deadline)
        except LockTimeoutError:
            raise
        except OSError as error:
            logger.warning("Transfer %r could not be settled: %s", row.file_id, error)

    # --- staging files -----------------------------------------------------------------------

    def _sweep_slice(self, deadline: Deadline) -> None:
        """Look at some staging files, going on where the last slice ended."""
        for _ in range(_SLICE):
            name = self._next_name()
            if name is None:
                return
            if self._records.by_staging(name, deadline) is None:
                self._remove_orphan(name, deadline)

    def _sweep(self, deadline: Deadline) -> None:
        """Look at all staging files."""
        self._records.verify(deadline)  # what a replaced journal does not know is no orphan
        names = list(self._staging.names())
        known = self._records.stagings(deadline)
        for name in names:
            if name not in known:
                self._remove_orphan(name, deadline)

    def _remove_orphan(self, name: str, deadline: Deadline) -> None:
        stripe = stripe_in(name)
        if stripe is None:
            return  # not ours
        with self._locks.try_stripe(stripe) as held:
            # Without the lock its worker may be about to record it; read again under it.
            if held and self._records.by_staging(name, deadline) is None:
                # The row that named it may be back after a power loss: who replaced it by a
                # copy's may have died before its flush.
                self._records.flush(deadline)
                self._staging.discard(name)
                self._given_back += 1
                logger.info("The orphaned staging file %s was removed", name)

    def _next_name(self) -> str | None:
        if self._names is None:
            self._names = self._staging.names()
        name = next(self._names, None)
        if name is None:
            self._names = None
        return name

    def close(self) -> None:
        """Let go of the listing."""
        self._names = None

    def let_go(self) -> None:
        """After a call of this thread was cut off."""
        threads.let_go(self._busy)
        threads.let_go(self._making_room)

    def forget(self) -> None:
        """Let go of a listing of another process, or whose descriptor was closed: its number may be
        another file's by now, so it is never closed."""
        never_collect(self._names)
        self._names = None
