"""Nothing piles up for ever: expiry of transfers, of what is recorded of them, and orphans.

Runs by itself in bounded slices after answers, and whole in ``expire``.  A slice never waits for
a transfer's lock: who holds it is working on it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from txstore.deadline import Deadline
from txstore.errors import LockTimeoutError, TxStoreError
from txstore.local import clock
from txstore.local.clock import Call, Cutoff
from txstore.local.files.descriptors import never_collect
from txstore.local.files.home import Home
from txstore.local.files.staging import Staging, stripe_in
from txstore.local.forgetting import Slices
from txstore.local.intents import Intents
from txstore.local.journal.records import Records
from txstore.local.journal.rows import Event, Transfer
from txstore.local.locks import Locks
from txstore.local.transfers import Transfers
from txstore.process import threads
from txstore.process.strikes import ignored, pass_on

logger = logging.getLogger(__name__)

#: How much one slice takes away, or looks at one by one: transfers, completions, events,
#: staging files.
_SLICE = 32
#: Rows that a slice has SQLite look at, which takes less than a millisecond.
_LOOKED_AT = 1024
#: All rows there are.
_ALL = 2**62
#: Seconds between slices, at most; a tenth of the shortest lifetime if that is less.
_INTERVAL = 1.0
#: Seconds for which a staging file is kept open for a transfer that may come back.
_KEPT_OPEN_FOR = 60.0
#: Seconds that a slice waits for the journal altogether.
_PATIENCE = 1.0


class Housekeeping:
    """Cleans up for one manager.  Thread-safe.

    :ivar due: ticks of the clock at which a slice is due
    :ivar is_behind: whether one is due at once: the last took away as much as it may
    """

    def __init__(
        self,
        home: Home,
        locks: Locks,
        staging: Staging,
        records: Records,
        transfers: Transfers,
        intents: Intents,
        expire_after: float,
        forgetting: Sequence[Slices],
    ) -> None:
        self._home, self._locks, self._staging = home, locks, staging
        self._records, self._transfers, self._intents = records, transfers, intents
        self._expire_after, self._forgetting = expire_after, forgetting
        shortest = min(expire_after, *(one.lifetime for one in forgetting))
        self._interval = min(_INTERVAL, shortest / 10)
        self.due = 0.0
        self.is_behind = False
        self._after = 0
        self._names: Iterator[str] | None = None
        self._given_back = 0  # counts transfers, completions, events and orphans
        self._busy = threads.new_lock()  # one slice at a time
        self._making_room = threads.new_lock()

    def after_answer(self, file_id: str, deadline: Deadline) -> None:
        """One slice, where one is due; what goes wrong is logged, since the answer stands.

        :param file_id: whose transfer is being worked on, however short its time is
        :param deadline: of the call
        """
        if not threads.acquire(self._busy, 0):
            return
        try:
            call = Call.within(deadline.sooner(_PATIENCE), self._home.clock)
            due = call.at.ticks >= self.due  # or another thread was here in between
            behind, self.is_behind = self.is_behind, False
            if not (due or behind):
                return
            if due:
                self.due = call.at.ticks + self._interval
            self._slice(file_id, call, whole=due or not behind)
        except (OSError, TxStoreError) as error:
            pass_on(error)
            logger.warning("Cleaning up was put off: %s", error)
        finally:
            self._busy.release()

    def _slice(self, file_id: str, call: Call, *, whole: bool) -> None:
        # What a replaced journal does not know is no orphan.
        self._records.check_in_place(call)
        seen = self._records.boot_seen(call.at, call)
        over = clock.cutoff(self._expire_after, call.at, seen)
        found, self._after = self._records.overdue(
            over, call.at, self._after, _LOOKED_AT, _SLICE, call
        )
        self._drop(found, over, call, spare=file_id)
        forgotten = [one.some(_SLICE, seen, call) for one in self._forgetting]
        # An answer makes one at most of each, and the next takes so many away: whatever the rate,
        # no more pile up.
        self.is_behind = _SLICE in (len(found), *forgotten)
        if whole:
            for one in self._forgetting:
                one.warn(seen, call)
            self._staging.trim(time.monotonic() - _KEPT_OPEN_FOR)
            self._settle_left(call)
            self._sweep_slice(call)
            self._records.make_reserve(call)

    def expire(self, deadline: Deadline) -> list[str]:
        """Drop all transfers whose time has passed, and all that dead workers left; forget all
        completions and events whose time has passed.

        :return: ids of the transfers dropped
        """
        dropped: list[str] = []
        self._expire(dropped, deadline, spare=None)
        with ignored:  # what was to be done is done
            self._records.make_reserve(deadline)
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
            pass_on(error)
            logger.warning("No more room could be made: %s", error)
        finally:
            self._making_room.release()
        return self._given_back != before

    def _expire(self, dropped: list[str], deadline: Deadline, spare: str | None) -> None:
        # An idle service learns here, and in the sweep, that its store is another.
        self._home.check_storage_in_place()
        call = Call.within(deadline, self._home.clock)
        seen = self._records.boot_seen(call.at, call)
        over, after = clock.cutoff(self._expire_after, call.at, seen), 0
        while True:
            found, after = self._records.overdue(over, call.at, after, _ALL, _SLICE, call)
            dropped += self._drop(found, over, call, spare=spare)
            if len(found) < _SLICE:
                break
        self._sweep(call)
        for one in self._forgetting:
            for forgotten in one.all(seen, call):
                self._given_back += forgotten

    # --- transfers ---------------------------------------------------------------------------

    def _drop(
        self, found: list[Transfer], over: Cutoff, call: Call, spare: str | None
    ) -> list[str]:
        """Drop transfers: first all the rows, then one flush, then the bytes.

        A crash in between leaves orphans.

        :param spare: the id of one that is being worked on
        :return: ids of those dropped
        """
        dropped = [row for row in found if row.file_id != spare and self._drop_row(row, over, call)]
        if dropped:
            self._transfers.discard([row.staging for row in dropped], call)
            self._given_back += len(dropped)
        for row in dropped:
            logger.info("Transfer %r expired at segment %d", row.file_id, row.segments)
        return [row.file_id for row in dropped]

    def _drop_row(self, row: Transfer, over: Cutoff, call: Call) -> bool:
        """Drop a row, if it is still over when its transfer's lock is held; not waiting for that,
        since who holds it is working on it."""
        with ExitStack() as held:
            try:
                lock = held.enter_context(self._locks.transfer(row.file_id).held(Deadline(0.0)))
            except LockTimeoutError:
                return False
            lock.begin_turn()
            current = self._records.by_staging(row.staging, call)
            if current is None:
                return False
            is_ahead = current.boot != call.at.boot and current.updated_at > call.at.wall
            if not is_ahead and not over.is_over(current.activity):
                return False
            if current.publish_place is not None:
                self._settle(current, call)
                return False
            if is_ahead:
                # Its time begins now.
                self._records.save(current, current.stamped(call.at), call)
                return False
            return self._records.delete(current, call, Event.dropped("expired", current, call.at))

    def settle_left(self, deadline: Deadline) -> None:
        """At open: settle intents that dead workers left; what cannot be settled now stays."""
        try:
            if self._records.is_new:
                # There are none, and nothing is over before the second slice.
                self.due = self._home.clock.now().ticks + self._interval
                self._records.make_reserve(deadline)
                return
            self._settle_left(Call.within(deadline.sooner(_PATIENCE), self._home.clock))
        except (OSError, TxStoreError) as error:
            pass_on(error)
            logger.warning("Recovery was put off: %s", error)

    def _settle_left(self, call: Call) -> None:
        for row in self._records.intents(_SLICE, call):
            try:
                # Not waiting: who holds the transfer's lock is alive and busy with it.
                with self._locks.transfer(row.file_id).held(Deadline(0.0)) as lock:
                    lock.begin_turn()
                    self._settle(row, call)
            except LockTimeoutError:
                continue

    def _settle(self, row: Transfer, call: Call) -> None:
        """Settle an intent; one that cannot be keeps nothing else from being cleaned up."""
        try:
            self._intents.settle(row, call)
        except LockTimeoutError:
            raise
        except OSError as error:
            pass_on(error)
            logger.warning("Transfer %r could not be settled: %s", row.file_id, error)

    # --- staging files -----------------------------------------------------------------------

    def _sweep_slice(self, call: Call) -> None:
        """Look at some staging files, going on where the last slice ended."""
        for _ in range(_SLICE):
            name = self._next_name()
            if name is None:
                return
            if self._records.by_staging(name, call) is None:
                self.remove_orphan(name, call)

    def _sweep(self, call: Call) -> None:
        """Look at all staging files."""
        self._records.check_in_place(call)  # what a replaced journal does not know is no orphan
        names = list(self._staging.names())
        known = self._records.stagings(call)
        for name in names:
            if name not in known:
                self.remove_orphan(name, call)

    def remove_orphan(self, name: str, call: Call) -> None:
        """Remove a staging file, if it belongs to no transfer and nobody is busy with it."""
        stripe = stripe_in(name)
        if stripe is None:
            return  # not ours
        with self._locks.try_stripe(stripe) as held:
            # Without the lock its worker may be about to record it; read again under it.
            if held and self._records.by_staging(name, call) is None:
                # The row that named it may be back after a power loss: who replaced it by a
                # copy's may have died before its flush.
                self._records.flush(call)
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

    def disown(self) -> None:
        """Let go of a listing of another process, or whose descriptor was closed: its number may be
        another file's by now, so it is never closed."""
        never_collect(self._names)
        self._names = None
