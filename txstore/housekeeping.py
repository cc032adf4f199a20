"""Nothing piles up for ever: expiry of transfers and completions, orphaned staging files.

Runs by itself in bounded slices after answers, and whole in ``expire``.  A slice never waits for
a transfer's lock: who holds it is working on it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

from txstore import clock
from txstore.clock import Moment
from txstore.errors import LockTimeoutError, TxStoreError
from txstore.home import Home
from txstore.intents import Intents
from txstore.journal.records import Records
from txstore.journal.rows import Transfer
from txstore.locks import Deadline, Locks
from txstore.staging import Staging, stripe_in
from txstore.transfers import Transfers

logger = logging.getLogger(__name__)

#: How much one slice looks at: transfers, completions, staging files.
_SLICE = 32
#: Seconds between slices, at most; a tenth of the shortest lifetime if that is less.
_INTERVAL = 1.0
#: Seconds for which a staging file is kept open for a transfer that may come back.
_KEPT_OPEN_FOR = 60.0
#: Seconds that a slice waits for the journal altogether.
_PATIENCE = 1.0


class Housekeeping:
    """Cleans up for one manager.  Thread-safe; ``forget`` in a forked child."""

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
        self._after = 0
        self._stamping = True
        self._names: Iterator[str] | None = None
        self._busy = threading.Lock()  # one slice at a time

    def after_answer(self, file_id: str, deadline: Deadline) -> None:
        """One slice, if it is time; what goes wrong is logged, since the answer stands.

        :param file_id: whose transfer is being worked on, however short its time is
        :param deadline: of the call
        """
        at = clock.now(self._home.boot)
        if at.ticks < self._due or not self._busy.acquire(blocking=False):
            return
        try:
            self._due = at.ticks + self._interval
            self._slice(file_id, at, deadline.sooner(_PATIENCE))
        except (OSError, TxStoreError) as error:
            logger.warning("Cleaning up was put off: %s", error)
        finally:
            self._busy.release()

    def expire(self, deadline: Deadline) -> list[str]:
        """Drop every transfer and forget every completion whose time has passed.

        :return: ids of the transfers dropped
        """
        at = clock.now(self._home.boot)
        seen = self._records.boot_seen(at, deadline)
        dropped = [
            row.file_id
            for row in self._records.transfers(deadline)
            if self._is_over(row, at, seen) and self._drop(row, at, seen, deadline)
        ]
        while self._forget_completions(at, seen, deadline):
            pass
        return dropped

    def _slice(self, file_id: str, at: Moment, deadline: Deadline) -> None:
        # What a replaced journal does not know is no orphan.
        self._records.verify(deadline)
        self._staging.trim(time.monotonic() - _KEPT_OPEN_FOR)
        seen = self._records.boot_seen(at, deadline)
        page = self._records.page(self._after, _SLICE, deadline)
        self._after = page[-1][0] if len(page) == _SLICE else 0
        for _key, row in page:
            if row.file_id != file_id and self._is_over(row, at, seen):
                self._drop(row, at, seen, deadline)
        self._settle_left(at, deadline)
        self._forget_completions(at, seen, deadline)
        self._sweep_orphans(deadline)
        self._records.make_reserve()

    # --- transfers ---------------------------------------------------------------------------

    def _is_over(self, row: Transfer, at: Moment, seen: float) -> bool:
        return self._is_ahead(row, at) or clock.age(row.activity, at, seen) >= self._expire_after

    @staticmethod
    def _is_ahead(row: Transfer, at: Moment) -> bool:
        """Whether the wall clock was ahead when a row was written, in another boot."""
        return row.boot != at.boot and row.updated_at > at.wall

    def _drop(self, row: Transfer, at: Moment, seen: float, deadline: Deadline) -> bool:
        """Drop a transfer, if it is still over when its lock is held; not waiting for that, since
        who holds it is working on it."""
        with ExitStack() as held:
            try:
                lock = held.enter_context(self._locks.transfer(row.file_id, Deadline(0.0)))
            except LockTimeoutError:
                return False
            lock.begin_turn()
            current = self._records.by_staging(row.staging, deadline)
            if current is None or not self._is_over(current, at, seen):
                return False
            if current.publish_place is not None:
                self._settle(current, at, deadline)
                return False
            if self._is_ahead(current, at):
                # Its time begins now.
                self._records.save(current, current.stamped(at), deadline)
                return False
            if not self._transfers.drop(current, deadline):
                return False
        logger.info("Transfer %r expired at segment %d", row.file_id, row.segments)
        return True

    def settle_left(self, deadline: Deadline) -> None:
        """At open: settle intents that dead workers left; what cannot be settled now stays."""
        try:
            self._settle_left(clock.now(self._home.boot), deadline.sooner(_PATIENCE))
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

    # --- completions -------------------------------------------------------------------------

    def _forget_completions(self, at: Moment, seen: float, deadline: Deadline) -> int:
        """Forget a slice of the oldest completions; answer how many were forgotten."""
        if self._stamping:  # looks at all of them, but after a boot once is enough
            stamped = self._records.stamp_future_completions(at, _SLICE, deadline)
            self._stamping = stamped == _SLICE
        over = [
            key
            for key, done in self._records.oldest_completions(_SLICE, deadline)
            if clock.age(done.activity, at, seen) >= self._keep_completed
        ]
        if over:
            self._records.forget_completions(over, deadline)
        return len(over)

    # --- staging files -----------------------------------------------------------------------

    def _sweep_orphans(self, deadline: Deadline) -> None:
        """Look at some staging files, going on where the last slice ended."""
        for _ in range(_SLICE):
            name = self._next_name()
            if name is None:
                return
            stripe = stripe_in(name)
            if stripe is None or self._records.by_staging(name, deadline) is not None:
                continue
            with self._locks.try_stripe(stripe) as held:
                # Without the lock its worker may be about to record it; read again under it.
                if held and self._records.by_staging(name, deadline) is None:
                    self._staging.remove(name)
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

    def forget(self) -> None:
        """In a forked child: no other thread is at it here."""
        self._busy = threading.Lock()
        self._names = None
