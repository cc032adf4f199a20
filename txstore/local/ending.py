"""Last messages carried out: the file is published, if its name lets it be.

Whether a name is taken is decided while its lock is held, and so is all that follows from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from txstore.local.clock import Call
from txstore.local.files.places import Place, place_bytes
from txstore.local.files.staged import StagedFile
from txstore.local.intents import Intents
from txstore.local.journal.rows import Transfer
from txstore.local.locks import Locks
from txstore.local.publish import Publisher
from txstore.local.transfers import Transfers
from txstore.local.whole import WholeFiles
from txstore.protocol.request import FileClaim, SegmentRequest
from txstore.protocol.rules import Fact, Refusal, Step


class Ending:
    """Carries out last messages for one manager; the transfer's lock is held.  Thread-safe."""

    def __init__(
        self,
        locks: Locks,
        transfers: Transfers,
        intents: Intents,
        publisher: Publisher,
        whole: WholeFiles,
    ) -> None:
        self._locks, self._transfers, self._intents = locks, transfers, intents
        self._publisher, self._whole = publisher, whole

    def end(
        self,
        step: Step | Fact,
        request: SegmentRequest,
        claim: FileClaim,
        found: tuple[Transfer, StagedFile] | None,
        decide: Callable[[bool], Step | Fact | Refusal],
        call: Call,
    ) -> None:
        """Publish a file, or find that it is answered without that.

        :param step: the rules' first answer
        :param decide: asks the rules once more, with whether the name is taken
        :raises RequestError: it is refused; nothing was changed
        """
        with self._held(claim, request, call) as place:
            decided: Step | Fact | Refusal = step
            if step is Fact.TAKEN:
                decided = decide(self._publisher.is_taken(place))
            if isinstance(decided, Refusal):
                raise decided.error
            if decided is Step.STORE:
                self._whole.publish(request, claim, place, call)
            elif decided is Step.FINISH:
                assert found is not None
                self._publisher.finish(*found, request, claim, place, call)
            elif decided is Step.END:
                assert found is not None
                row, staged = found
                self._transfers.drop(row, call)
                staged.close()

    @contextmanager
    def _held(self, claim: FileClaim, request: SegmentRequest, call: Call) -> Iterator[Place]:
        """Where a file goes, its name lock held and nobody's intent left there."""
        place = self._publisher.resolve(claim, request.given_id)
        with self._locks.name(place_bytes(place)).held(call) as lock:
            self._intents.settle_place(place, call)
            yield place
            lock.check_in_place()
