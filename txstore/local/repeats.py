"""Last messages that come again: answered from their completion, not carried out twice."""

from __future__ import annotations

import hashlib
import os

from txstore.local.clock import Call
from txstore.local.files.home import Home
from txstore.local.journal.records import Records
from txstore.local.journal.rows import Completion
from txstore.local.published import Published
from txstore.options import Durability
from txstore.protocol.request import FileClaim, SegmentRequest


class Repeats:
    """Finds the completion that answers a last message.  Thread-safe."""

    def __init__(
        self, home: Home, records: Records, published: Published, durability: Durability
    ) -> None:
        self._home, self._records, self._published = home, records, published
        self._keeps = durability.keeps_files

    def secure(self, request: SegmentRequest, claim: FileClaim, call: Call) -> bool:
        """Make durable, as the level says, what the answer to a repeated last message rests on.
        The transfer's lock is held.

        :return: ``False``: it repeats none that was carried out, or what it rests on is lost
        """
        last = hashlib.sha256(request.payload).digest()
        for key, done in self._candidates(request, claim, call):
            if done.last == last and self._secure(key, done, call):
                return True
        return False

    def _candidates(
        self, request: SegmentRequest, claim: FileClaim, call: Call
    ) -> list[tuple[int, Completion]]:
        """Completions that a message may repeat, latest first."""
        wanted = (request.number, os.fsencode(claim.path), claim.size, claim.sha256)
        found = [
            (key, done)
            for key, done in self._records.completions(request.file_id, call)
            if wanted == (done.segments, done.path, done.size, done.sha256)
        ]
        # A file of one segment may have been stored again since: of equal ones only the latest
        # tells whether its file is as it was published.
        return found[:1] if request.number == 1 else found

    def is_known(self, done: Completion) -> bool:
        """Whether a power loss has not taken the file, as far as can be told."""
        flushed = bool(done.durable) or self._home.is_this_boot(done.boot)
        return flushed or self._published.still_there(done)

    def remembers(self, key: int, done: Completion, call: Call) -> bool:
        """Whether a repeat of the last message would be answered, as far as can be told."""
        if self.is_known(done):
            return True
        # Also where the file was replaced since: nothing says that it was lost.
        latest = self._records.latest_at(done.place, call)
        if latest is None or latest[0] <= key:
            return False
        return not self._keeps or self.is_known(latest[1])

    def _secure(self, key: int, done: Completion, call: Call) -> bool:
        """Make durable what an answer from a completion rests on; ``False``: that is lost."""
        basis = (key, done)
        if not self._published.still_there(done):
            latest = self._records.latest_at(done.place, call)
            if latest is not None and latest[0] > key:
                basis = latest
            elif done.segments == 1 or not self.is_known(done):
                # One segment is simply stored again.  More are answered, since they cannot be
                # asked for again; unless they were never flushed and a power loss took them.
                return False
        if not self._keeps:
            self._records.check_in_place(call)
            return True
        if not self._make_durable(*basis, call) and (
            # What replaced it may be lost (level "none"); its own answer was promised all the same.
            basis[0] == key or done.segments == 1 or not self._make_durable(key, done, call)
        ):
            return False
        self._records.flush(call)
        return True

    def _make_durable(self, key: int, done: Completion, call: Call) -> bool:
        """Flush a published file and its name; ``False``: a power loss took the unflushed file."""
        if done.durable:
            return True
        if self._published.still_there(done):
            self._published.make_durable(done, lambda: self._records.forget_completion(key, call))
        elif not self.is_known(done):
            return False
        # Otherwise somebody removed or changed it since: there is nothing left to lose.
        self._records.mark_durable(key, call)
        return True
